// LaunchPlan: the command line taken apart and checked as far as that goes without touching the host. main() carries it
// out.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "machine/machine_config.h"
#include "object/object_type.h"
#include "support/result.h"

namespace kite::main {

struct MonitorPlan {
  std::string chardev;  // id of a -chardev, or a legacy description ("stdio", "unix:...") when `legacy`
  bool legacy = false;
  bool control = false;  // QMP; else the human monitor
  bool pretty = false;
};

struct LaunchPlan {
  machine::MachineConfig machine;
  std::vector<std::string> chardevs;  // -chardev texts
  std::vector<std::string> serials;   // -serial texts
  std::vector<std::string> globals;   // -global texts
  std::vector<std::string> devices;   // -device texts
  std::vector<MonitorPlan> monitors;
  std::optional<std::string> qtest;  // -qtest text
  std::optional<std::string> qtest_log;
  std::string pid_file;
  std::string log_items, log_file;
  bool daemonize = false;
  bool defaults = true;  // false with -nodefaults
  bool nographic = false;
  bool display_none = false;
  bool serial_given = false, monitor_given = false;
  std::string text;  // what -help, -version, -device help and the like want printed; then nothing else is done
};

// Refuses unknown options and values by name, with the nearest known one and the remedy.
Result<LaunchPlan> plan_launch(const std::vector<std::string>& arguments, TypeRegistry& types);

// After the plan is complete: fills in -device from the registry (globals applied).
Result<> resolve_devices(LaunchPlan& plan, TypeRegistry& types);

std::string help_text();
std::string version_text();

}  // namespace kite::main

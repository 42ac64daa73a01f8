// The QMP commands, as one table. Every command runs on the main executor's thread.
#pragma once

#include <span>
#include <string_view>

#include "chardev/chardev.h"
#include "display/spice/spice_display.h"
#include "display/vnc/vnc_server.h"
#include "machine/machine.h"
#include "monitor/qmp_error.h"

namespace kite::monitor {

struct MonitorContext {
  machine::Machine& machine;
  ChardevRegistry& chardevs;
  display::VncServer* vnc = nullptr;  // null: none
  display::SpiceDisplay* spice = nullptr;
};

struct ArgumentSpec {
  std::string_view name;
  Json::value_t type;  // string, boolean, number_integer, object
  bool required;
};

struct QmpCommand {
  std::string_view name;
  std::span<const ArgumentSpec> arguments;  // every other name in "arguments" is refused
  QmpReply (*run)(MonitorContext& context, const Json& arguments);
  bool open = false;  // takes any other name too, and judges it itself
};

std::span<const QmpCommand> qmp_commands();

// Finds the command, checks the arguments against its table and runs it.
QmpReply run_qmp_command(MonitorContext& context, std::string_view name, const Json& arguments);

// {"qemu": {"major", "minor", "micro"}, "package"}: the version of the protocol that clients know, and ours.
Json version_json();

}  // namespace kite::monitor

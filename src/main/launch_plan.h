// LaunchPlan: the command line taken apart and checked as far as that goes without touching the host. main() carries it
// out.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "block/options.h"
#include "chardev/socket_address.h"
#include "display/spice/spice_config.h"
#include "display/vnc/vnc_screen.h"
#include "machine/drive_spec.h"
#include "machine/machine_config.h"
#include "main/sandbox.h"
#include "monitor/qmp_commands.h"
#include "net/net_backend.h"
#include "object/object_type.h"
#include "support/result.h"

namespace kite::main {

struct MonitorPlan {
  std::string chardev;  // id of a -chardev, or a legacy description ("stdio", "unix:...") when `legacy`
  bool legacy = false;
  bool control = false;  // QMP; else the human monitor
  bool pretty = false;
};

// -vnc: a unix socket, or the first display from `display` to `last_display` whose port is free.
struct VncPlan {
  SocketAddress address;
  unsigned display = 0, last_display = 0;
  bool password = false;
  std::string password_secret;  // id of an -object secret; "" for none
  std::string credentials;      // id of an -object tls-creds-...; "" without TLS
  std::string audio;            // id of an -audiodev, which has nothing to play; "" for none
  display::VncScreen::Share share = display::VncScreen::Share::kAllowExclusive;
};

// -spice
struct SpicePlan {
  std::optional<SocketAddress> address, tls_address;  // one at least
  std::string password_secret;                        // id of an -object secret; "" for none
  display::SpiceConfig config;
};

// One option that makes a drive: -drive, or a short one that stands for it.
struct DriveOption {
  std::string name, text;  // as given, for messages
  std::vector<std::pair<std::string, std::string>> settings;
};

// A network back end and the option that asks for it, for messages.
struct NetdevPlan {
  std::string option;
  net::Settings settings;
};

// An -object with the values of its properties.
struct ObjectPlan {
  std::string type, id;
  PropertyMap properties;
};

struct LaunchPlan {
  machine::MachineConfig machine;
  std::vector<DriveOption> drive_options;
  std::vector<block::BlockOptions> nodes;  // -blockdev
  std::array<std::string, 2> flash_nodes;  // -machine pflash0=, pflash1=: nodes that are the firmware's flash
  std::vector<machine::DriveSpec> drives;  // resolve_drives(): of drive_options, and the default ones
  bool snapshot = false;                   // -snapshot
  std::vector<NetdevPlan> netdevs;         // -netdev, and those of -nic, -net and -redir
  std::vector<ObjectOptions> cards;        // of -nic, -net and -redir; the board has them before what -device adds
  std::vector<size_t> loose_cards;         // -net nic: those of `cards` that resolve_network() connects
  std::vector<std::string> loose_netdevs;  // -net user: ids
  std::vector<std::string> forwards;       // -redir, as hostfwd= has them
  std::vector<std::string> chardevs;       // -chardev texts
  std::vector<std::string> serials;        // -serial texts
  std::vector<std::string> globals;        // -global texts
  std::vector<std::string> devices;        // -device texts
  std::vector<MonitorPlan> monitors;
  std::optional<std::string> gdb;    // -gdb text
  std::optional<std::string> qtest;  // -qtest text
  std::optional<std::string> qtest_log;
  std::string pid_file;
  std::string log_items, log_file;
  std::string incoming;                  // -incoming; "" for defer, or when it is not given
  std::string snapshot_name;             // -loadvm
  std::set<std::string> audio_backends;  // -audiodev: ids
  std::optional<SandboxPolicy> sandbox;  // -sandbox on
  bool lock_memory = false;              // -overcommit mem-lock=on
  bool timestamps = false;               // -msg timestamp=on
  bool daemonize = false;
  bool defaults = true;  // false with -nodefaults
  bool nographic = false;
  bool display_none = false;
  std::string vga;  // -vga; "" when not given
  std::optional<VncPlan> vnc;
  std::optional<SpicePlan> spice;
  std::map<std::string, std::string> secrets;  // -object secret, by id
  std::vector<ObjectPlan> entropy;             // -object rng-random and rng-builtin
  std::vector<ObjectPlan> credentials;         // -object tls-creds-anon, -psk, -x509
  bool serial_given = false, monitor_given = false;
  std::string text;  // what -help, -version, -device help and the like want printed; then nothing else is done
};

// Refuses unknown options and values by name, with the nearest known one and the remedy.
Result<LaunchPlan> plan_launch(const std::vector<std::string>& arguments, TypeRegistry& types);

// After the plan is complete: fills in `drives`, the empty CD-ROM and floppy drives included that a PC has unless
// -nodefaults or a device of that kind is given.
Result<> resolve_drives(LaunchPlan& plan);

// After the plan is complete, before resolve_drives(): nodes that -machine pflash0= and pflash1= name become flash.
Result<> resolve_flash(LaunchPlan& plan);

// After the plan is complete, before resolve_devices(): connects the one card and the one back end of -net, and gives
// -redir to a back end.
Result<> resolve_network(LaunchPlan& plan);

// After the plan is complete: fills in -device from the registry (globals applied).
Result<> resolve_devices(LaunchPlan& plan, TypeRegistry& types);

// The options and what each can be told, as far as the help text says it; for query-command-line-options.
std::vector<monitor::CommandLineOption> command_line_options();
std::string help_text();
std::string version_text();

}  // namespace kite::main

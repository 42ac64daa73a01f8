// The QMP commands, as one table. Every command runs on the main executor's thread.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "chardev/chardev.h"
#include "display/spice/spice_display.h"
#include "display/vnc/vnc_server.h"
#include "machine/machine.h"
#include "monitor/passed_fds.h"
#include "monitor/qmp_error.h"

namespace kite::monitor {

class DebugServer;
class MigrationControl;
// An option of the command line, as query-command-line-options tells of it.
struct CommandLineOption {
  std::string name;
  std::vector<std::string> parameters;
};

struct MonitorContext {
  machine::Machine& machine;
  ChardevRegistry& chardevs;
  display::VncServer* vnc = nullptr;  // null: none
  display::SpiceDisplay* spice = nullptr;
  MigrationControl* migration = nullptr;  // null: the machine does not move
  std::vector<CommandLineOption> (*command_line)() = nullptr;
  DebugServer* debugger = nullptr;  // null: none can be
  PassedFds* fds = nullptr;         // what the client of this monitor has passed; null: it cannot
};

struct ArgumentSpec {
  std::string_view name;
  Json::value_t type;  // string, boolean, number_integer, object, array; null: any
  bool required;
  // Of a string or an array of strings, when there are only some: what it can be. For the schema; commands check it.
  std::vector<std::string> (*choices)(const MonitorContext& context) = nullptr;
  // Of an object, or of each in an array: what it has, which is checked like arguments.
  std::span<const ArgumentSpec> (*members)() = nullptr;
};

struct QmpCommand {
  std::string_view name;
  std::span<const ArgumentSpec> arguments;  // every other name in "arguments" is refused
  QmpReply (*run)(MonitorContext& context, const Json& arguments);
  bool open = false;                                // takes any other name too, and judges it itself
  std::span<const std::string_view> features = {};  // as the schema has them
};

std::span<const QmpCommand> qmp_commands();

// Required ones are there, none is of a wrong type, and, unless `open`, there are no others.
std::expected<void, QmpError> check_arguments(std::span<const ArgumentSpec> specs, const Json& arguments, bool open);

// Finds the command, checks the arguments against its table and runs it.
QmpReply run_qmp_command(MonitorContext& context, std::string_view name, const Json& arguments);

// {"qemu": {"major", "minor", "micro"}, "package"}: the version of the protocol that clients know, and ours.
Json version_json();

}  // namespace kite::monitor

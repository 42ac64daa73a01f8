#include "monitor/qmp_commands.h"

#include <algorithm>
#include <vector>

#include "monitor/balloon_commands.h"
#include "monitor/block_commands.h"
#include "monitor/device_commands.h"
#include "monitor/dirty_rate_commands.h"
#include "monitor/display_commands.h"
#include "monitor/display_servers.h"
#include "monitor/export_commands.h"
#include "monitor/human_commands.h"
#include "monitor/input_commands.h"
#include "monitor/inspect_commands.h"
#include "monitor/job_commands.h"
#include "monitor/memory_commands.h"
#include "monitor/migration_commands.h"
#include "monitor/net_commands.h"
#include "monitor/qom_commands.h"
#include "monitor/schema.h"
#include "monitor/stats_commands.h"
#include "monitor/type_commands.h"
#include "support/suggest.h"

namespace kite::monitor {

Json version_json() {
  // Clients choose what they send by the version of the interface; 7.2 is the one that Kite's commands follow.
  return {{"qemu", {{"micro", 0}, {"minor", 2}, {"major", 7}}}, {"package", "Kite " KITE_VERSION}};
}

namespace {

using Context = MonitorContext;
using machine::Cause;
using machine::RunState;

Json empty() { return Json::object(); }

QmpReply query_version(Context&, const Json&) { return version_json(); }

QmpReply query_status(Context& context, const Json&) {
  const RunState state = context.machine.state();
  return Json{
      {"status", machine::run_state_name(state)}, {"singlestep", false}, {"running", state == RunState::kRunning}};
}

QmpReply stop(Context& context, const Json&) {
  context.machine.pause();
  return empty();
}

QmpReply cont(Context& context, const Json&) {
  if (auto done = context.machine.resume(); !done) return qmp_fail("{}", done.error().message);
  return empty();
}

QmpReply system_reset(Context& context, const Json&) {
  context.machine.request_reset(Cause::kHostQmpSystemReset);
  return empty();
}

QmpReply system_powerdown(Context& context, const Json&) {
  context.machine.request_powerdown();
  return empty();
}

QmpReply system_wakeup(Context& context, const Json&) {
  if (auto done = context.machine.system_wakeup(); !done) return qmp_fail("{}", done.error().message);
  return empty();
}

QmpReply query_current_machine(Context&, const Json&) { return Json{{"wakeup-suspend-support", true}}; }

QmpReply quit(Context& context, const Json&) {
  context.machine.request_shutdown(Cause::kHostQmpQuit);
  return empty();
}

QmpReply inject_nmi(Context& context, const Json&) {
  context.machine.request_nmi();
  return empty();
}

QmpReply query_name(Context& context, const Json&) {
  const std::string& name = context.machine.config().name;
  return name.empty() ? empty() : Json{{"name", name}};
}

QmpReply query_uuid(Context& context, const Json&) {
  std::string text;
  for (size_t at = 0; at < 16; ++at) {
    if (at == 4 || at == 6 || at == 8 || at == 10) text += '-';
    text += fmt::format("{:02x}", context.machine.config().uuid[at]);
  }
  return Json{{"UUID", text}};
}

QmpReply query_kvm(Context& context, const Json&) {
  return Json{{"enabled", context.machine.accelerator().name() == "kvm"}, {"present", true}};  // this program knows KVM
}

QmpReply query_target(Context&, const Json&) { return Json{{"arch", "x86_64"}}; }

QmpReply query_chardev(Context& context, const Json&) {
  Json list = Json::array();
  for (const Chardev* chardev : context.chardevs.all())
    list.push_back(
        {{"frontend-open", chardev->frontend_open()}, {"filename", chardev->filename()}, {"label", chardev->id()}});
  return list;
}

// --- what clients of machines that migrate set up before anything else

QmpReply getfd(Context& context, const Json& arguments) {
  const std::string name = arguments.at("fdname");
  if (name.empty() || (name[0] >= '0' && name[0] <= '9'))
    return qmp_fail("Parameter 'fdname' expects a name not starting with a digit");
  if (context.fds == nullptr || !context.fds->name(name)) return qmp_fail("No file descriptor supplied via SCM_RIGHTS");
  return empty();
}

QmpReply closefd(Context& context, const Json& arguments) {
  const std::string name = arguments.at("fdname");
  if (context.fds == nullptr || !context.fds->take(name).valid())
    return qmp_fail("File descriptor named '{}' not found", name);
  return empty();
}

QmpReply no_iothreads(Context&, const Json&) { return Json::array(); }

QmpReply human_monitor_command(Context& context, const Json& arguments) {
  // Lines end as on a terminal.
  std::string text;
  for (const char letter : run_human_command(context, arguments.at("command-line").get<std::string>()))
    text += letter == '\n' ? std::string("\r\n") : std::string(1, letter);
  return Json(text);
}

QmpReply stats(Context&, const Json& arguments) { return query_stats(metrics::Registry::process(), arguments); }
QmpReply stats_schemas(Context&, const Json& arguments) {
  return query_stats_schemas(metrics::Registry::process(), arguments);
}

QmpReply calc_rate(Context& context, const Json& arguments) {
  return calc_dirty_rate(context.machine.dirty_rate(), arguments);
}
QmpReply query_rate(Context& context, const Json&) { return query_dirty_rate(context.machine.dirty_rate()); }

QmpReply query_commands(Context&, const Json&);
QmpReply capabilities(Context&, const Json&) {
  return std::unexpected(QmpError{"CommandNotFound", "Capabilities negotiation is already complete, command ignored"});
}

using Type = Json::value_t;
std::vector<std::string> session_capabilities(const Context&) { return {"oob"}; }
constexpr ArgumentSpec kCapabilities[] = {{"enable", Type::array, false, session_capabilities}};
constexpr ArgumentSpec kFdName[] = {{"fdname", Type::string, true}};
constexpr ArgumentSpec kHuman[] = {{"command-line", Type::string, true}, {"cpu-index", Type::number_integer, false}};

constexpr ArgumentSpec kDeviceAdd[] = {
    {"driver", Type::string, true}, {"id", Type::string, false}, {"bus", Type::string, false}};
// -device takes JSON, and what it makes that way can be removed as what device_add makes.
constexpr std::string_view kDeviceAddFeatures[] = {"json-cli", "json-cli-hotplug"};
constexpr ArgumentSpec kDeviceDel[] = {{"id", Type::string, true}};
constexpr ArgumentSpec kStats[] = {
    {"target", Type::string, true}, {"vcpus", Type::array, false}, {"providers", Type::array, false}};
std::vector<std::string> dirty_rate_modes(const Context&) { return {"page-sampling", "dirty-bitmap"}; }
constexpr ArgumentSpec kCalcDirtyRate[] = {{"calc-time", Type::number_integer, true},
                                           {"sample-pages", Type::number_integer, false},
                                           {"mode", Type::string, false, dirty_rate_modes}};
constexpr ArgumentSpec kStatsSchemas[] = {{"provider", Type::string, false}};

constexpr QmpCommand kQmpCommands[] = {
    {"qmp_capabilities", kCapabilities, capabilities},
    {"query-version", {}, query_version},
    {"query-status", {}, query_status},
    {"query-commands", {}, query_commands},
    {"query-qmp-schema", {}, query_qmp_schema},
    {"query-name", {}, query_name},
    {"query-uuid", {}, query_uuid},
    {"query-kvm", {}, query_kvm},
    {"query-target", {}, query_target},
    {"query-chardev", {}, query_chardev},
    {"query-stats", kStats, stats},
    {"query-stats-schemas", kStatsSchemas, stats_schemas},
    {"calc-dirty-rate", kCalcDirtyRate, calc_rate},
    {"query-dirty-rate", {}, query_rate},
    {"human-monitor-command", kHuman, human_monitor_command},
    {"query-iothreads", {}, no_iothreads},
    {"getfd", kFdName, getfd},
    {"closefd", kFdName, closefd},
    {"query-pci", {}, query_pci},
    {"device_add", kDeviceAdd, device_add, true, kDeviceAddFeatures},
    {"device_del", kDeviceDel, device_del},
    {"inject-nmi", {}, inject_nmi},
    {"stop", {}, stop},
    {"cont", {}, cont},
    {"system_reset", {}, system_reset},
    {"system_powerdown", {}, system_powerdown},
    {"system_wakeup", {}, system_wakeup},
    {"query-current-machine", {}, query_current_machine},
    {"quit", {}, quit},
};

QmpReply query_commands(Context&, const Json&) {
  Json list = Json::array();
  for (const QmpCommand& command : qmp_commands()) list.push_back({{"name", command.name}});
  return list;
}

std::string_view type_text(Type type) {
  switch (type) {
    case Type::string: return "string";
    case Type::boolean: return "boolean";
    case Type::array: return "array";
    case Type::object: return "object";
    default: return "integer";
  }
}

bool type_matches(const Json& value, Type type) {
  if (type == Type::null) return true;
  return type == Type::number_integer ? value.is_number_integer() : value.type() == type;
}

std::expected<void, QmpError> check_members(const ArgumentSpec& spec, const Json& value) {
  if (spec.members == nullptr) return {};
  if (spec.type == Json::value_t::object) return check_arguments(spec.members(), value, false);
  for (const Json& each : value) {
    if (!each.is_object()) return qmp_fail("Invalid parameter type for '{}', expected: object", spec.name);
    if (auto checked = check_arguments(spec.members(), each, false); !checked) return checked;
  }
  return {};
}

}  // namespace

std::expected<void, QmpError> check_arguments(std::span<const ArgumentSpec> specs, const Json& arguments, bool open) {
  for (const ArgumentSpec& spec : specs) {
    const auto found = arguments.find(spec.name);
    if (found == arguments.end()) {
      if (spec.required) return qmp_fail("Parameter '{}' is missing", spec.name);
      continue;
    }
    if (!type_matches(*found, spec.type))
      return qmp_fail("Invalid parameter type for '{}', expected: {}", spec.name, type_text(spec.type));
    if (auto checked = check_members(spec, *found); !checked) return checked;
  }
  for (const auto& [name, value] : arguments.items()) {
    const bool known =
        open || std::any_of(specs.begin(), specs.end(), [&](const ArgumentSpec& spec) { return spec.name == name; });
    if (!known) return qmp_fail("Parameter '{}' is unexpected", name);
  }
  return {};
}

std::span<const QmpCommand> qmp_commands() {
  static const std::vector<QmpCommand> kAll = [] {
    std::vector<QmpCommand> all(std::begin(kQmpCommands), std::end(kQmpCommands));
    all.insert(all.end(), type_commands().begin(), type_commands().end());
    all.insert(all.end(), qom_commands().begin(), qom_commands().end());
    all.insert(all.end(), balloon_commands().begin(), balloon_commands().end());
    all.insert(all.end(), memory_commands().begin(), memory_commands().end());
    all.insert(all.end(), inspect_commands().begin(), inspect_commands().end());
    all.insert(all.end(), block_commands().begin(), block_commands().end());
    all.insert(all.end(), job_commands().begin(), job_commands().end());
    all.insert(all.end(), start_job_commands().begin(), start_job_commands().end());
    all.insert(all.end(), backup_commands().begin(), backup_commands().end());
    all.insert(all.end(), bitmap_commands().begin(), bitmap_commands().end());
    all.insert(all.end(), export_commands().begin(), export_commands().end());
    all.insert(all.end(), snapshot_commands().begin(), snapshot_commands().end());
    all.insert(all.end(), display_commands().begin(), display_commands().end());
    all.insert(all.end(), display_server_commands().begin(), display_server_commands().end());
    all.insert(all.end(), input_commands().begin(), input_commands().end());
    all.insert(all.end(), migration_commands().begin(), migration_commands().end());
    all.insert(all.end(), net_commands().begin(), net_commands().end());
    return all;
  }();
  return kAll;
}

QmpReply run_qmp_command(MonitorContext& context, std::string_view name, const Json& arguments) {
  const std::span<const QmpCommand> all = qmp_commands();
  const auto command = std::ranges::find(all, name, &QmpCommand::name);
  if (command == all.end())
    return std::unexpected(QmpError{"CommandNotFound", fmt::format("The command {} has not been found", name)});
  if (auto checked = check_arguments(command->arguments, arguments, command->open); !checked)
    return std::unexpected(checked.error());
  return command->run(context, arguments);
}

}  // namespace kite::monitor

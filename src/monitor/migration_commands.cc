#include "monitor/migration_commands.h"

#include <algorithm>
#include <charconv>
#include <ctime>
#include <set>

#include "machine/vm_snapshots.h"
#include "monitor/migration_control.h"
#include "monitor/words.h"
#include "support/suggest.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;
using Type = Json::value_t;
using machine::MigrationParameters;
using machine::MigrationReport;
using machine::MigrationStatus;

constexpr uint64_t kPageBytes = 4096;
constexpr int64_t kMostDowntimeMs = 2'000'000;

QmpReply done(const Result<>& result) {
  if (!result) return qmp_fail("{}", result.error().message);
  return Json::object();
}

// "fd:NAME" is what the client has passed by getfd.
Fd passed(Context& context, std::string_view uri) {
  constexpr std::string_view kPrefix = "fd:";
  if (context.fds == nullptr || !uri.starts_with(kPrefix)) return {};
  return context.fds->take(uri.substr(kPrefix.size()));
}
constexpr std::string_view kStays = "this machine does not move";

Result<> send(Context& context, std::string_view uri) {
  if (context.migration == nullptr) return fail("{}", kStays);
  return context.migration->send(uri, passed(context, uri));
}
Result<> receive(Context& context, std::string_view uri) {
  if (context.migration == nullptr) return fail("{}", kStays);
  return context.migration->receive(uri, passed(context, uri));
}

// A command of a machine that can move.
template <QmpReply (*Run)(Context& context, const Json& arguments)>
QmpReply moving(Context& context, const Json& arguments) {
  if (context.migration == nullptr) return qmp_fail("{}", kStays);
  return Run(context, arguments);
}

// --- QMP

QmpReply migrate(Context& context, const Json& arguments) {
  for (const char* other : {"blk", "inc", "resume"})
    if (arguments.value(other, false)) return qmp_fail("Parameter '{}': this version of Kite does not do that", other);
  return done(send(context, arguments.at("uri").get<std::string>()));
}

QmpReply migrate_cancel(Context& context, const Json&) {
  context.migration->outgoing().cancel();
  return Json::object();
}

QmpReply migrate_continue(Context& context, const Json& arguments) {
  const std::string state = arguments.at("state");
  if (state != machine::migration_status_name(MigrationStatus::kPreSwitchover))
    return qmp_fail("Parameter 'state' does not accept value '{}': a machine waits in 'pre-switchover' only", state);
  return done(context.migration->outgoing().go_on());
}

QmpReply migrate_incoming(Context& context, const Json& arguments) {
  return done(receive(context, arguments.at("uri").get<std::string>()));
}

Json ram_json(const MigrationReport& report) {
  const uint64_t remaining = report.remaining_pages * kPageBytes;
  const double bits = static_cast<double>(report.bytes_per_second) * 8;
  return {{"total", report.total_bytes},
          {"transferred", report.transferred},
          {"remaining", remaining},
          {"duplicate", report.zero_pages},
          {"skipped", 0},
          {"normal", report.normal_pages},
          {"normal-bytes", report.normal_pages * kPageBytes},
          {"dirty-pages-rate", 0},
          {"mbps", bits / 1e6},
          {"dirty-sync-count", report.passes},
          {"postcopy-requests", 0},
          {"page-size", kPageBytes},
          {"multifd-bytes", 0},
          {"pages-per-second", report.bytes_per_second / kPageBytes}};
}

QmpReply query_migrate(Context& context, const Json&) {
  const MigrationReport report = context.migration->outgoing().report();
  if (report.status == MigrationStatus::kNone && context.migration->incoming().started()) {
    const MigrationStatus status = context.migration->incoming().status();
    return Json{{"status", machine::migration_status_name(status)}};
  }
  if (report.status == MigrationStatus::kNone) return Json::object();
  Json answer{{"status", machine::migration_status_name(report.status)}};
  if (!report.error.empty()) answer["error-desc"] = report.error;
  if (report.status == MigrationStatus::kFailed || report.status == MigrationStatus::kCancelled) return answer;
  answer["setup-time"] = report.setup_ms;
  answer["total-time"] = report.total_ms;
  answer["ram"] = ram_json(report);
  if (report.status == MigrationStatus::kCompleted)
    answer["downtime"] = report.downtime_ms;
  else
    answer["expected-downtime"] = context.migration->outgoing().parameters().downtime_limit_ms;
  return answer;
}

QmpReply query_capabilities(Context& context, const Json&) {
  return Json::array({{{"state", context.migration->announces()}, {"capability", "events"}},
                      {{"state", context.migration->outgoing().parameters().bitmaps}, {"capability", "dirty-bitmaps"}},
                      {{"state", context.migration->outgoing().parameters().pause_before_switchover},
                       {"capability", "pause-before-switchover"}}});
}

QmpReply set_capabilities(Context& context, const Json& arguments) {
  constexpr std::string_view kKnown[] = {"events", "dirty-bitmaps", "pause-before-switchover"};
  MigrationParameters parameters = context.migration->outgoing().parameters();
  std::optional<bool> events;
  for (const Json& entry : arguments.at("capabilities")) {
    if (!entry.is_object() || !entry.value("capability", Json()).is_string() ||
        !entry.value("state", Json()).is_boolean())
      return qmp_fail("Invalid parameter type for 'capabilities', expected: list of capability and state");
    const std::string name = entry.at("capability");
    if (name == kKnown[0])
      events = entry.at("state").get<bool>();
    else if (name == kKnown[1])
      parameters.bitmaps = entry.at("state").get<bool>();
    else if (name == kKnown[2])
      parameters.pause_before_switchover = entry.at("state").get<bool>();
    else
      return qmp_fail("Parameter 'capability' does not accept value '{}'{}", name, suggestion(name, kKnown));
  }
  if (events) context.migration->set_announces(*events);
  context.migration->outgoing().set_parameters(parameters);
  return Json::object();
}

QmpReply query_parameters(Context& context, const Json&) {
  const MigrationParameters parameters = context.migration->outgoing().parameters();
  Json answer{{"max-bandwidth", parameters.max_bandwidth}, {"downtime-limit", parameters.downtime_limit_ms}};
  if (const Json& mapping = context.migration->bitmap_mapping(); !mapping.is_null())
    answer["block-bitmap-mapping"] = mapping;
  return answer;
}

// Each name and each alias stands for one thing.
std::expected<void, QmpError> check_mapping(const Json& mapping) {
  constexpr size_t kLongestAlias = 255;
  const auto check = [&](const Json& list, const char* name) -> std::expected<void, QmpError> {
    for (const char* const member : {name, "alias"}) {
      std::set<std::string> seen;
      for (const Json& each : list) {
        const std::string text = each.at(member);
        if (text.empty() || text.size() > kLongestAlias)
          return qmp_fail("block-bitmap-mapping: the {} '{}' is empty or longer than {} bytes", member, text,
                          kLongestAlias);
        if (!seen.insert(text).second) return qmp_fail("block-bitmap-mapping: the {} '{}' is used twice", member, text);
      }
    }
    return {};
  };
  if (auto checked = check(mapping, "node-name"); !checked) return checked;
  for (const Json& node : mapping)
    if (auto checked = check(node.at("bitmaps"), "name"); !checked) return checked;
  return {};
}

QmpReply set_parameters(Context& context, const Json& arguments) {
  MigrationParameters parameters = context.migration->outgoing().parameters();
  if (const auto found = arguments.find("max-bandwidth"); found != arguments.end()) {
    if (!found->is_number_unsigned() && *found < 0)
      return qmp_fail("Parameter 'max-bandwidth' expects bytes a second, 0 for no limit");
    parameters.max_bandwidth = found->get<uint64_t>();
  }
  if (const auto found = arguments.find("downtime-limit"); found != arguments.end()) {
    if (*found < 0 || *found > kMostDowntimeMs)
      return qmp_fail("Parameter 'downtime-limit' expects 0 to {} milliseconds", kMostDowntimeMs);
    parameters.downtime_limit_ms = found->get<int64_t>();
  }
  const auto mapping = arguments.find("block-bitmap-mapping");
  if (mapping != arguments.end())
    if (auto checked = check_mapping(*mapping); !checked) return std::unexpected(checked.error());
  context.migration->outgoing().set_parameters(parameters);
  if (mapping != arguments.end()) context.migration->set_bitmap_mapping(*mapping);
  return Json::object();
}

constexpr ArgumentSpec kTransform[] = {{"persistent", Type::boolean, false}};
std::span<const ArgumentSpec> transform_members() { return kTransform; }
constexpr ArgumentSpec kBitmapAlias[] = {{"name", Type::string, true},
                                         {"alias", Type::string, true},
                                         {"transform", Type::object, false, nullptr, transform_members}};
std::span<const ArgumentSpec> bitmap_members() { return kBitmapAlias; }
constexpr ArgumentSpec kNodeAlias[] = {{"node-name", Type::string, true},
                                       {"alias", Type::string, true},
                                       {"bitmaps", Type::array, true, nullptr, bitmap_members}};
std::span<const ArgumentSpec> node_members() { return kNodeAlias; }

constexpr ArgumentSpec kMigrate[] = {{"uri", Type::string, true},
                                     {"detach", Type::boolean, false},
                                     {"blk", Type::boolean, false},
                                     {"inc", Type::boolean, false},
                                     {"resume", Type::boolean, false}};
std::vector<std::string> waiting_states(const Context&) { return {"pre-switchover"}; }
constexpr ArgumentSpec kContinue[] = {{"state", Type::string, true, waiting_states}};
constexpr ArgumentSpec kUri[] = {{"uri", Type::string, true}};
constexpr ArgumentSpec kCapabilities[] = {{"capabilities", Type::array, true}};
constexpr ArgumentSpec kParameters[] = {{"max-bandwidth", Type::number_integer, false},
                                        {"downtime-limit", Type::number_integer, false},
                                        {"block-bitmap-mapping", Type::array, false, nullptr, node_members}};

constexpr QmpCommand kMigrationCommands[] = {
    {"migrate", kMigrate, moving<migrate>},
    {"migrate_cancel", {}, moving<migrate_cancel>},
    {"migrate-continue", kContinue, moving<migrate_continue>},
    {"migrate-incoming", kUri, moving<migrate_incoming>},
    {"query-migrate", {}, moving<query_migrate>},
    {"query-migrate-capabilities", {}, moving<query_capabilities>},
    {"migrate-set-capabilities", kCapabilities, moving<set_capabilities>},
    {"query-migrate-parameters", {}, moving<query_parameters>},
    {"migrate-set-parameters", kParameters, moving<set_parameters>},
};

// --- for people

std::string told(const Result<>& result) {
  return result ? std::string{} : fmt::format("Error: {}\n", result.error().message);
}
std::string told(const QmpReply& reply) {
  return reply ? std::string{} : fmt::format("Error: {}\n", reply.error().description);
}

std::string size_text(uint64_t bytes) {
  constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1000 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return fmt::format("{:.3g} {}", value, kUnits[unit]);
}

std::string date_text(uint32_t seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  ::localtime_r(&time, &parts);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                     parts.tm_hour, parts.tm_min, parts.tm_sec);
}

std::string clock_text(uint64_t ns) {
  const uint64_t ms = ns / 1'000'000, seconds = ms / 1000;
  return fmt::format("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60, ms % 1000);
}

}  // namespace

std::span<const QmpCommand> migration_commands() { return kMigrationCommands; }

std::string human_migrate(MonitorContext& context, std::string_view rest) {
  std::string_view word = next_word(rest);
  if (word == "-d") word = next_word(rest);  // this monitor waits for no machine to arrive
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
  // A command has words of its own.
  const std::string uri = rest.empty() ? std::string(word) : fmt::format("{} {}", word, rest);
  if (uri.empty() || uri.starts_with('-'))
    return "usage: migrate [-d] tcp:HOST:PORT|unix:PATH|exec:COMMAND|file:PATH\n";
  return told(send(context, uri));
}

std::string human_migrate_cancel(MonitorContext& context, std::string_view) {
  if (context.migration == nullptr) return fmt::format("{}\n", kStays);
  context.migration->outgoing().cancel();
  return {};
}

std::string human_migrate_continue(MonitorContext& context, std::string_view rest) {
  const std::string_view state = next_word(rest);
  if (state.empty()) return "usage: migrate_continue pre-switchover\n";
  return told(moving<migrate_continue>(context, Json{{"state", state}}));
}

std::string human_migrate_incoming(MonitorContext& context, std::string_view rest) {
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
  return told(receive(context, rest));
}

std::string human_migrate_set_parameter(MonitorContext& context, std::string_view rest) {
  constexpr std::string_view kNames[] = {"max-bandwidth", "downtime-limit"};
  const std::string_view name = next_word(rest), value = next_word(rest);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || end != value.data() + value.size())
    return "usage: migrate_set_parameter max-bandwidth BYTES-A-SECOND|downtime-limit MILLISECONDS\n";
  if (std::ranges::find(kNames, name) == std::end(kNames))
    return fmt::format("Error: there is no parameter '{}'{}\n", name, suggestion(name, kNames));
  return told(moving<set_parameters>(context, Json{{std::string(name), number}}));
}

std::string human_migrate_set_capability(MonitorContext& context, std::string_view rest) {
  const std::string_view name = next_word(rest), value = next_word(rest);
  if (name.empty() || (value != "on" && value != "off")) return "usage: migrate_set_capability NAME on|off\n";
  const Json capability{{"capability", name}, {"state", value == "on"}};
  return told(moving<set_capabilities>(context, Json{{"capabilities", Json::array({capability})}}));
}

std::string human_savevm(MonitorContext& context, std::string_view rest) {
  const std::string name = next_name(rest);
  return told(machine::save_vm(context.machine, name.empty() ? machine::unnamed_snapshot() : name));
}

std::string human_loadvm(MonitorContext& context, std::string_view rest) {
  const std::string name = next_name(rest);
  return name.empty() ? "usage: loadvm NAME\n" : told(machine::load_vm(context.machine, name));
}

std::string human_delvm(MonitorContext& context, std::string_view rest) {
  const std::string name = next_name(rest);
  return name.empty() ? "usage: delvm NAME\n" : told(machine::delete_vm(context.machine, name));
}

std::string info_migrate(MonitorContext& context, std::string_view) {
  if (context.migration == nullptr) return fmt::format("{}\n", kStays);
  const MigrationReport report = context.migration->outgoing().report();
  if (report.status == MigrationStatus::kNone && context.migration->incoming().started())
    return fmt::format("Migration status: {}\n",
                       machine::migration_status_name(context.migration->incoming().status()));
  if (report.status == MigrationStatus::kNone) return "No migration has been started\n";
  std::string text = fmt::format("Migration status: {}", machine::migration_status_name(report.status));
  text += report.error.empty() ? "\n" : fmt::format(" ({})\n", report.error);
  text += fmt::format("total time: {} ms\n", report.total_ms);
  if (report.status == MigrationStatus::kCompleted) text += fmt::format("downtime: {} ms\n", report.downtime_ms);
  text += fmt::format("transferred ram: {} kbytes\nremaining ram: {} kbytes\ntotal ram: {} kbytes\n",
                      report.transferred >> 10, report.remaining_pages * kPageBytes >> 10, report.total_bytes >> 10);
  text += fmt::format("duplicate: {} pages\nnormal: {} pages\ndirty sync count: {}\n", report.zero_pages,
                      report.normal_pages, report.passes);
  return text;
}

std::string info_migrate_parameters(MonitorContext& context, std::string_view) {
  if (context.migration == nullptr) return fmt::format("{}\n", kStays);
  const MigrationParameters parameters = context.migration->outgoing().parameters();
  return fmt::format("max-bandwidth: {} bytes/second\ndowntime-limit: {} ms\n", parameters.max_bandwidth,
                     parameters.downtime_limit_ms);
}

std::string info_migrate_capabilities(MonitorContext& context, std::string_view) {
  const QmpReply reply = moving<query_capabilities>(context, Json::object());
  if (!reply) return told(reply);
  std::string text;
  for (const Json& each : *reply)
    text += fmt::format("{}: {}\n", each.at("capability").get<std::string>(), each.at("state") ? "on" : "off");
  return text;
}

std::string info_snapshots(MonitorContext& context, std::string_view) {
  const auto list = machine::vm_snapshots(context.machine);
  if (!list) return fmt::format("Error: {}\n", list.error().message);
  if (list->empty()) return "There is no snapshot available.\n";
  std::string text = "List of snapshots present on all disks:\n";
  text += fmt::format("{:<9} {:<17} {:>9} {:<19} {}\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK");
  for (const machine::VmSnapshot& entry : *list)
    text += fmt::format("{:<9} {:<17} {:>9} {:<19} {}\n", entry.id, entry.name, size_text(entry.state_bytes),
                        date_text(entry.date_seconds), clock_text(entry.clock_ns));
  return text;
}

}  // namespace kite::monitor

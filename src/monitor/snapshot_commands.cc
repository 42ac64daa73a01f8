// External snapshots: single ones, and several at one moment (transaction).
#include <optional>

#include "machine/block_snapshots.h"
#include "monitor/job_commands.h"
#include "monitor/words.h"
#include "support/suggest.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;
using Type = Json::value_t;
using machine::SnapshotAction;
using Action = std::expected<SnapshotAction, QmpError>;

std::vector<std::string> image_modes(const Context&) { return {"existing", "absolute-paths"}; }

constexpr ArgumentSpec kOverlay[] = {{"node", Type::string, true}, {"overlay", Type::string, true}};
constexpr ArgumentSpec kNewOverlay[] = {
    {"device", Type::string, false},       {"node-name", Type::string, false},
    {"snapshot-file", Type::string, true}, {"snapshot-node-name", Type::string, false},
    {"format", Type::string, false},       {"mode", Type::string, false, image_modes}};
constexpr ArgumentSpec kInternal[] = {{"device", Type::string, true}, {"name", Type::string, true}};

Action overlay_action(const Json& data) {
  return SnapshotAction{.kind = SnapshotAction::Kind::kOverlay, .name = data.at("node"), .overlay = data.at("overlay")};
}

Action new_overlay_action(const Json& data) {
  const bool by_node = data.contains("node-name");
  if (by_node == data.contains("device")) return qmp_fail("Need exactly one of 'device' and 'node-name'");
  const std::string mode = data.value("mode", std::string("absolute-paths"));
  if (mode != "existing" && mode != "absolute-paths")
    return qmp_fail("Parameter 'mode' does not accept value '{}'", mode);
  return SnapshotAction{.kind = SnapshotAction::Kind::kNewOverlay,
                        .name = data.at(by_node ? "node-name" : "device"),
                        .overlay = data.value("snapshot-node-name", std::string()),
                        .filename = data.at("snapshot-file"),
                        .format = data.value("format", std::string("qcow2")),
                        .existing = mode == "existing"};
}

Action internal_action(const Json& data) {
  const std::string name = data.at("name");
  if (name.empty()) return qmp_fail("Name is empty");
  return SnapshotAction{.kind = SnapshotAction::Kind::kInternal, .name = data.at("device"), .overlay = name};
}

Action abort_action(const Json&) {
  return SnapshotAction{.kind = SnapshotAction::Kind::kAbort, .name = "", .overlay = ""};
}

// What a transaction can do; the data are the arguments of the command of the same name.
struct ActionSpec {
  std::string_view name;
  std::span<const ArgumentSpec> arguments;
  Action (*make)(const Json& data);
};
constexpr ActionSpec kActions[] = {{"blockdev-snapshot", kOverlay, overlay_action},
                                   {"blockdev-snapshot-sync", kNewOverlay, new_overlay_action},
                                   {"blockdev-snapshot-internal-sync", kInternal, internal_action},
                                   {"abort", {}, abort_action}};

QmpReply take(Context& context, const std::vector<SnapshotAction>& actions) {
  if (context.machine.drives() == nullptr) return qmp_fail("this machine has no disks");
  if (context.machine.held()) return qmp_fail("the machine is just being moved or saved");
  if (const auto taken = machine::take_snapshots(*context.machine.drives(), actions); !taken)
    return qmp_fail("{}", taken.error().message);
  return Json::object();
}

template <Action (*Make)(const Json& data)>
QmpReply single(Context& context, const Json& arguments) {
  const Action action = Make(arguments);
  if (!action) return std::unexpected(action.error());
  return take(context, {*action});
}

Action parse_action(const Json& action) {
  if (!action.is_object() || !action.contains("type") || !action.at("type").is_string())
    return qmp_fail("Parameter 'actions' expects objects with 'type' and 'data'");
  const std::string type = action.at("type");
  const auto* const spec = std::ranges::find(kActions, type, &ActionSpec::name);
  if (spec == std::end(kActions)) {
    std::vector<std::string_view> names;
    for (const ActionSpec& known : kActions) names.push_back(known.name);
    return qmp_fail("Parameter 'type' does not accept value '{}'{}", type, suggestion(type, names));
  }
  const Json data = action.value("data", Json::object());
  if (!data.is_object()) return qmp_fail("Invalid parameter type for 'data', expected: object");
  if (auto checked = check_arguments(spec->arguments, data, false); !checked) return std::unexpected(checked.error());
  return spec->make(data);
}

QmpReply transaction(Context& context, const Json& arguments) {
  // [QAPI] transaction.json: "grouped" is for jobs that begin in a transaction; none does here.
  if (const Json properties = arguments.value("properties", Json::object()); !properties.empty()) {
    const std::string mode = properties.value("completion-mode", std::string("individual"));
    if (properties.size() != 1 || mode != "individual")
      return qmp_fail("Parameter 'properties': only completion-mode=individual is supported");
  }
  std::vector<SnapshotAction> actions;
  for (const Json& each : arguments.at("actions")) {
    const Action action = parse_action(each);
    if (!action) return std::unexpected(action.error());
    actions.push_back(*action);
  }
  return actions.empty() ? Json::object() : take(context, actions);
}

constexpr ArgumentSpec kTransaction[] = {{"actions", Type::array, true}, {"properties", Type::object, false}};

// The overlay may be opened without a backing file that could be read ([QAPI] blockdev-snapshot).
constexpr std::string_view kOverlayFeatures[] = {"allow-write-only-overlay"};

constexpr QmpCommand kCommands[] = {
    {"blockdev-snapshot", kOverlay, single<overlay_action>, false, kOverlayFeatures},
    {"blockdev-snapshot-sync", kNewOverlay, single<new_overlay_action>},
    {"blockdev-snapshot-internal-sync", kInternal, single<internal_action>},
    {"transaction", kTransaction, transaction},
};

}  // namespace

std::span<const QmpCommand> snapshot_commands() { return kCommands; }

std::string human_snapshot_blkdev(Context& context, std::string_view rest) {
  Json arguments = Json::object();
  std::string_view word = next_word(rest);
  bool existing = false;
  for (; word == "-n"; word = next_word(rest)) existing = true;
  arguments["device"] = std::string(word);
  arguments["snapshot-file"] = std::string(next_word(rest));
  if (const std::string_view format = next_word(rest); !format.empty()) arguments["format"] = std::string(format);
  if (arguments.at("snapshot-file") == "") return "usage: snapshot_blkdev [-n] DEVICE FILE [FORMAT]\n";
  arguments["mode"] = existing ? "existing" : "absolute-paths";
  const QmpReply reply = run_qmp_command(context, "blockdev-snapshot-sync", arguments);
  return reply ? std::string{} : fmt::format("Error: {}\n", reply.error().description);
}

}  // namespace kite::monitor

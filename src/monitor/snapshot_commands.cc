// External snapshots: single ones, and several things at one moment (transaction); nodes that are opened anew.

#include "block/reopen.h"
#include "machine/block_snapshots.h"
#include "monitor/block_actions.h"
#include "monitor/job_arguments.h"
#include "monitor/job_commands.h"
#include "monitor/words.h"
#include "support/suggest.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;
using Type = Json::value_t;
using machine::SnapshotRequest;
using Actions = std::vector<std::unique_ptr<machine::BlockAction>>;

constexpr ArgumentSpec kOverlay[] = {{"node", Type::string, true}, {"overlay", Type::string, true}};
constexpr ArgumentSpec kNewOverlay[] = {
    {"device", Type::string, false},       {"node-name", Type::string, false},
    {"snapshot-file", Type::string, true}, {"snapshot-node-name", Type::string, false},
    {"format", Type::string, false},       {"mode", Type::string, false, image_modes}};
constexpr ArgumentSpec kInternal[] = {{"device", Type::string, true}, {"name", Type::string, true}};

ActionReply snapshot(Context& context, SnapshotRequest request) {
  return machine::snapshot_action(*context.machine.drives(), std::move(request));
}

ActionReply overlay_action(Context& context, const Json& data) {
  return snapshot(
      context,
      SnapshotRequest{.kind = SnapshotRequest::Kind::kOverlay, .name = data.at("node"), .overlay = data.at("overlay")});
}

ActionReply new_overlay_action(Context& context, const Json& data) {
  const bool by_node = data.contains("node-name");
  if (by_node == data.contains("device")) return qmp_fail("Need exactly one of 'device' and 'node-name'");
  const std::string mode = data.value("mode", std::string("absolute-paths"));
  if (mode != "existing" && mode != "absolute-paths")
    return qmp_fail("Parameter 'mode' does not accept value '{}'", mode);
  return snapshot(context, SnapshotRequest{.kind = SnapshotRequest::Kind::kNewOverlay,
                                           .name = data.at(by_node ? "node-name" : "device"),
                                           .overlay = data.value("snapshot-node-name", std::string()),
                                           .filename = data.at("snapshot-file"),
                                           .format = data.value("format", std::string("qcow2")),
                                           .existing = mode == "existing"});
}

ActionReply internal_action(Context& context, const Json& data) {
  const std::string name = data.at("name");
  if (name.empty()) return qmp_fail("Name is empty");
  return snapshot(
      context, SnapshotRequest{.kind = SnapshotRequest::Kind::kInternal, .name = data.at("device"), .overlay = name});
}

ActionReply abort_action(Context& context, const Json&) {
  return snapshot(context, SnapshotRequest{.kind = SnapshotRequest::Kind::kAbort, .name = "", .overlay = ""});
}

// Besides the actions of other files.
constexpr ActionSpec kSnapshotActions[] = {{"blockdev-snapshot", kOverlay, overlay_action},
                                           {"blockdev-snapshot-sync", kNewOverlay, new_overlay_action},
                                           {"blockdev-snapshot-internal-sync", kInternal, internal_action},
                                           {"abort", {}, abort_action}};

const ActionSpec* find_action(std::string_view type, std::vector<std::string_view>& names) {
  for (const std::span<const ActionSpec> table :
       {std::span<const ActionSpec>(kSnapshotActions), backup_actions(), bitmap_actions()}) {
    for (const ActionSpec& known : table) {
      if (known.name == type) return &known;
      names.push_back(known.name);
    }
  }
  return nullptr;
}

ActionReply parse_action(Context& context, const Json& action) {
  if (!action.is_object() || !action.contains("type") || !action.at("type").is_string())
    return qmp_fail("Parameter 'actions' expects objects with 'type' and 'data'");
  const std::string type = action.at("type");
  std::vector<std::string_view> names;
  const ActionSpec* const spec = find_action(type, names);
  if (spec == nullptr) return qmp_fail("Parameter 'type' does not accept value '{}'{}", type, suggestion(type, names));
  const Json data = action.value("data", Json::object());
  if (!data.is_object()) return qmp_fail("Invalid parameter type for 'data', expected: object");
  if (auto checked = check_arguments(spec->arguments, data, false); !checked) return std::unexpected(checked.error());
  return spec->make(context, data);
}

QmpReply transaction(Context& context, const Json& arguments) {
  // [QAPI] transaction.json, ActionCompletionMode: with "grouped" jobs would fail and end together.
  if (const Json properties = arguments.value("properties", Json::object()); !properties.empty()) {
    const std::string mode = properties.value("completion-mode", std::string("individual"));
    if (properties.size() != 1 || mode != "individual")
      return qmp_fail("Parameter 'properties': only completion-mode=individual is supported");
  }
  if (arguments.at("actions").empty()) return Json::object();
  if (auto may = may_change_disks(context); !may) return std::unexpected(may.error());
  Actions actions;
  for (const Json& each : arguments.at("actions")) {
    ActionReply action = parse_action(context, each);
    if (!action) return std::unexpected(action.error());
    actions.push_back(std::move(*action));
  }
  return run_actions(context, std::move(actions));
}

constexpr ArgumentSpec kTransaction[] = {{"actions", Type::array, true}, {"properties", Type::object, false}};

// The overlay may be opened without a backing file that could be read ([QAPI] blockdev-snapshot).
constexpr std::string_view kOverlayFeatures[] = {"allow-write-only-overlay"};

// Other options for nodes that are there; a transaction of one.
class Reopen final : public machine::BlockAction {
 public:
  explicit Reopen(std::vector<block::BlockOptions> nodes) : nodes_(std::move(nodes)) {}
  Task<Result<>> prepare(machine::BlockTogether& together) override {
    return block::reopen(together.graph, together.jobs, std::move(nodes_));
  }
  Task<void> finish(machine::BlockTogether&, bool) override { co_return; }

 private:
  std::vector<block::BlockOptions> nodes_;
};

ActionReply reopen(Context&, const Json& data) {
  std::vector<block::BlockOptions> nodes;
  for (const Json& each : data.at("options")) {
    if (!each.is_object()) return qmp_fail("Parameter 'options' expects objects");
    auto options = block::BlockOptions::parse(each.dump());
    if (!options) return qmp_fail("{}", options.error().message);
    nodes.push_back(std::move(*options));
  }
  return std::make_unique<Reopen>(std::move(nodes));
}

constexpr ArgumentSpec kReopen[] = {{"options", Type::array, true}};

constexpr QmpCommand kSnapshotCommands[] = {
    {"blockdev-snapshot", kOverlay, single_action<overlay_action>, false, kOverlayFeatures},
    {"blockdev-snapshot-sync", kNewOverlay, single_action<new_overlay_action>},
    {"blockdev-snapshot-internal-sync", kInternal, single_action<internal_action>},
    {"transaction", kTransaction, transaction},
    {"blockdev-reopen", kReopen, single_action<reopen>},
};

}  // namespace

std::expected<void, QmpError> may_change_disks(Context& context) {
  if (context.machine.drives() == nullptr) return qmp_fail("this machine has no disks");
  if (context.machine.held()) return qmp_fail("the machine is just being moved or saved");
  return {};
}

QmpReply run_actions(Context& context, Actions actions) {
  if (const auto done = machine::run_together(*context.machine.drives(), std::move(actions)); !done)
    return qmp_fail("{}", done.error().message);
  return Json::object();
}

std::span<const QmpCommand> snapshot_commands() { return kSnapshotCommands; }

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

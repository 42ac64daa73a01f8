#include "block/reopen.h"

#include <algorithm>
#include <array>
#include <optional>

#include "block/chain.h"
#include "block/image.h"
#include "support/log.h"

namespace kite::block {
namespace {

struct Change {
  NodePtr node;
  bool read_only = false, was_read_only = false;
  // Nothing: it keeps its backing file, or has none; null: it is to have none.
  std::optional<NodePtr> backing = {};
  NodePtr old_backing = nullptr;
};

Failure fixed(const BlockNode& node, std::string_view option) {
  return fail("Cannot change the option '{}' of the node '{}'", option, node.name());
}

NodePtr shared(BlockNode* node) { return node == nullptr ? nullptr : node->shared_from_this(); }

// A child that cannot become another one.
Result<> check_child(BlockOptions& options, const BlockNode& node, const std::string& role, const BlockNode& child) {
  if (!options.has_child(role) && !options.has(role)) return {};
  const BlockOptions given = options.take_child(role);
  const std::string* const reference = given.find("");
  if (reference == nullptr || given.all().size() != 1 || *reference != child.name()) return fixed(node, role);
  return {};
}

// What every node is told, but for whether it is read-only.
Result<> check_config(BlockOptions& options, const BlockNode& node, bool is_protocol) {
  using Zeroes = NodeConfig::DetectZeroes;
  const NodeConfig& config = node.config();
  struct {
    const char* name;
    bool now;
  } const switches[] = {{"auto-read-only", config.auto_read_only},
                        {"cache.direct", config.direct},
                        {"cache.no-flush", config.no_flush},
                        {"force-share", config.force_share}};
  for (const auto& [name, now] : switches) {
    KITE_ASSIGN(const bool wanted, options.take_bool(name, false));
    if (wanted != now) return fixed(node, name);
  }
  static constexpr std::array<std::string_view, 4> kDiscard{"ignore", "off", "unmap", "on"};
  KITE_ASSIGN(const size_t discard, options.take_choice("discard", kDiscard, is_protocol ? 2 : 0));
  if ((discard >= 2) != config.discard_unmap) return fixed(node, "discard");
  static constexpr std::array<std::string_view, 3> kDetect{"off", "on", "unmap"};
  KITE_ASSIGN(const size_t detect, options.take_choice("detect-zeroes", kDetect, 0));
  if (static_cast<Zeroes>(detect) != config.detect_zeroes) return fixed(node, "detect-zeroes");
  return {};
}

Result<> plan_backing(BlockGraph& graph, BlockOptions& options, Change& change) {
  BlockNode& node = *change.node;
  change.old_backing = shared(node.backing());
  if (!options.has_child("backing") && !options.has("backing")) {
    if (change.old_backing != nullptr) return fail("backing is missing for '{}'", node.name());
    return {};
  }
  const BlockOptions given = options.take_child("backing");
  const std::string* const reference = given.find("");
  if (reference == nullptr || given.all().size() != 1)
    return fail("the option 'backing' of the node '{}' can only become a node that is there, or null", node.name());
  NodePtr wanted;
  if (!reference->empty()) {
    wanted = graph.find(*reference);
    if (wanted == nullptr) return fail("Cannot find device='' nor node-name='{}'", *reference);
    const std::vector<BlockNode*> below = images_below(*wanted);
    if (std::ranges::find(below, &node) != below.end())
      return fail("Making '{}' a backing child of '{}' would create a cycle", wanted->name(), node.name());
  }
  if (wanted == change.old_backing) return {};
  if (dynamic_cast<FormatNode*>(&node) == nullptr) return fixed(node, "backing");
  change.backing = std::move(wanted);
  return {};
}

Result<Change> plan(BlockGraph& graph, const JobTable& jobs, BlockOptions options) {
  const std::string name = options.take_string("node-name");
  if (name.empty()) return fail("node-name not specified");
  Change change{.node = graph.find(name)};
  if (change.node == nullptr) return fail("Failed to find node with node-name='{}'", name);
  BlockNode& node = *change.node;
  KITE_TRY(jobs.may_change(node));
  if (options.take_string("driver") != node.driver()) return fixed(node, "driver");
  const Driver* const driver = find_driver(node.driver());
  const bool is_protocol = driver != nullptr && driver->is_protocol;
  KITE_TRY(check_config(options, node, is_protocol));
  if (is_protocol && options.take_string("filename", node.filename()) != node.filename())
    return fixed(node, "filename");
  for (const NodeEdge& edge : node.children())
    if (edge.role != "backing") KITE_TRY(check_child(options, node, edge.role, *edge.node));
  KITE_TRY(plan_backing(graph, options, change));
  change.was_read_only = node.read_only();
  KITE_ASSIGN(change.read_only, options.take_bool("read-only", false));
  // One that may be read-only by itself is what it has become.
  if (node.config().auto_read_only) change.read_only |= change.was_read_only;
  if (!options.all().empty()) return fixed(node, options.all().begin()->first);
  return change;
}

Task<Result<>> switch_backing(BlockNode& node, NodePtr backing) {
  co_return dynamic_cast<FormatNode&>(node).set_backing(std::move(backing));
}

Task<Result<>> apply(const Change& change) {
  KITE_CO_TRY(co_await change.node->set_read_only(change.read_only));
  if (!change.backing) co_return Result<>{};
  Result<> done = co_await switch_backing(*change.node, *change.backing);
  if (!done) (void)co_await change.node->set_read_only(change.was_read_only);
  co_return done;
}

Task<void> undo(const Change& change) {
  Result<> done;
  if (change.backing) done = co_await switch_backing(*change.node, change.old_backing);
  if (done) done = co_await change.node->set_read_only(change.was_read_only);
  if (!done) log::error("{}", done.error().message);
}

}  // namespace

Task<Result<>> reopen(BlockGraph& graph, const JobTable& jobs, std::vector<BlockOptions> nodes) {
  std::vector<Change> changes;
  for (BlockOptions& options : nodes) {
    KITE_CO_ASSIGN(Change change, plan(graph, jobs, std::move(options)));
    for (const Change& other : changes)
      if (other.node == change.node) co_return fail("Node '{}' is named twice", change.node->name());
    changes.push_back(std::move(change));
  }
  Result<> done;
  size_t applied = 0;
  for (; done && applied < changes.size(); ++applied) done = co_await apply(changes[applied]);
  if (!done) {
    --applied;  // of itself the last one has undone what there was
    while (applied != 0) co_await undo(changes[--applied]);
    co_return done;
  }
  for (const Change& change : changes) {
    const NodePtr old = change.backing ? change.old_backing : nullptr;
    if (old == nullptr || old->user_count() != 0 || old->kept()) continue;
    if (const Result<> closed = co_await old->close(); !closed) log::error("{}", closed.error().message);
  }
  co_return done;
}

}  // namespace kite::block

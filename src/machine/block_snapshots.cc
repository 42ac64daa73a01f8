#include "machine/block_snapshots.h"

#include <chrono>

#include "block/chain.h"
#include "block/image.h"
#include "block/overlay.h"
#include "machine/drive_images.h"
#include "support/log.h"

namespace kite::machine {

namespace {

using block::BlockGraph;
using block::FormatNode;
using block::NodePtr;
using block::OverlayPlan;

// --- on the block thread

// An action, and what was done for it so far.
struct Prepared {
  SnapshotAction action = {};
  block::Drive* drive = nullptr;  // that the action names; null: it names a node
  NodePtr node = nullptr, overlay = nullptr;
  bool opened = false;  // the overlay is ours until it has users
  bool has_internal = false;
};

Task<Result<NodePtr>> open_overlay(BlockGraph& graph, const Prepared& part) {
  const SnapshotAction& action = part.action;
  const block::ImageFormat* const format = block::find_image_format(action.format);
  if (format == nullptr || !format->has_backing)
    co_return fail("The format '{}' does not support backing images", action.format);
  const block::BlockNode& image = *block::skip_filters(part.node.get());
  co_return co_await open_new_image(graph,
                                    {.filename = action.filename,
                                     .format = action.format,
                                     .node_name = action.overlay,
                                     .existing = action.existing,
                                     .bytes = part.node->length(),
                                     .backing_filename = image.filename(),
                                     .backing_format = image.driver(),
                                     .backing = ""},
                                    part.node);
}

Task<Result<>> take_internal(Prepared& part) {
  auto* const format = dynamic_cast<FormatNode*>(part.node.get());
  if (format == nullptr || !format->holds_snapshots() || part.node->read_only())
    co_return fail("Block format '{}' used by node '{}' does not support internal snapshots", part.node->driver(),
                   part.node->name());
  for (const block::SnapshotInfo& old : format->image_info().snapshots)
    if (old.name == part.action.overlay)
      co_return fail("Snapshot with name '{}' already exists on node '{}'", old.name, part.node->name());
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  KITE_CO_TRY(
      co_await format->snapshot_create({.name = part.action.overlay,
                                        .date_seconds = static_cast<uint32_t>(nanoseconds / 1'000'000'000),
                                        .date_nanoseconds = static_cast<uint32_t>(nanoseconds % 1'000'000'000)}));
  part.has_internal = true;
  co_return Result<>{};
}

Task<Result<>> prepare(BlockGraph& graph, const block::JobTable& jobs, Prepared& part) {
  using Kind = SnapshotAction::Kind;
  const SnapshotAction& action = part.action;
  if (action.kind == Kind::kAbort) co_return fail("Transaction aborted using Abort action");
  part.node = part.drive != nullptr ? part.drive->node() : graph.find(action.name);
  if (part.node == nullptr && part.drive != nullptr) co_return fail("Device '{}' has no medium", action.name);
  if (part.node == nullptr) co_return fail("Cannot find device='{}' nor node-name='{}'", action.name, action.name);
  KITE_CO_TRY(jobs.may_change(*part.node));
  if (action.kind == Kind::kInternal) co_return co_await take_internal(part);
  if (action.kind == Kind::kOverlay) {
    part.overlay = graph.find(action.overlay);
    if (part.overlay == nullptr) co_return fail("Cannot find device='' nor node-name='{}'", action.overlay);
  } else {
    KITE_CO_ASSIGN(part.overlay, co_await open_overlay(graph, part));
    part.opened = true;
  }
  co_return block::may_overlay(jobs, {.node = part.node, .overlay = part.overlay});
}

// An overlay above a node that nobody uses has nobody either.
Task<void> finish(Prepared& part, bool done) {
  if (part.opened && part.overlay->user_count() == 0) (void)co_await part.overlay->close();
  if (done || !part.has_internal) co_return;
  const auto gone = co_await static_cast<FormatNode&>(*part.node).snapshot_delete(part.action.overlay);
  if (!gone) log::error("node '{}': {}", part.node->name(), gone.error().message);
}

Task<Result<>> take_all(BlockGraph& graph, const block::JobTable& jobs, std::vector<Prepared> parts) {
  Result<> done;
  std::vector<OverlayPlan> plans;
  for (Prepared& part : parts) {
    if (done) done = co_await prepare(graph, jobs, part);
    if (!done) break;
    for (const OverlayPlan& plan : plans) {
      if (plan.node == part.node || plan.overlay == part.overlay)
        done = fail("Node '{}' is named twice", part.node->name());
    }
    if (part.overlay != nullptr) plans.push_back({.node = part.node, .overlay = part.overlay});
  }
  if (done) done = co_await block::put_overlays(std::move(plans));
  for (Prepared& part : parts) co_await finish(part, done.has_value());
  co_return done;
}

}  // namespace

Result<> take_snapshots(DriveStore& store, const std::vector<SnapshotAction>& actions) {
  if (!store.active()) return fail("the images belong to another process: the machine is migrating");
  std::vector<Prepared> parts;
  for (const SnapshotAction& action : actions) {
    const DriveStore::Entry* const entry = store.find(action.name);
    parts.push_back({.action = action, .drive = entry == nullptr ? nullptr : entry->drive.get()});
  }
  store.quiesce();
  Result<> done = store.run(take_all(store.graph(), store.jobs(), std::move(parts)));
  store.take_new_lengths();
  store.release_all();
  return done;
}

}  // namespace kite::machine

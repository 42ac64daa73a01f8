#include "machine/block_snapshots.h"

#include <chrono>

#include "block/chain.h"
#include "block/image.h"
#include "machine/drive_images.h"
#include "support/log.h"

namespace kite::machine {

namespace {

using block::BlockGraph;
using block::FormatNode;
using block::NodePtr;
using block::OverlayPlan;

// --- on the block thread

// A snapshot, and what was done for it so far.
class SnapshotAction final : public BlockAction {
 public:
  SnapshotAction(SnapshotRequest request, block::Drive* drive) : request_(std::move(request)), drive_(drive) {}
  Task<Result<>> prepare(BlockTogether& together) override;
  Task<void> finish(BlockTogether& together, bool done) override;

 private:
  Task<Result<NodePtr>> open_overlay(BlockGraph& graph);
  Task<Result<>> take_internal();

  SnapshotRequest request_;
  block::Drive* drive_;  // that the request names; null: it names a node
  NodePtr node_ = nullptr, overlay_ = nullptr;
  bool opened_ = false;  // the overlay is ours until it has users
  bool has_internal_ = false;
};

Task<Result<NodePtr>> SnapshotAction::open_overlay(BlockGraph& graph) {
  const block::ImageFormat* const format = block::find_image_format(request_.format);
  if (format == nullptr || !format->has_backing)
    co_return fail("The format '{}' does not support backing images", request_.format);
  const block::BlockNode& image = *block::skip_filters(node_.get());
  co_return co_await open_new_image(graph,
                                    {.filename = request_.filename,
                                     .format = request_.format,
                                     .node_name = request_.overlay,
                                     .existing = request_.existing,
                                     .bytes = node_->length(),
                                     .backing_filename = image.filename(),
                                     .backing_format = image.driver(),
                                     .backing = ""},
                                    node_);
}

Task<Result<>> SnapshotAction::take_internal() {
  auto* const format = dynamic_cast<FormatNode*>(node_.get());
  if (format == nullptr || !format->holds_snapshots() || node_->read_only())
    co_return fail("Block format '{}' used by node '{}' does not support internal snapshots", node_->driver(),
                   node_->name());
  for (const block::SnapshotInfo& old : format->image_info().snapshots)
    if (old.name == request_.overlay)
      co_return fail("Snapshot with name '{}' already exists on node '{}'", old.name, node_->name());
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  KITE_CO_TRY(
      co_await format->snapshot_create({.name = request_.overlay,
                                        .date_seconds = static_cast<uint32_t>(nanoseconds / 1'000'000'000),
                                        .date_nanoseconds = static_cast<uint32_t>(nanoseconds % 1'000'000'000)}));
  has_internal_ = true;
  co_return Result<>{};
}

Task<Result<>> SnapshotAction::prepare(BlockTogether& together) {
  using Kind = SnapshotRequest::Kind;
  if (request_.kind == Kind::kAbort) co_return fail("Transaction aborted using Abort action");
  BlockGraph& graph = together.graph;
  const std::string& name = request_.name;
  node_ = drive_ != nullptr ? drive_->node() : graph.find(name);
  if (node_ == nullptr && drive_ != nullptr) co_return fail("Device '{}' has no medium", name);
  if (node_ == nullptr) co_return fail("Cannot find device='{}' nor node-name='{}'", name, name);
  KITE_CO_TRY(together.not_taken(*node_));
  KITE_CO_TRY(together.jobs.may_change(*node_));
  if (request_.kind == Kind::kInternal) co_return co_await take_internal();
  if (request_.kind == Kind::kOverlay) {
    overlay_ = graph.find(request_.overlay);
    if (overlay_ == nullptr) co_return fail("Cannot find device='' nor node-name='{}'", request_.overlay);
  } else {
    KITE_CO_ASSIGN(overlay_, co_await open_overlay(graph));
    opened_ = true;
  }
  const OverlayPlan plan{.node = node_, .overlay = overlay_};
  KITE_CO_TRY(block::may_overlay(together.jobs, plan));
  KITE_CO_TRY(together.take(*node_));
  KITE_CO_TRY(together.take(*overlay_));
  together.overlays.push_back(plan);
  co_return Result<>{};
}

// An overlay above a node that nobody uses has nobody either.
Task<void> SnapshotAction::finish(BlockTogether&, bool done) {
  if (opened_ && overlay_->user_count() == 0) (void)co_await overlay_->close();
  if (done || !has_internal_) co_return;
  const auto gone = co_await static_cast<FormatNode&>(*node_).snapshot_delete(request_.overlay);
  if (!gone) log::error("node '{}': {}", node_->name(), gone.error().message);
}

}  // namespace

std::unique_ptr<BlockAction> snapshot_action(DriveStore& store, SnapshotRequest request) {
  const DriveStore::Entry* const entry = store.find(request.name);
  return std::make_unique<SnapshotAction>(std::move(request), entry == nullptr ? nullptr : entry->drive.get());
}

}  // namespace kite::machine

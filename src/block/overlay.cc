#include "block/overlay.h"

#include "block/image.h"
#include "support/log.h"

namespace kite::block {
namespace {

FormatNode& format_of(const OverlayPlan& plan) { return static_cast<FormatNode&>(*plan.overlay); }

Result<> put(const OverlayPlan& plan) {
  const auto take = [&plan] { return format_of(plan).set_backing(plan.node); };
  Result<> moved = plan.node->move_users(plan.overlay, nullptr, nullptr, take);
  if (!moved) (void)format_of(plan).set_backing(nullptr);
  return moved;
}

void take_away(const OverlayPlan& plan) {
  const auto let_go = [&plan] { return format_of(plan).set_backing(nullptr); };
  if (const Result<> moved = plan.overlay->move_users(plan.node, nullptr, nullptr, let_go); !moved)
    log::error("node '{}': {}", plan.node->name(), moved.error().message);
}

}  // namespace

Result<> may_overlay(const JobTable& jobs, const OverlayPlan& plan) {
  const auto& [node, overlay] = plan;
  KITE_TRY(jobs.may_change(*node));
  KITE_TRY(jobs.may_change(*overlay));
  if (node == overlay) return fail("Node '{}' cannot be its own overlay", node->name());
  if (dynamic_cast<const FormatNode*>(overlay.get()) == nullptr || overlay->driver() == "raw")
    return fail("The overlay does not support backing images: '{}' is {}", overlay->name(), overlay->driver());
  if (overlay->user_count() != 0) return fail("The overlay is already in use");
  if (overlay->backing() != nullptr) return fail("The overlay already has a backing image");
  if (overlay->read_only()) return fail("The overlay '{}' is read-only", overlay->name());
  if (!node->active() || !overlay->active()) return fail("Node '{}' belongs to another process", node->name());
  return {};
}

Task<Result<>> put_overlays(std::vector<OverlayPlan> plans) {
  for (const OverlayPlan& plan : plans) {
    for (BlockNode* node : {plan.node.get(), plan.overlay.get()}) {
      if (node->read_only()) continue;
      if (const auto flushed = co_await node->flush(); !flushed)
        co_return fail("Node '{}' could not be flushed: {}", node->name(), errno_text(flushed.error().code));
    }
  }
  for (size_t i = 0; i < plans.size(); ++i) {
    Result<> done = put(plans[i]);
    if (done) continue;
    while (i != 0) take_away(plans[--i]);
    co_return done;
  }
  for (const OverlayPlan& plan : plans) {
    // A node that cannot is left as it is: nobody writes to it either way.
    if (const Result<> done = co_await plan.node->set_read_only(true); !done)
      log::info("node '{}' stays writable: {}", plan.node->name(), done.error().message);
  }
  co_return Result<>{};
}

}  // namespace kite::block

// External snapshots: images that come above others in use and take what guests write from then on.
#pragma once

#include <vector>

#include "block/jobs/job.h"
#include "block/node.h"

namespace kite::block {

struct OverlayPlan {
  NodePtr node, overlay;
};
// Whether the overlay could come above the node.
Result<> may_overlay(const JobTable& jobs, const OverlayPlan& plan);
// Users of each node go on with its overlay, whose backing file it becomes: with all of them, or with none. Both are
// flushed before, and nobody has requests under way. The nodes are read-only afterwards where they can be.
Task<Result<>> put_overlays(std::vector<OverlayPlan> plans);

}  // namespace kite::block

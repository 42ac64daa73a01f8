// Named nodes become what other options say, in place ([QAPI] blockdev-reopen): read-only or not, over another backing
// file. What cannot change so is refused by its name.
#pragma once

#include <vector>

#include "block/jobs/job.h"
#include "block/options.h"

namespace kite::block {

// All of them, or none; each with all of its options. Nobody has requests under way.
Task<Result<>> reopen(BlockGraph& graph, const JobTable& jobs, std::vector<BlockOptions> nodes);

}  // namespace kite::block

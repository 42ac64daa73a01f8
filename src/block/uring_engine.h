// The io_uring engine: requests gather in the submission queue while the loop runs, and go to the kernel in one call
// before it sleeps.
#pragma once

#include <memory>

#include "block/io_engine.h"

namespace kite::block {

// Null when the kernel has no io_uring, or forbids it.
std::shared_ptr<IoEngine> make_uring_engine(Executor& executor);

}  // namespace kite::block

// Epoch-based reclamation: readers announce themselves in a slot of their own thread, writers retire objects and free
// them once every reader that could hold them has left. Entering is a store to the thread's own cache line; the
// writer pays with a process-wide barrier (membarrier).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace kite {

class EpochGuard {
 public:
  EpochGuard();  // nests
  ~EpochGuard();
  EpochGuard(const EpochGuard&) = delete;
  EpochGuard& operator=(const EpochGuard&) = delete;
};

// Runs `free` (perhaps at once, on this thread) when no guard that is alive now is alive any more. Any thread; not
// inside a guard that the retired object is reached through.
void epoch_retire(std::function<void()> free);
// Runs everything retired whose readers have left. Called by epoch_retire; tests and shutdown call it too.
void epoch_collect();

// A barrier on every running thread of the process: stores made by others before it are visible after it.
void process_wide_barrier();
// The same by other means, slower: what process_wide_barrier() does where the kernel refuses membarrier.
void process_wide_barrier_by_protection();

}  // namespace kite

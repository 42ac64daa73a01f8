// CoalescedRing: writes to coalesced regions wait here, in order, so that a guest that streams into a device pays one
// dispatch for many. Drained before the next trapped access is answered, when it is full, and on a timer. Any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "accel/accelerator.h"
#include "async/clock.h"
#include "memory/address_space.h"

namespace kite::machine {

class CoalescedRing {
 public:
  static constexpr size_t kCapacity = 128;
  static constexpr int64_t kDelayNs = 1'000'000;       // guest time: the longest that a write waits
  static constexpr int64_t kLookNs = 10'000'000;       // and in an accelerator's queue
  static constexpr int64_t kIdleLookNs = 500'000'000;  // whether that came into use

  // `drained` runs after the timer drained the ring, with no lock held.
  // `queued`, an accelerator's own queue or null, is drained with this one, and looked at on a timer while it is in
  // use. What is posted here by a vCPU is older than what the same vCPU queues there afterwards.
  CoalescedRing(Clock& clock, std::function<void()> drained, QueuedWrites* queued = nullptr);

  // Takes the write when the whole of it falls into a coalesced region of `space`; else the caller dispatches it,
  // after drain(). A full ring is drained first.
  bool post(AddressSpace& space, uint64_t address, unsigned size, uint64_t value);
  // Dispatches what waits, oldest first; when it returns, all that was posted before has reached its device.
  void drain();

 private:
  struct Write {
    AddressSpace* space;
    uint64_t address;
    unsigned size;
    uint64_t value;
  };

  void drain_own();  // under drain_mutex_

  QueuedWrites* queued_;
  std::mutex drain_mutex_;  // taken before mutex_; held while devices are called, so that order is kept
  std::mutex mutex_;
  std::vector<Write> waiting_;
  std::atomic<bool> empty_{true};
  Timer timer_;
  std::unique_ptr<Timer> look_timer_;  // where there is an accelerator's queue
};

}  // namespace kite::machine

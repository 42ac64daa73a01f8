// CoalescedRing: writes to coalesced regions wait here, in order, so that a guest that streams into a device pays one
// dispatch for many. Drained before the next trapped access is answered, when it is full, and on a timer. Any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "async/clock.h"
#include "memory/address_space.h"

namespace kite::machine {

class CoalescedRing {
 public:
  static constexpr size_t kCapacity = 128;
  static constexpr int64_t kDelayNs = 1'000'000;  // guest time: the longest that a write waits

  // `drained` runs after the timer drained the ring, with no lock held.
  CoalescedRing(Clock& clock, std::function<void()> drained);

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

  std::mutex drain_mutex_;  // taken before mutex_; held while devices are called, so that order is kept
  std::mutex mutex_;
  std::vector<Write> waiting_;
  std::atomic<bool> empty_{true};
  Timer timer_;
};

}  // namespace kite::machine

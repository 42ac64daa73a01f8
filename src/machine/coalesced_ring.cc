#include "machine/coalesced_ring.h"

#include <utility>

namespace kite::machine {

CoalescedRing::CoalescedRing(Clock& clock, std::function<void()> drained)
    : timer_(clock, [this, drained = std::move(drained)] {
        drain();
        drained();
      }) {
  waiting_.reserve(kCapacity);
}

bool CoalescedRing::post(AddressSpace& space, uint64_t address, unsigned size, uint64_t value) {
  {
    const EpochGuard guard;
    const FlatRange* range = space.view(guard).find(address);
    if (range == nullptr || range->kind != RegionKind::kCoalesced || range->doorbells != nullptr ||
        size > range->end - address)
      return false;
  }
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.size() < kCapacity) {
        waiting_.push_back({.space = &space, .address = address, .size = size, .value = value});
        if (empty_.exchange(false)) timer_.arm_at(timer_.clock().now() + kDelayNs);
        return true;
      }
    }
    drain();
  }
}

void CoalescedRing::drain() {
  if (empty_.load(std::memory_order_acquire)) [[likely]]
    return;
  const std::lock_guard drain_lock(drain_mutex_);
  std::vector<Write> writes;
  {
    const std::lock_guard lock(mutex_);
    writes.swap(waiting_);
    waiting_.reserve(kCapacity);
  }
  for (const Write& write : writes) write.space->write(write.address, write.size, write.value);
  const std::lock_guard lock(mutex_);
  if (waiting_.empty())
    empty_.store(true, std::memory_order_release);
  else
    timer_.arm_at(timer_.clock().now() + kDelayNs);  // posted meanwhile
}

}  // namespace kite::machine

#include "machine/coalesced_ring.h"

#include <utility>

namespace kite::machine {

CoalescedRing::CoalescedRing(Clock& clock, std::function<void()> drained, QueuedWrites* queued)
    : queued_(queued), timer_(clock, [this, drained] {
        drain();
        drained();
      }) {
  waiting_.reserve(kCapacity);
  if (queued_ == nullptr) return;
  look_timer_ = std::make_unique<Timer>(clock, [this, drained = std::move(drained)] {
    if (!queued_->empty()) {
      drain();
      drained();
    }
    look_timer_->arm_at(look_timer_->clock().now() + (queued_->in_use() ? kLookNs : kIdleLookNs));
  });
  look_timer_->arm_at(clock.now() + kLookNs);
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
  const bool empty = empty_.load(std::memory_order_acquire);
  if (empty && (queued_ == nullptr || queued_->empty())) [[likely]]
    return;
  const std::lock_guard drain_lock(drain_mutex_);
  if (!empty) drain_own();
  if (queued_ != nullptr) queued_->drain();
}

void CoalescedRing::drain_own() {
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

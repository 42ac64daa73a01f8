// What KVM does with accesses to device memory and ports without leaving the kernel: doorbells (ioeventfd) and
// coalesced writes (a ring). Both only spare exits: what KVM does not take is dispatched by the map with the same
// result.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "accel/kvm/kvm_abi.h"
#include "accel/kvm/kvm_calls.h"
#include "memory/address_space.h"

namespace kite {

// One of these for memory and one for ports.
class KvmDoorbells final : public MapObserver {
 public:
  enum class Bus : uint8_t { kMemory, kPorts };
  KvmDoorbells(const KvmFd& vm, Bus bus, bool any_length) : vm_(vm), bus_(bus), any_length_(any_length) {}

  void range_removed(const FlatRange& range) override { each(range, true); }
  void range_added(const FlatRange& range) override { each(range, false); }

  [[nodiscard]] uint32_t count() const { return count_; }  // while no commit runs

 private:
  void each(const FlatRange& range, bool remove);

  const KvmFd& vm_;
  Bus bus_;
  bool any_length_;
  uint32_t count_ = 0;
};

// The zones of one space whose writes KVM queues. The ring itself is one for the VM: KvmCoalescedRing.
class KvmCoalescedZones final : public MapObserver {
 public:
  KvmCoalescedZones(const KvmFd& vm, bool ports, std::atomic<uint32_t>& zones)
      : vm_(vm), ports_(ports), zones_(zones) {}
  void range_removed(const FlatRange& range) override { each(range, true); }
  void range_added(const FlatRange& range) override { each(range, false); }

 private:
  void each(const FlatRange& range, bool remove);

  const KvmFd& vm_;
  bool ports_;
  std::atomic<uint32_t>& zones_;
};

class KvmCoalescedRing {
 public:
  // The ring lies in a page of every vCPU's mapping; any of them serves, and it outlives this.
  void attach(kvm_coalesced_mmio_ring* ring) { ring_.store(ring, std::memory_order_release); }
  void set_spaces(AddressSpace* memory, AddressSpace* ports) {
    memory_ = memory;
    ports_ = ports;
  }

  // One load or two; any thread.
  [[nodiscard]] bool empty() const {
    const kvm_coalesced_mmio_ring* const ring = ring_.load(std::memory_order_acquire);
    return ring == nullptr || std::atomic_ref(const_cast<uint32_t&>(ring->first)).load(std::memory_order_relaxed) ==
                                  std::atomic_ref(const_cast<uint32_t&>(ring->last)).load(std::memory_order_acquire);
  }
  // Dispatches what waits, oldest first. Any thread that holds no device lock.
  void drain();

  std::atomic<uint32_t> zones{0};  // how many are registered

 private:
  std::atomic<kvm_coalesced_mmio_ring*> ring_{nullptr};
  AddressSpace* memory_ = nullptr;
  AddressSpace* ports_ = nullptr;
  std::mutex mutex_;  // held while devices are called, so that order is kept
};

}  // namespace kite

// The dirty rings: one a vCPU, in which KVM names each page that this vCPU wrote first since it was last protected.
// [Linux Documentation/virt/kvm/api.rst, 8.29]
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>

#include "accel/kvm/kvm_abi.h"
#include "accel/kvm/kvm_calls.h"
#include "support/result.h"

namespace kite {

class KvmDirtyRings {
 public:
  // `entries` a ring, a power of two. `written` is told of every page, under a lock of this.
  KvmDirtyRings(const KvmFd& vm, uint32_t entries, std::function<void(uint32_t slot, uint64_t page)> written)
      : vm_(vm), entries_(entries), written_(std::move(written)) {}

  // Maps the ring of a vCPU; before it runs.
  Result<> add(uint32_t index, const KvmFd& vcpu);
  void remove(uint32_t index);
  // Reads every ring empty and lets KVM protect those pages again. Any thread.
  void collect();

 private:
  struct Ring {
    KvmMapping map;
    uint32_t next = 0;
  };
  uint32_t read(Ring& ring);  // how many entries it had

  const KvmFd& vm_;
  uint32_t entries_;
  std::function<void(uint32_t, uint64_t)> written_;
  std::mutex mutex_;
  std::map<uint32_t, Ring> rings_;
};

}  // namespace kite

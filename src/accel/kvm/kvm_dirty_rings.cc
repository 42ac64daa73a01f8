#include "accel/kvm/kvm_dirty_rings.h"

#include <atomic>

#include "memory/guest_types.h"
#include "support/log.h"

namespace kite {

Result<> KvmDirtyRings::add(uint32_t index, const KvmFd& vcpu) {
  int error = 0;
  const size_t bytes = size_t{entries_} * sizeof(kvm_dirty_gfn);
  void* const address = vm_.calls().map(vcpu.get(), bytes, KVM_DIRTY_LOG_PAGE_OFFSET * int64_t{kPageSize}, error);
  if (address == nullptr)
    return fail("cannot map the dirty ring of CPU {} ({} bytes): {}; try a smaller dirty-ring-size", index, bytes,
                errno_text(error));
  const std::lock_guard lock(mutex_);
  rings_.insert_or_assign(index, Ring{.map = KvmMapping(vm_.calls(), address, bytes)});
  return {};
}

void KvmDirtyRings::remove(uint32_t index) {
  collect();
  const std::lock_guard lock(mutex_);
  rings_.erase(index);
}

uint32_t KvmDirtyRings::read(Ring& ring) {
  auto* const entries = reinterpret_cast<kvm_dirty_gfn*>(ring.map.bytes());
  uint32_t count = 0;
  for (; count < entries_; ++count, ++ring.next) {
    kvm_dirty_gfn& entry = entries[ring.next & (entries_ - 1)];
    std::atomic_ref<__u32> flags(entry.flags);
    if ((flags.load(std::memory_order_acquire) & (KVM_DIRTY_GFN_F_DIRTY | KVM_DIRTY_GFN_F_RESET)) !=
        KVM_DIRTY_GFN_F_DIRTY)
      break;
    written_(entry.slot & 0xffff, entry.offset);  // the upper half numbers the address space
    flags.store(KVM_DIRTY_GFN_F_RESET, std::memory_order_release);
  }
  return count;
}

void KvmDirtyRings::collect() {
  const std::lock_guard lock(mutex_);
  uint32_t count = 0;
  for (auto& [index, ring] : rings_) count += read(ring);
  if (count == 0) return;
  if (const int answer = vm_.ioctl(KVM_RESET_DIRTY_RINGS); answer < 0)
    log::error("KVM does not reset its dirty rings: {}", errno_text(-answer));
}

}  // namespace kite

#include "accel/kvm/kvm_bus_watch.h"

#include <algorithm>
#include <cstring>

#include "support/log.h"

namespace kite {

void KvmDoorbells::each(const FlatRange& range, bool remove) {
  if (range.doorbells == nullptr) return;
  for (const DoorbellSpot& spot : *range.doorbells) {
    if (spot.offset < range.region_offset || spot.offset - range.region_offset >= range.size()) continue;
    if (spot.size == 0 && !any_length_) continue;
    kvm_ioeventfd request{};
    request.addr = range.start + (spot.offset - range.region_offset);
    request.len = spot.size;
    request.fd = spot.event->get();
    request.datamatch = spot.value.value_or(0);
    request.flags = (spot.value ? 1u << kvm_ioeventfd_flag_nr_datamatch : 0u) |
                    (bus_ == Bus::kPorts ? 1u << kvm_ioeventfd_flag_nr_pio : 0u) |
                    (remove ? 1u << kvm_ioeventfd_flag_nr_deassign : 0u);
    const int answer = vm_.ioctl(KVM_IOEVENTFD, &request);
    if (answer >= 0)
      count_ += remove ? ~0u : 1u;
    else if (!remove)
      log::warn("KVM does not watch the doorbell of '{}' at {:#x}: {}; it rings after an exit", range.region->name(),
                uint64_t{request.addr}, errno_text(-answer));
  }
}

void KvmCoalescedZones::each(const FlatRange& range, bool remove) {
  // Where there are doorbells, a queued write could pass one that rings.
  if (range.kind != RegionKind::kCoalesced || range.doorbells != nullptr) return;
  // The kernel's zones have 32-bit sizes; more is trapped.
  kvm_coalesced_mmio_zone zone{};
  zone.addr = range.start;
  zone.size = static_cast<uint32_t>(std::min<uint64_t>(range.size(), 0x40000000));
  zone.pio = ports_ ? 1 : 0;
  const int answer = vm_.ioctl(remove ? KVM_UNREGISTER_COALESCED_MMIO : KVM_REGISTER_COALESCED_MMIO, &zone);
  if (answer >= 0)
    zones_.fetch_add(remove ? ~0u : 1u, std::memory_order_relaxed);
  else if (!remove)
    log::warn("KVM does not queue writes to '{}': {}; each one is an exit", range.region->name(), errno_text(-answer));
}

void KvmCoalescedRing::drain() {
  kvm_coalesced_mmio_ring* const ring = ring_.load(std::memory_order_acquire);
  if (ring == nullptr || empty()) return;
  // The ring is one page [Linux Documentation/virt/kvm/api.rst, 4.116].
  constexpr uint32_t kEntries = (kPageSize - sizeof(kvm_coalesced_mmio_ring)) / sizeof(kvm_coalesced_mmio);
  const std::lock_guard lock(mutex_);
  const std::atomic_ref<__u32> first(ring->first), last(ring->last);
  for (uint32_t at = first.load(std::memory_order_relaxed) % kEntries;
       at != last.load(std::memory_order_acquire) % kEntries;) {
    kvm_coalesced_mmio entry;
    std::memcpy(&entry, &ring->coalesced_mmio[at], sizeof entry);
    at = (at + 1) % kEntries;
    first.store(at, std::memory_order_release);
    uint64_t value = 0;
    const unsigned bytes = std::min<unsigned>(entry.len, sizeof entry.data);
    std::memcpy(&value, entry.data, bytes);
    if (AddressSpace* const space = entry.pio != 0 ? ports_ : memory_; space != nullptr && bytes != 0)
      space->write(entry.phys_addr, bytes, value);
  }
}

}  // namespace kite

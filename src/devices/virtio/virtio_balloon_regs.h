// The traditional memory balloon. [VIRTIO 1.2] 5.5.
#pragma once

#include <cstdint>

namespace kite::devices::virtio_balloon {

inline constexpr uint16_t kType = 5;
inline constexpr uint16_t kLegacyDeviceId = 0x1002;
inline constexpr uint32_t kClass = 0x00ff00;  // of no class that PCI knows

// 5.5.2, without free_page_vq: drivers number the queues that there are without gaps.
enum Queue : uint16_t { kInflateQueue = 0, kDeflateQueue = 1, kStatsQueue = 2, kReportingQueue = 3 };

// 5.5.3
inline constexpr uint64_t kStats = 1u << 1, kDeflateOnOom = 1u << 2, kPagePoison = 1u << 4, kReporting = 1u << 5;

// 5.5.4
enum Config : uint8_t {
  kWantedAt = 0,       // r-  32  num_pages
  kActualAt = 4,       // rw  32
  kHintCommandAt = 8,  // r-  32  only with FREE_PAGE_HINT, which is not offered
  kPoisonAt = 12,      // rw  32  with PAGE_POISON
  kConfigBytes = 16,
};

inline constexpr uint64_t kPageBytes = 4096;  // 5.5.6: whatever the guest's pages are
inline constexpr unsigned kNumberBytes = 4;   // of a page

// 5.5.6.3: u16 tag, u64 value.
inline constexpr unsigned kStatBytes = 10;
inline constexpr const char* kStatNames[] = {
    "stat-swap-in",      "stat-swap-out",         "stat-major-faults", "stat-minor-faults", "stat-free-memory",
    "stat-total-memory", "stat-available-memory", "stat-disk-caches",  "stat-htlb-pgalloc", "stat-htlb-pgfail"};

}  // namespace kite::devices::virtio_balloon

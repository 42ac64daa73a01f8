#include "devices/pci_host/shadow_ram.h"

#include <fmt/format.h>

namespace kite::devices {
namespace {

constexpr uint64_t kStart = 0xc0000, kSize = 0x40000;
constexpr uint64_t kPciInSplitView = 0x100000;

// [440FX] table 6: PAM0 has one nibble for the BIOS area, the others two each for 16 KiB from 0xc0000 up.
struct Place {
  uint64_t start, size;
  unsigned reg, shift;
};
constexpr Place place(unsigned index) {
  if (index == 12) return {.start = 0xf0000, .size = 0x10000, .reg = 0, .shift = 4};
  return {.start = kStart + index * 0x4000, .size = 0x4000, .reg = 1 + index / 2, .shift = index % 2 * 4};
}

}  // namespace

ShadowRam::ShadowRam(Region& system_memory, const std::shared_ptr<Region>& ram, const std::shared_ptr<Region>& pci)
    : system_memory_(system_memory),
      split_(*this, &ShadowRam::read_split, &ShadowRam::write_split),
      split_region_(Region::io("pam-split", kSize, split_, {.min_size = 1, .max_size = 8, .unaligned = true})),
      split_view_("pam-split", 2 * kPciInSplitView) {
  constexpr int kPriority = 1;
  for (unsigned i = 0; i < kSegments; ++i) {
    const auto [start, size, reg, shift] = place(i);
    Segment& segment = segments_[i];
    segment.pci = Region::alias(fmt::format("pam-pci-{:x}", start), pci, start, size);
    segment.ram = Region::alias(fmt::format("pam-ram-{:x}", start), ram, start, size);
    segment.split = Region::alias(fmt::format("pam-split-{:x}", start), split_region_, start - kStart, size);
    for (const auto& window : {segment.pci, segment.ram, segment.split}) system_memory_.add(start, window, kPriority);
  }
  split_view_.root().add(kStart, Region::alias("dram", ram, kStart, kSize));
  split_view_.root().add(kPciInSplitView + kStart, Region::alias("pci", pci, kStart, kSize));
  apply(std::array<uint8_t, kRegisters>{});
}

ShadowRam::~ShadowRam() {
  for (const Segment& segment : segments_)
    for (const auto& window : {segment.pci, segment.ram, segment.split}) system_memory_.remove(window);
}

void ShadowRam::apply(std::span<const uint8_t, kRegisters> pam) {
  for (unsigned i = 0; i < kSegments; ++i) {
    const auto [start, size, reg, shift] = place(i);
    const unsigned attributes = pam[reg] >> shift;
    const bool reads = (attributes & kReadEnable) != 0;
    const bool writes = (attributes & kWriteEnable) != 0;
    segments_[i].ram->set_read_only(!writes);
    segments_[i].ram->set_enabled(reads);
    segments_[i].split->set_enabled(!reads && writes);
    segments_[i].pci->set_enabled(!reads && !writes);
  }
}

void ShadowRam::refresh_split_view() {
  const std::lock_guard lock(split_view_lock_);
  if (split_view_.stale()) split_view_.commit();
}

uint64_t ShadowRam::read_split(uint64_t offset, unsigned size) {
  refresh_split_view();
  uint64_t value = 0;
  split_view_.read(kPciInSplitView + kStart + offset, size, value);
  return value;
}

void ShadowRam::write_split(uint64_t offset, unsigned size, uint64_t value) {
  refresh_split_view();
  split_view_.write(kStart + offset, size, value);
}

}  // namespace kite::devices

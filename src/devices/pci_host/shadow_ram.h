// Shadow RAM, a part of Intel's PC host bridges: thirteen segments of 0xc0000-0xfffff, each RAM, ROM, PCI or "read PCI,
// write RAM", as the seven programmable attribute map registers say. [440FX] 3.2.18, [Q35] 5.1.15.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "devices/io_window.h"
#include "memory/address_space.h"

namespace kite::devices {

class ShadowRam {
 public:
  static constexpr unsigned kRegisters = 7;
  // Bits of a segment's nibble.
  static constexpr uint8_t kReadEnable = 1;   // reads go to DRAM, else to PCI
  static constexpr uint8_t kWriteEnable = 2;  // writes go to DRAM, else to PCI
  // Bits of PAM0 and of PAM1..6 that are writable.
  static constexpr uint8_t kFirstWritable = 0x30, kWritable = 0x33;

  // Places its windows in `system_memory` with priority 1. Offset 0 of `ram` and `pci` is address 0; RAM has at least
  // 1 MiB.
  ShadowRam(Region& system_memory, const std::shared_ptr<Region>& ram, const std::shared_ptr<Region>& pci);
  ~ShadowRam();
  ShadowRam(const ShadowRam&) = delete;
  ShadowRam& operator=(const ShadowRam&) = delete;

  // Shows the segments as PAM0..6 say. Serialized by the caller.
  void apply(std::span<const uint8_t, kRegisters> pam);

 private:
  // What a segment can show, one of them enabled.
  struct Segment {
    std::shared_ptr<Region> pci;
    std::shared_ptr<Region> ram;    // read-only while only reads go to DRAM
    std::shared_ptr<Region> split;  // reads go to PCI, writes to DRAM: trapped
  };
  static constexpr unsigned kSegments = 13;

  // `offset` from 0xc0000.
  uint64_t read_split(uint64_t offset, unsigned size);
  void write_split(uint64_t offset, unsigned size, uint64_t value);
  void refresh_split_view();

  Region& system_memory_;
  std::array<Segment, kSegments> segments_;
  IoWindow<ShadowRam> split_;
  std::shared_ptr<Region> split_region_;
  // What a split segment reaches: DRAM at its own addresses, PCI memory 1 MiB higher. Committed on demand.
  AddressSpace split_view_;
  std::mutex split_view_lock_;
};

}  // namespace kite::devices

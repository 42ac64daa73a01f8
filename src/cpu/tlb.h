// The soft TLB: linear page -> host page, one table for each kind of access right, direct-mapped.
//
// Fast path of a load of `size` bytes at `linear`:
//   e = table[(linear >> 12) & mask];  hit when e.read_tag == page_of(linear + size - 1)
// The index comes from the first byte and the comparison from the last, so an access that crosses a page never hits.
// Pages that need more than a host pointer (device memory, the local APIC, ROM for writes) have the tag kNoTag.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "memory/guest_types.h"

namespace kite::cpu {

struct TlbEntry {
  static constexpr uint64_t kNoTag = 1;  // never equals a page address
  uint64_t read_tag = kNoTag;
  uint64_t write_tag = kNoTag;
  uint64_t exec_tag = kNoTag;
  uintptr_t addend = 0;  // host address = linear + addend
  std::atomic<uint8_t>* page_state = nullptr;  // RamBlock's byte; a store that finds it non-zero calls store_noticed()
  Gpa page = 0;          // guest-physical page address
  bool global = false;
};

inline constexpr unsigned kTlbBits = 10;
inline constexpr size_t kTlbSize = size_t{1} << kTlbBits;

// Which rights a table was filled for.
enum class TlbKind : uint8_t { kUser, kSupervisor, kSupervisorUserOk /* SMAP off or RFLAGS.AC set */, kCount };

struct TlbTable {
  std::array<TlbEntry, kTlbSize> entries;
  [[nodiscard]] TlbEntry& at(uint64_t linear) { return entries[(linear >> kPageShift) & (kTlbSize - 1)]; }
};

inline constexpr uint64_t page_of(uint64_t linear) { return linear & ~(kPageSize - 1); }

}  // namespace kite::cpu

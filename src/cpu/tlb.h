// The soft TLB: linear page -> host page, one table for each kind of access right, direct-mapped.
//
// Fast path of a load of `size` bytes at `linear`:
//   e = table.accesses[(linear >> 12) & mask];  hit when e.read_tag == page_of(linear + size - 1)
// The index comes from the first byte and the comparison from the last, so an access that crosses a page never hits.
// Pages that need more than a host pointer (device memory, the local APIC, ROM for writes) have the tag kNoTag.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "memory/guest_types.h"
#include "memory/ram_block.h"

namespace kite::cpu {

inline constexpr uint64_t kNoTag = 0x800;  // never a page address, nor one with low bits that an alignment is seen by

// What loads and stores look at: apart from the rest, so that a cache line serves two pages.
struct alignas(32) TlbAccess {
  uint64_t read_tag = kNoTag;
  uint64_t write_tag = kNoTag;
  uintptr_t addend = 0;                        // host address = linear + addend
  std::atomic<uint8_t>* page_state = nullptr;  // RamBlock's byte; a store that finds it non-zero calls store_noticed()
};
static_assert(sizeof(TlbAccess) == 32);

struct TlbEntry {
  // Rights that the walk granted, whether or not a tag could be set for them.
  static constexpr uint8_t kRead = 1, kWrite = 2, kExecute = 4;
  enum class Target : uint8_t { kDevice, kMemory, kRom, kMixed /* memory in part of the page */, kApic };

  uint64_t exec_tag = kNoTag;
  Gpa page = 0;              // guest-physical page address
  uint64_t linear = kNoTag;  // the page this entry translates; kNoTag: empty
  uint8_t rights = 0;
  Target target = Target::kDevice;
  uint8_t shift = kPageShift;  // log2 of the size of the page in the guest's tables
  bool global : 1 = false;
  bool in_local_list : 1 = false;
  bool in_global_list : 1 = false;
  bool whole : 1 = false;  // the tags would be the same for all 4 KiB of a large page, and the addend
};

// 64 MiB of addresses. Flushing goes by what was used, not by the size.
inline constexpr unsigned kTlbBits = 14;
inline constexpr size_t kTlbSize = size_t{1} << kTlbBits;

// Which rights a table was filled for. kUserAligned serves CPL 3 with alignment checking on: its read and write tags
// are never set, so that every access is looked at.
enum class TlbKind : uint8_t {
  kUser,
  kSupervisor,
  kSupervisorUserOk /* SMAP off or RFLAGS.AC set */,
  kUserAligned,
  kCount
};

// Entries are listed as they are filled, so that flushing costs what was used, not the size of the table. An entry may
// be on both lists; a list holds each index once.
struct TlbTable {
  alignas(64) std::array<TlbAccess, kTlbSize> accesses;
  // A translator's numbers for "this linear page leads to this physical page and may be executed"; 0: not looked at.
  alignas(64) std::array<uint32_t, kTlbSize> exec_ids{};
  std::array<TlbEntry, kTlbSize> entries;
  std::array<uint16_t, kTlbSize> local_list{};
  std::array<uint16_t, kTlbSize> global_list{};
  uint16_t local_count = 0;
  uint16_t global_count = 0;
  // Bloom filters over the 2 MiB and 1 GiB areas that large pages were cut into 4 KiB entries from.
  std::array<uint64_t, 16> large_2m{};
  uint64_t large_1g = 0;

  static constexpr size_t index(uint64_t linear) { return (linear >> kPageShift) & (kTlbSize - 1); }
  [[nodiscard]] TlbEntry& at(uint64_t linear) { return entries[index(linear)]; }
  [[nodiscard]] const TlbAccess& access_at(uint64_t linear) const { return accesses[index(linear)]; }
  [[nodiscard]] uint32_t& exec_id_at(uint64_t linear) { return exec_ids[index(linear)]; }
  void clear(size_t number) {
    TlbEntry& entry = entries[number];
    accesses[number].read_tag = accesses[number].write_tag = entry.exec_tag = entry.linear = kNoTag;
    entry.rights = 0;
    exec_ids[number] = 0;
  }
  // Puts the filled entry at `linear` on its lists and filters.
  void note_filled(uint64_t linear);
  void flush(bool keep_global);
  // Drops the page that holds `linear`, all 4 KiB slices of it when it is a large one.
  void flush_page(uint64_t linear);
};

inline constexpr uint64_t page_of(uint64_t linear) { return linear & ~(kPageSize - 1); }

// A stretch of guest-physical memory with host memory behind it, remembered from the flat view.
struct PhysicalRange {
  Gpa start = 0;
  Gpa end = 0;              // exclusive; equal to start: empty
  uint8_t* host = nullptr;  // of `start`
  RamBlock* block = nullptr;
  uint64_t block_offset = 0;  // of `start`
  bool writable = false;
  bool traps_writes = false;  // not writable, but somebody listens: the commands of a flash chip
};

}  // namespace kite::cpu

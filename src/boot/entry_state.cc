#include "boot/entry_state.h"

#include <array>

#include "support/bits.h"

namespace kite::boot {
namespace {

// Access rights as SegmentRegister::attributes has them [SDM 3C table 25-2]: present, accessed, 4 KiB granules.
constexpr uint32_t kCode32 = 0xc09b, kCode64 = 0xa09b, kData = 0xc093, kBusyTss = 0x8b, kLdt = 0x82;
constexpr uint32_t kFlatLimit = 0xffffffff;
// [SDM 3A] 4.5: present, writable, and 2 MiB page.
constexpr uint64_t kTable = 0x3, kLargePage = 0x83;

constexpr uint32_t code_rights(EntryMode mode) { return mode == EntryMode::kLong ? kCode64 : kCode32; }

// [SDM 3A] 3.4.5: base 0, limit FFFFFh.
constexpr uint64_t descriptor(uint32_t rights) {
  return 0x000f'0000'0000'ffff | uint64_t{rights & 0xff} << 40 | uint64_t{(rights >> 12) & 0xf} << 52;
}

x86::ArchState flat_entry(uint64_t gdt, uint64_t entry, EntryMode mode) {
  x86::ArchState state;
  state.reset(true, true, 0);
  state.gpr = {};
  state.rip = entry;
  state.seg.fill({.selector = kBootDs, .attributes = kData, .limit = kFlatLimit, .base = 0});
  state.seg[static_cast<size_t>(x86::Seg::kCs)] = {
      .selector = kBootCs, .attributes = code_rights(mode), .limit = kFlatLimit, .base = 0};
  // [PVH] a 32-bit TSS at 0 with limit 67h; the other protocols say nothing of it.
  state.tr = {.selector = 0, .attributes = kBusyTss, .limit = 0x67, .base = 0};
  state.ldtr = {.selector = 0, .attributes = kLdt, .limit = 0xffff, .base = 0};
  state.gdtr = {.base = gdt, .limit = kGdtBytes - 1};
  state.idtr = {.base = 0, .limit = 0};  // an exception before the kernel has a table of its own ends in a reset
  state.cr0 = x86::cr0::kPe | x86::cr0::kEt;
  return state;
}

}  // namespace

Result<> write_flat_gdt(GuestMemory& memory, uint64_t address, EntryMode mode) {
  const std::array<uint64_t, kGdtBytes / 8> table = {0, 0, descriptor(code_rights(mode)), descriptor(kData)};
  return memory.store(address, table);
}

Result<> write_identity_tables(GuestMemory& memory, uint64_t address) {
  constexpr uint64_t kDirectories = 4;  // 1 GiB each
  std::array<uint64_t, 512> page{};
  page[0] = (address + kPageSize) | kTable;
  KITE_TRY(memory.store(address, page));
  for (uint64_t i = 0; i < kDirectories; ++i) page[i] = (address + (2 + i) * kPageSize) | kTable;
  KITE_TRY(memory.store(address + kPageSize, page));
  for (uint64_t i = 0; i < kDirectories; ++i) {
    for (uint64_t entry = 0; entry < 512; ++entry) page[entry] = (i << 30) | (entry << 21) | kLargePage;
    KITE_TRY(memory.store(address + (2 + i) * kPageSize, page));
  }
  return {};
}

x86::ArchState protected_mode_entry(uint64_t gdt, uint32_t entry) {
  return flat_entry(gdt, entry, EntryMode::kProtected32);
}

x86::ArchState long_mode_entry(uint64_t gdt, uint64_t tables, uint64_t entry) {
  x86::ArchState state = flat_entry(gdt, entry, EntryMode::kLong);
  state.cr0 |= x86::cr0::kPg | x86::cr0::kNe;
  state.cr3 = tables;
  state.cr4 = x86::cr4::kPae;
  state.efer = x86::efer::kLme | x86::efer::kLma;
  return state;
}

}  // namespace kite::boot

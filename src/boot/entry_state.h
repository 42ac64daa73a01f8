// The processor as boot protocols want it at the kernel's first instruction.
#pragma once

#include <cstdint>

#include "memory/guest_memory.h"
#include "x86/arch_state.h"

namespace kite::boot {

// Selectors of the table that write_flat_gdt() leaves; [boot.rst] "64-bit BOOT PROTOCOL": __BOOT_CS and __BOOT_DS.
inline constexpr uint16_t kBootCs = 0x10;
inline constexpr uint16_t kBootDs = 0x18;
inline constexpr uint64_t kGdtBytes = 4 * 8;

enum class EntryMode : uint8_t { kProtected32, kLong };

// Writes the descriptors of both selectors, flat over 4 GiB, to `address` (8-byte aligned).
Result<> write_flat_gdt(GuestMemory& memory, uint64_t address, EntryMode mode);

// Identity page tables for the first 4 GiB with 2 MiB pages; `address` is page-aligned.
inline constexpr uint64_t kIdentityTableBytes = 6 * kPageSize;
Result<> write_identity_tables(GuestMemory& memory, uint64_t address);

// A complete state: paging off, interrupts off, flat segments, the descriptor table at `gdt`.
x86::ArchState protected_mode_entry(uint64_t gdt, uint32_t entry);
// Paging on through `tables`.
x86::ArchState long_mode_entry(uint64_t gdt, uint64_t tables, uint64_t entry);

}  // namespace kite::boot

// Q35 memory controller hub (MCH), device 0: configuration registers. [Q35] Intel 3 Series Express Chipset Family
// datasheet, 316966-002, chapter 5. Two registers of virtual machines lie in its gaps: EXT_TSEG_MBYTES and F_SMBASE,
// which firmware (OVMF) uses to size system management RAM [EDK2 OvmfPkg/Include/IndustryStandard/Q35MchIch9.h].
#pragma once

#include <cstdint>

namespace kite::devices::mch_regs {

enum Reg : uint8_t {
  kExtTsegMbytes = 0x50,  // rw  write 0xffff, then read: the extended TSEG's size in MiB, 16 bits
  kPciexbar = 0x60,       // rw  5.1.13 base of memory-mapped configuration, 64 bits
  kPam0 = 0x90,           // rw  5.1.15 programmable attribute map, 7 registers
  kLac = 0x97,            // rw  5.1.22 legacy access control
  kFSmbase = 0x9c,        // rw  SMRAM at the processors' initial SMBASE
  kSmram = 0x9d,          // rw  5.1.33 system management RAM control
  kEsmramc = 0x9e,        // rw  5.1.34 extended system management RAM control
  // What firmware notes of the memory map, until SMRAM is locked; TSEG ends where RAM below 4 GiB does, whatever they
  // say.
  kTom = 0xa0,     // rwl 5.1.35 top of memory, in 64 MiB
  kTouud = 0xa2,   // rwl 5.1.36 top of upper usable DRAM, in MiB
  kGbsm = 0xa4,    // rwl 5.1.37 graphics base of stolen memory
  kBgsm = 0xa8,    // rwl 5.1.38 base of GTT stolen memory
  kTsegmb = 0xac,  // rwl 5.1.39 TSEG memory base
  kTolud = 0xb0,   // rwl 5.1.40 top of low usable DRAM
};

inline constexpr uint16_t kExtTsegQuery = 0xffff;

// PCIEXBAR.
inline constexpr uint64_t kPciexbarEnable = 1;
inline constexpr unsigned kPciexbarLengthShift = 1;          // 2 bits: 0 256 MiB, 1 128 MiB, 2 64 MiB, 3 reserved
inline constexpr uint64_t kPciexbarAddress = 0xf'f000'0000;  // 35:28; lengths below 256 MiB add bits 27 and 26
inline constexpr uint64_t kPciexbarBit27 = 1u << 27, kPciexbarBit26 = 1u << 26;

// SMRAM.
inline constexpr uint8_t kSmramOpen = 1u << 6;    // visible outside system management mode
inline constexpr uint8_t kSmramClosed = 1u << 5;  // data accesses in that mode reach what lies under it
inline constexpr uint8_t kSmramLock = 1u << 4;
inline constexpr uint8_t kSmramEnable = 1u << 3;
inline constexpr uint8_t kSmramBase = 2;  // C_BASE_SEG: 0xa0000, the only choice

// ESMRAMC.
inline constexpr uint8_t kEsmramHigh = 1u << 7;   // the 128 KiB appear at 0xfeda0000 instead
inline constexpr uint8_t kEsmramError = 1u << 6;  // w1c
inline constexpr uint8_t kEsmramCache = 7u << 3;  // read as ones
inline constexpr unsigned kTsegSizeShift = 1;     // 2 bits: 1, 2, 8 MiB; 3: EXT_TSEG_MBYTES
inline constexpr uint8_t kTsegSize = 3u << kTsegSizeShift;
inline constexpr uint8_t kTsegEnable = 1u << 0;

// Bits of the notes.
inline constexpr uint16_t kTomBits = 0x03ff, kTouudBits = 0xffff, kToludBits = 0xfff0;
inline constexpr uint32_t kStolenBits = 0xfff0'0000;  // GBSM, BGSM, TSEGMB
inline constexpr uint16_t kTomAfterReset = 0x0001, kToludAfterReset = 0x0010;

// F_SMBASE: 0xff asks, 1 answers that there is such RAM, 2 takes it until the next reset.
inline constexpr uint8_t kSmbaseQuery = 0xff, kSmbaseOffered = 1, kSmbaseLocked = 2;
inline constexpr uint64_t kSmbaseStart = 0x30000, kSmbaseSize = 0x20000;

inline constexpr uint64_t kHighSmram = 0xfeda0000;

}  // namespace kite::devices::mch_regs

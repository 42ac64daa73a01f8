// 82441FX PCI and Memory Controller (PMC): configuration registers. [440FX] Intel 290549-001, May 1996.
#pragma once

#include <cstdint>

namespace kite::devices::i440fx_regs {

enum Reg : uint8_t {
  kPmccfg = 0x50,   // rw  3.2.11 PMC configuration, 16 bits
  kDeturbo = 0x52,  // rw  3.2.12 deturbo counter
  kDbc = 0x53,      // rw  3.2.13 DRAM buffer control
  kAxc = 0x54,      // rw  3.2.14 auxiliary control
  kDrt = 0x55,      // rw  3.2.15 DRAM row type, 16 bits
  kDramc = 0x57,    // rw  3.2.16 DRAM control
  kDramt = 0x58,    // rw  3.2.17 DRAM timing
  kPam0 = 0x59,     // rw  3.2.18 programmable attribute map, 7 registers
  kDrb0 = 0x60,     // rw  3.2.19 DRAM row boundary, 8 registers
  kFdhc = 0x68,     // rw  3.2.20 fixed DRAM hole control
  kMtt = 0x70,      // rw  3.2.21 multi-transaction timer
  kClt = 0x71,      // rw  3.2.22 CPU latency timer
  kSmram = 0x72,    // rw  3.2.23 system management RAM control
  kErrcmd = 0x90,   // rw  3.2.24 error command
  kErrsts = 0x91,   // rwc 3.2.25 error status
  kTrc = 0x93,      // rw  3.2.26 turbo reset control
};

inline constexpr uint16_t kPmccfgWpe = 1u << 15;  // write-posting for several processors (WSC# protocol)

// SMRAM: [440FX] 3.2.23.
inline constexpr uint8_t kSmramOpen = 1u << 6;
inline constexpr uint8_t kSmramClosed = 1u << 5;
inline constexpr uint8_t kSmramLock = 1u << 4;
inline constexpr uint8_t kSmramEnable = 1u << 3;
inline constexpr uint8_t kSmramBase = 2;  // C_BASE_SEG: 0xA0000-0xBFFFF, the only choice

}  // namespace kite::devices::i440fx_regs

// 82371AB PIIX4, function 3 (power management). [PIIX4] Intel 290562-001, April 1997; [ACPI 6.4] 4.8.
#pragma once

#include <cstdint>

namespace kite::devices::piix4_pm_regs {

// Configuration space.
enum Reg : uint8_t {
  kPmba = 0x40,        // rw  7.1.10 power management base, 32 bits: [15:6] base, [0] reads 1
  kDevresBase = 0x50,  // rw  7.1.13 device resources, up to 0x7b: kept, they steer nothing
  kDevresEnd = 0x7c,
  kDevactb = 0x58,    // rw  7.1.15 device activity B, 32 bits
  kPmregmisc = 0x80,  // rw  7.1.22 [0] PMIOSE: the I/O space answers
};
inline constexpr uint16_t kPmbaMask = 0xffc0;
inline constexpr uint8_t kPmiose = 1;
inline constexpr uint32_t kApmcEn = 1u << 25;  // DEVACTB: writes of the APM command port raise SMIs

// I/O space at PMBA.
inline constexpr uint64_t kPmSize = 64;
// SLP_TYP of PMCNTRL: [PIIX4] 7.2.3. The registers themselves are in acpi_pm/acpi_pm_regs.h.

// General purpose events, a block of its own outside PMBA as this machine's ACPI tables name it.
inline constexpr uint16_t kGpePort = 0xafe0;
inline constexpr uint64_t kGpeSize = 4;  // 16 status bits, 16 enable bits

// Advanced power management ports: [PIIX4] 7.3. Without SMM the two values below act directly on SCI_EN.
inline constexpr uint16_t kApmPort = 0xb2;  // APMC at 0xb2, APMS at 0xb3
inline constexpr uint8_t kApmAcpiEnable = 0xf1;
inline constexpr uint8_t kApmAcpiDisable = 0xf0;

}  // namespace kite::devices::piix4_pm_regs

// 82371AB PIIX4, function 3 (power management). [PIIX4] Intel 290562-001, April 1997; [ACPI 6.4] 4.8.
#pragma once

#include <cstdint>

namespace kite::devices::piix4_pm_regs {

// Configuration space.
enum Reg : uint8_t {
  kPmba = 0x40,        // rw  7.1.10 power management base, 32 bits: [15:6] base, [0] reads 1
  kDevresBase = 0x50,  // rw  7.1.13 device resources, up to 0x7b: kept, they steer nothing
  kDevresEnd = 0x7c,
  kPmregmisc = 0x80,  // rw  7.1.22 [0] PMIOSE: the I/O space answers
};
inline constexpr uint16_t kPmbaMask = 0xffc0;
inline constexpr uint8_t kPmiose = 1;

// I/O space at PMBA.
inline constexpr uint64_t kPmSize = 64;
enum PmReg : uint8_t {
  kPmsts = 0x00,    // rwc 7.2.1 status, 16 bits
  kPmen = 0x02,     // rw  7.2.2 enable, 16 bits
  kPmcntrl = 0x04,  // rw  7.2.3 control, 16 bits
  kPmtmr = 0x08,    // r   7.2.4 timer, 24 of 32 bits
};

// PMSTS and PMEN: [ACPI 6.4] 4.8.3.1.
inline constexpr uint16_t kTmr = 1u << 0;     // the timer's bit 23 changed
inline constexpr uint16_t kBm = 1u << 4;      // status only: a bus master was active
inline constexpr uint16_t kGbl = 1u << 5;     // the firmware wants attention
inline constexpr uint16_t kPwrbtn = 1u << 8;  // power button
inline constexpr uint16_t kRtc = 1u << 10;    // RTC alarm
inline constexpr uint16_t kWak = 1u << 15;    // status only: woken up
inline constexpr uint16_t kStatusBits = kTmr | kBm | kGbl | kPwrbtn | kRtc | kWak;
inline constexpr uint16_t kEnableBits = kTmr | kGbl | kPwrbtn | kRtc;

// PMCNTRL: [ACPI 6.4] 4.8.3.2.
inline constexpr uint16_t kSciEn = 1u << 0;
inline constexpr uint16_t kBmRld = 1u << 1;
inline constexpr uint16_t kGblRls = 1u << 2;  // write only
inline constexpr unsigned kSlpTypShift = 10;
inline constexpr uint16_t kSlpTyp = 7u << kSlpTypShift;
inline constexpr uint16_t kSlpEn = 1u << 13;  // write only
inline constexpr uint16_t kControlBits = kSciEn | kBmRld | kSlpTyp;
inline constexpr uint8_t kSlpTypSoftOff = 0;  // [PIIX4] 7.2.3: S5

// Timer: [PIIX4] 7.2.4.
inline constexpr int64_t kTimerHz = 3'579'545;
inline constexpr uint32_t kTimerMask = 0xffffff;
inline constexpr int64_t kTimerHalfPeriod = 0x800000;  // ticks between two changes of bit 23

// General purpose events, a block of its own outside PMBA as this machine's ACPI tables name it.
inline constexpr uint16_t kGpePort = 0xafe0;
inline constexpr uint64_t kGpeSize = 4;  // 16 status bits, 16 enable bits

// Advanced power management ports: [PIIX4] 7.3. Without SMM the two values below act directly on SCI_EN.
inline constexpr uint16_t kApmPort = 0xb2;  // APMC at 0xb2, APMS at 0xb3
inline constexpr uint8_t kApmAcpiEnable = 0xf1;
inline constexpr uint8_t kApmAcpiDisable = 0xf0;

}  // namespace kite::devices::piix4_pm_regs

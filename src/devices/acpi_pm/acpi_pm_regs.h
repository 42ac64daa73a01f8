// ACPI fixed hardware as Intel's chip sets lay it out at their power management base. [ACPI 6.4] 4.8; [PIIX4] 7.2;
// [ICH9] 13.8.3.
#pragma once

#include <cstdint>

namespace kite::devices::acpi_pm_regs {

// Offsets from the base. What lies above differs from chip set to chip set.
enum PmReg : uint8_t {
  kPm1Sts = 0x00,  // rwc status, 16 bits
  kPm1En = 0x02,   // rw  enable, 16 bits
  kPm1Cnt = 0x04,  // rw  control, 16 bits (32 with reserved ones)
  kPmTmr = 0x08,   // r   timer, 24 of 32 bits
  kPm1End = 0x0c,
};

// PM1_STS and PM1_EN: [ACPI 6.4] 4.8.3.1.
inline constexpr uint16_t kTmr = 1u << 0;     // the timer's bit 23 changed
inline constexpr uint16_t kBm = 1u << 4;      // status only: a bus master was active
inline constexpr uint16_t kGbl = 1u << 5;     // the firmware wants attention
inline constexpr uint16_t kPwrbtn = 1u << 8;  // power button
inline constexpr uint16_t kRtc = 1u << 10;    // RTC alarm
inline constexpr uint16_t kWak = 1u << 15;    // status only: woken up
inline constexpr uint16_t kStatusBits = kTmr | kBm | kGbl | kPwrbtn | kRtc | kWak;
inline constexpr uint16_t kEnableBits = kTmr | kGbl | kPwrbtn | kRtc;

// PM1_CNT: [ACPI 6.4] 4.8.3.2.
inline constexpr uint16_t kSciEn = 1u << 0;
inline constexpr uint16_t kBmRld = 1u << 1;
inline constexpr uint16_t kGblRls = 1u << 2;  // write only
inline constexpr unsigned kSlpTypShift = 10;
inline constexpr uint16_t kSlpTyp = 7u << kSlpTypShift;
// What the sleep types stand for on virtual machines, whatever the chip set: firmware and small guests write 0 to power
// off.
inline constexpr uint8_t kSlpTypS5 = 0, kSlpTypS3 = 1, kSlpTypS4 = 2;
inline constexpr uint16_t kSlpEn = 1u << 13;  // write only
inline constexpr uint16_t kControlBits = kSciEn | kBmRld | kSlpTyp;

// Timer: [ACPI 6.4] 4.8.2.1.
inline constexpr int64_t kTimerHz = 3'579'545;
inline constexpr uint32_t kTimerMask = 0xffffff;
inline constexpr int64_t kTimerHalfPeriod = 0x800000;  // ticks between two changes of bit 23

}  // namespace kite::devices::acpi_pm_regs

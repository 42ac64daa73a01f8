// ICH9 LPC bridge, D31:F0: configuration, root complex and power management registers. [ICH9] Intel I/O Controller Hub
// 9 datasheet, 316972-004.
#pragma once

#include <cstdint>

namespace kite::devices::ich9_lpc_regs {

enum Reg : uint8_t {
  kPmbase = 0x40,     // rw  13.1.13 ACPI base address, 32 bits: [15:7], [0] reads 1
  kAcpiCntl = 0x44,   // rw  13.1.14 ACPI control
  kGpiobase = 0x48,   // rw  13.1.15 GPIO base address, 32 bits: kept, no GPIO answers
  kGc = 0x4c,         // rw  13.1.16 GPIO control
  kPirqaRout = 0x60,  // rw  13.1.17 PIRQA..D routing
  kSirqCntl = 0x64,   // rw  13.1.18 serial IRQ control
  kPirqeRout = 0x68,  // rw  13.1.19 PIRQE..H routing
  kLpcIoDec = 0x80,   // rw  13.1.22 I/O decode ranges, 16 bits
  kLpcEn = 0x82,      // rw  13.1.23 LPC enables, 16 bits
  kGen1Dec = 0x84,    // rw  13.1.24 generic decode ranges 1 to 4, 32 bits each
  kGenPmcon1 = 0xa0,  // rw  13.8.1.1 general power management configuration 1, 16 bits
  kGenPmcon2 = 0xa2,  // rw  13.8.1.2
  kGenPmcon3 = 0xa4,  // rw  13.8.1.4, 16 bits
  kBiosCntl = 0xdc,   // rw  13.1.33 BIOS control
  kRcba = 0xf0,       // rw  13.1.36 root complex base address, 32 bits: [31:14], [0] enable
};

inline constexpr uint32_t kPmbaseAddress = 0xff80;
inline constexpr uint8_t kAcpiEnable = 1u << 7;  // ACPI_CNTL
inline constexpr uint8_t kSciIrqSelect = 7;      // 0..2 IRQ 9..11, 4..7 IRQ 20..23
inline constexpr uint8_t kPirqDisabled = 1u << 7, kPirqIrqMask = 0x0f;
// ISA interrupts a PIRQ may be steered to: 3-7, 9-12, 14, 15; the others are reserved.
inline constexpr uint16_t kPirqAllowed = 0xdef8;
inline constexpr uint16_t kSmiLock = 1u << 4;  // GEN_PMCON_1: SMI_EN.GBL_SMI_EN cannot change any more
inline constexpr uint32_t kRcbaAddress = 0xffffc000, kRcbaEnable = 1;

// Root complex register block. 10.1.
inline constexpr uint64_t kRcrbSize = 0x4000;
enum RootReg : uint16_t {
  kD31ip = 0x3100,  // r-  interrupt pins of device 31; 30..25 follow at +4 each
  kD31ir = 0x3140,  // rw  interrupt routes, 16 bits: four nibbles, PIRQA..H a pin
  kOic = 0x31fe,    // rw  other interrupt control, 16 bits
  kHptc = 0x3404,   // rw  high precision timer configuration, 32 bits: kept, the HPET is always at 0xfed00000
  kGcs = 0x3410,    // rw  general control and status, 32 bits
};
inline constexpr uint32_t kGcsNoReboot = 1u << 5;
inline constexpr uint16_t kInterruptRoutesReset = 0x3210;

// I/O space at PMBASE. 13.8.3; below kGpe0 as acpi_pm_regs.h has it.
inline constexpr uint64_t kPmSize = 0x80;
enum PmReg : uint8_t {
  kGpe0 = 0x20,    // 64 status bits, 64 enable bits
  kSmiEn = 0x30,   // rw  13.8.3.12, 32 bits
  kSmiSts = 0x34,  // rwc 13.8.3.13, 32 bits
  kPmEnd = 0x38,
  kTco = 0x60,  // tco_regs.h
};
inline constexpr unsigned kGpeEvents = 64;

// SMI_EN and SMI_STS.
inline constexpr uint32_t kGblSmiEn = 1u << 0;
inline constexpr uint32_t kEos = 1u << 1;  // write only here: asks for the next one
inline constexpr uint32_t kApmcEn = 1u << 5;
inline constexpr uint32_t kTcoEn = 1u << 13;
inline constexpr uint32_t kSmiEnBits =
    kGblSmiEn | 1u << 2 | 1u << 3 | 1u << 4 | kApmcEn | 1u << 6 | 1u << 11 | kTcoEn | 1u << 14 | 1u << 17 | 1u << 18;
inline constexpr uint32_t kApmSts = 1u << 5, kTcoSts = 1u << 13;
inline constexpr uint32_t kSmiStsBits = kApmSts | kTcoSts;

// Advanced power management ports, 13.7.1; the two values are what firmware and this machine's tables agree on.
inline constexpr uint16_t kApmPort = 0xb2;
inline constexpr uint8_t kApmAcpiEnable = 0x02, kApmAcpiDisable = 0x03;

}  // namespace kite::devices::ich9_lpc_regs

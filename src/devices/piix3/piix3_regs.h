// 82371SB PIIX3, function 0 (PCI to ISA bridge): configuration registers and the reset control port.
// [PIIX3] Intel 290550-002, April 1997.
#pragma once

#include <cstdint>

namespace kite::devices::piix3_regs {

enum Reg : uint8_t {
  kIort = 0x4c,      // rw  2.2.10 ISA I/O recovery timer
  kXbcs = 0x4e,      // rw  2.2.11 X-bus chip select, 16 bits
  kPirqrcA = 0x60,   // rw  2.2.12 PIRQ route control A..D
  kTom = 0x69,       // rw  2.2.13 top of memory
  kMstat = 0x6a,     // rw  2.2.14 miscellaneous status, 16 bits
  kMbirq0 = 0x70,    // rw  2.2.15 motherboard IRQ route control
  kMbdma0 = 0x76,    // rw  2.2.16 motherboard DMA control 0 and 1
  kPcsc = 0x78,      // rw  2.2.17 programmable chip select, 16 bits
  kApicbase = 0x80,  // rw  2.2.18 APIC base address relocation
  kDlc = 0x82,       // rw  2.2.19 deterministic latency control
  kSmicntl = 0xa0,   // rw  2.2.20 SMI control
  kSmien = 0xa2,     // rw  2.2.21 SMI enable, 16 bits
  kSee = 0xa4,       // rw  2.2.22 system event enable, 32 bits
  kFtmr = 0xa8,      // rw  2.2.23 fast off timer
  kSmireq = 0xaa,    // rw  2.2.24 SMI request, 16 bits
  kCtltmr = 0xac,    // rw  2.2.25 clock throttle STPCLK# low timer
  kCthtmr = 0xae,    // rw  2.2.26 clock throttle STPCLK# high timer
};

// PIRQRC: [PIIX3] 2.2.12.
inline constexpr uint8_t kPirqDisabled = 1u << 7;
inline constexpr uint8_t kPirqIrqMask = 0x0f;
// ISA interrupts a PIRQ may be steered to: 3-7, 9-12, 14, 15; the others are reserved.
inline constexpr uint16_t kPirqAllowed = 0xdef8;

}  // namespace kite::devices::piix3_regs

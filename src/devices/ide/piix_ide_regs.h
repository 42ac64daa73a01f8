// Configuration space of the IDE function of PIIX3 and PIIX4. [PIIX3] Intel 290550-002, 2.4; [PIIX4] 290562-001, 4.1.
#pragma once

#include <cstdint>

namespace kite::devices::piix_ide_regs {

enum Reg : uint8_t {
  kIdetim = 0x40,   // rw  timing of the primary channel, 16 bits; the secondary's follows at 0x42
  kSidetim = 0x44,  // rw  timing of both devices 1
  kUdmactl = 0x48,  // rw  PIIX4: which devices use ultra DMA
  kUdmatim = 0x4a,  // rw  PIIX4: its timing, 16 bits
};
inline constexpr uint16_t kDecode = 0x8000;  // IDETIM: the channel's legacy ports answer

inline constexpr uint16_t kPrimaryPorts = 0x1f0, kPrimaryControl = 0x3f6, kSecondaryPorts = 0x170,
                          kSecondaryControl = 0x376;
inline constexpr unsigned kPrimaryIrq = 14, kSecondaryIrq = 15;

}  // namespace kite::devices::piix_ide_regs

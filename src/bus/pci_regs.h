// Configuration space, header type 0. [PCI 3.0] 6.1, 6.2.
#pragma once

#include <cstdint>

namespace kite::bus::pci {

inline constexpr uint8_t kVendorId = 0x00;           // r-
inline constexpr uint8_t kDeviceId = 0x02;           // r-
inline constexpr uint8_t kCommand = 0x04;            // rw  below
inline constexpr uint8_t kStatus = 0x06;             // r-/w1c  below
inline constexpr uint8_t kRevisionId = 0x08;         // r-
inline constexpr uint8_t kClassCode = 0x09;          // r-  3 bytes: interface, subclass, class
inline constexpr uint8_t kCacheLineSize = 0x0c;      // rw
inline constexpr uint8_t kLatencyTimer = 0x0d;       // rw
inline constexpr uint8_t kHeaderType = 0x0e;         // r-
inline constexpr uint8_t kBar0 = 0x10;               // rw  6 dwords
inline constexpr uint8_t kSubsystemVendorId = 0x2c;  // r-
inline constexpr uint8_t kSubsystemId = 0x2e;        // r-
inline constexpr uint8_t kInterruptLine = 0x3c;      // rw  scratch: firmware tells the system which IRQ
inline constexpr uint8_t kInterruptPin = 0x3d;       // r-
inline constexpr uint8_t kHeaderEnd = 0x40;          // device-specific from here

// kCommand
inline constexpr uint16_t kCommandIo = 1u << 0, kCommandMemory = 1u << 1, kCommandMaster = 1u << 2,
                          kCommandParity = 1u << 6, kCommandSerr = 1u << 8, kCommandIntxDisable = 1u << 10;
// kStatus
inline constexpr uint16_t kStatusInterrupt = 1u << 3, kStatusCapabilities = 1u << 4, kStatusFastBackToBack = 1u << 7,
                          kStatusDevselMedium = 1u << 9;
inline constexpr uint16_t kStatusErrors = 0xf900;  // w1c: parity, signalled and received aborts, system error
// kHeaderType
inline constexpr uint8_t kMultifunction = 0x80;
// A BAR
inline constexpr uint32_t kBarIo = 1, kBar64 = 4, kBarPrefetchable = 8;

}  // namespace kite::bus::pci

// Configuration space: header types 0 [PCI 3.0] 6.1, 6.2 and 1 [PCI bridge 1.2] 3.2, capability lists.
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
inline constexpr uint8_t kRomAddress = 0x30;         // rw  expansion ROM; bit 0 enables it
inline constexpr uint8_t kCapabilities = 0x34;       // r-  offset of the first capability
inline constexpr uint8_t kInterruptLine = 0x3c;      // rw  scratch: firmware tells the system which IRQ
inline constexpr uint8_t kInterruptPin = 0x3d;       // r-
inline constexpr uint8_t kHeaderEnd = 0x40;          // device-specific from here

inline constexpr uint16_t kExtendedStart = 0x100;  // PCI Express only

// Header type 1.
inline constexpr uint8_t kPrimaryBus = 0x18;          // rw
inline constexpr uint8_t kSecondaryBus = 0x19;        // rw
inline constexpr uint8_t kSubordinateBus = 0x1a;      // rw
inline constexpr uint8_t kSecondaryLatency = 0x1b;    // rw
inline constexpr uint8_t kIoBase = 0x1c;              // rw  [7:4] address 15:12, [3:0] 0: 16-bit decode
inline constexpr uint8_t kIoLimit = 0x1d;             // rw
inline constexpr uint8_t kSecondaryStatus = 0x1e;     // rwc
inline constexpr uint8_t kMemoryBase = 0x20;          // rw  [15:4] address 31:20
inline constexpr uint8_t kMemoryLimit = 0x22;         // rw
inline constexpr uint8_t kPrefetchableBase = 0x24;    // rw  [15:4] address 31:20, [3:0] 1: 64-bit decode
inline constexpr uint8_t kPrefetchableLimit = 0x26;   // rw
inline constexpr uint8_t kPrefetchableBase32 = 0x28;  // rw  address 63:32
inline constexpr uint8_t kPrefetchableLimit32 = 0x2c;
inline constexpr uint8_t kBridgeControl = 0x3e;  // rw  below

// kBridgeControl
inline constexpr uint16_t kBridgeParity = 1u << 0, kBridgeSerr = 1u << 1, kBridgeIsa = 1u << 2, kBridgeVga = 1u << 3,
                          kBridgeVga16 = 1u << 4, kBridgeMasterAbort = 1u << 5, kBridgeReset = 1u << 6;

inline constexpr uint32_t kRomEnable = 1u << 0;  // kRomAddress

// Capability ids [PCI 3.0] appendix H.
inline constexpr uint8_t kCapabilityPowerManagement = 0x01, kCapabilityMsi = 0x05, kCapabilitySubsystem = 0x0d,
                         kCapabilityExpress = 0x10, kCapabilityMsix = 0x11;

// kCommand
inline constexpr uint16_t kCommandIo = 1u << 0, kCommandMemory = 1u << 1, kCommandMaster = 1u << 2,
                          kCommandParity = 1u << 6, kCommandSerr = 1u << 8, kCommandIntxDisable = 1u << 10;
// kStatus
inline constexpr uint16_t kStatusInterrupt = 1u << 3, kStatusCapabilities = 1u << 4, kStatusFastBackToBack = 1u << 7,
                          kStatusDevselMedium = 1u << 9;
inline constexpr uint16_t kStatusErrors = 0xf900;  // w1c: parity, signalled and received aborts, system error
// kHeaderType
inline constexpr uint8_t kMultifunction = 0x80, kHeaderBridge = 0x01;
// A BAR
inline constexpr uint32_t kBarIo = 1, kBar64 = 4, kBarPrefetchable = 8;

}  // namespace kite::bus::pci

// The Express capability; offsets from its start. [PCIe 3.0] 7.8.
namespace kite::bus::pcie {

inline constexpr uint8_t kFlags = 0x02;               // r-  7.8.2 version, type, slot
inline constexpr uint8_t kDeviceCapabilities = 0x04;  // r-  7.8.3, 32 bits
inline constexpr uint8_t kDeviceControl = 0x08;       // rw  7.8.4
inline constexpr uint8_t kDeviceStatus = 0x0a;        // rwc 7.8.5
inline constexpr uint8_t kLinkCapabilities = 0x0c;    // r-  7.8.6, 32 bits
inline constexpr uint8_t kLinkControl = 0x10;         // rw  7.8.7
inline constexpr uint8_t kLinkStatus = 0x12;          // r-  7.8.8
inline constexpr uint8_t kSlotCapabilities = 0x14;    // r-  7.8.9, 32 bits
inline constexpr uint8_t kSlotControl = 0x18;         // rw  7.8.10
inline constexpr uint8_t kSlotStatus = 0x1a;          // rwc 7.8.11
inline constexpr uint8_t kRootControl = 0x1c;         // rw  7.8.12
inline constexpr uint8_t kRootStatus = 0x20;          // rwc 7.8.14, 32 bits
inline constexpr uint8_t kLinkCapabilities2 = 0x2c;   // r-  7.8.18, 32 bits
inline constexpr uint8_t kLinkControl2 = 0x30;        // rw  7.8.19

inline constexpr unsigned kTypeShift = 4, kWidthShift = 4, kPortShift = 24;
inline constexpr uint16_t kSlotImplemented = 1u << 8;
inline constexpr uint32_t kRoleBasedErrors = 1u << 15;
inline constexpr uint16_t kDeviceControlBits = 0x00ff & ~0x0010;  // error reporting, payload size
inline constexpr uint16_t kDeviceStatusErrors = 0x000f;
inline constexpr uint32_t kSpeed2500 = 1;
inline constexpr uint32_t kLinkActiveReporting = 1u << 20;  // link capabilities
inline constexpr uint16_t kLinkControlBits = 0x0073;
inline constexpr uint16_t kLinkActive = 1u << 13;  // link status
inline constexpr uint16_t kRootControlBits = 0x000f;

// Slot capabilities.
inline constexpr uint32_t kSlotButton = 1u << 0, kSlotPowerController = 1u << 1, kSlotAttentionIndicator = 1u << 3,
                          kSlotPowerIndicator = 1u << 4, kSlotSurprise = 1u << 5, kSlotHotplug = 1u << 6;
inline constexpr unsigned kSlotNumberShift = 19;
// Slot control, the enables at the places of the events they enable.
inline constexpr uint16_t kInterruptEnable = 1u << 5;
inline constexpr uint16_t kAttentionIndicator = 3u << 6, kPowerIndicator = 3u << 8;
inline constexpr uint16_t kPowerIndicatorOn = 1u << 8, kPowerIndicatorOff = 3u << 8, kAttentionIndicatorOff = 3u << 6;
inline constexpr uint16_t kPowerOff = 1u << 10;  // power controller control
// Slot status.
inline constexpr uint16_t kButtonPressed = 1u << 0, kPresenceChanged = 1u << 3, kCommandCompleted = 1u << 4,
                          kPresence = 1u << 6, kLinkStateChanged = 1u << 8;

}  // namespace kite::bus::pcie

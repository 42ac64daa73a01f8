// What [VIRTIO 1.2] numbers that is no business of one device type: status, features, rings, the PCI transport.
#pragma once

#include <cstdint>

namespace kite::devices::virtio {

// 2.1 Device status.
enum Status : uint8_t {
  kAcknowledge = 1,
  kDriver = 2,
  kDriverOk = 4,
  kFeaturesOk = 8,
  kNeedsReset = 64,
  kFailed = 128,
};

// 6 Reserved feature bits, as masks. Bits 24 to 41 are not a device type's.
inline constexpr uint64_t kNotifyOnEmpty = uint64_t{1} << 24;   // 6.3, legacy
inline constexpr uint64_t kAnyLayout = uint64_t{1} << 27;       // 6.3, legacy
inline constexpr uint64_t kIndirect = uint64_t{1} << 28;        // 2.7.5.3
inline constexpr uint64_t kEventIndex = uint64_t{1} << 29;      // 2.7.7, 2.7.8
inline constexpr uint64_t kVersion1 = uint64_t{1} << 32;        // without it: a legacy driver
inline constexpr uint64_t kAccessPlatform = uint64_t{1} << 33;  // addresses are those of the platform's IOMMU
inline constexpr uint64_t kRingPacked = uint64_t{1} << 34;      // 2.8
inline constexpr uint64_t kRingReset = uint64_t{1} << 40;       // 2.6.1
inline constexpr uint64_t kLegacyFeatures = 0xffffffff;         // what the legacy interface shows

inline constexpr uint16_t kNoVector = 0xffff;  // 4.1.5.1.2
inline constexpr uint16_t kMostQueueSize = 1024;
inline constexpr uint16_t kMostQueues = 1024;
// A longer chain is a loop or an attack; drivers that keep to the queue size stay below.
inline constexpr unsigned kMostDescriptors = 1024;

// 2.7.5 Split descriptors: u64 address, u32 length, u16 flags, u16 next. 2.8.13 Packed ones: u64 address, u32 length,
// u16 buffer id, u16 flags.
inline constexpr unsigned kDescriptorBytes = 16;
enum DescriptorFlag : uint16_t {
  kNext = 1u << 0,
  kWrite = 1u << 1,
  kTable = 1u << 2,  // INDIRECT
  kAvail = 1u << 7,  // packed
  kUsed = 1u << 15,  // packed
};

// 2.7.6, 2.7.8 The split rings: u16 flags, u16 index, entries, u16 event.
inline constexpr uint16_t kNoInterrupt = 1;  // avail flags
inline constexpr uint16_t kNoNotify = 1;     // used flags
inline constexpr unsigned kRingHeader = 4, kAvailEntry = 2, kUsedEntry = 8;
inline constexpr unsigned kLegacyAlign = 4096;  // 2.7.2, and the unit of the legacy queue address

// 2.8.14 Event suppression of packed rings: u16 offset and wrap, u16 flags.
enum EventFlags : uint16_t { kEventsOn = 0, kEventsOff = 1, kEventsAt = 2 };
inline constexpr unsigned kEventBytes = 4;

}  // namespace kite::devices::virtio

// The PCI transport. [VIRTIO 1.2] 4.1.
namespace kite::devices::virtio_pci {

inline constexpr uint16_t kVendor = 0x1af4;
inline constexpr uint16_t kModernBase = 0x1040;  // 4.1.2.1: plus the type of the device

// 4.1.4 cfg_type.
enum CapabilityType : uint8_t { kCommonCap = 1, kNotifyCap = 2, kIsrCap = 3, kDeviceCap = 4, kPciCap = 5 };
inline constexpr uint8_t kVendorCapability = 0x09;
inline constexpr uint8_t kCapBytes = 16, kNotifyCapBytes = 20, kPciCapBytes = 20;
// Fields of a capability.
inline constexpr uint8_t kCapLength = 2, kCapType = 3, kCapBar = 4, kCapOffset = 8, kCapRange = 12, kCapExtra = 16;

// 4.1.4.3 Common configuration.
enum Common : uint8_t {
  kDeviceFeatureSelect = 0x00,  // rw  32
  kDeviceFeature = 0x04,        // r-  32
  kDriverFeatureSelect = 0x08,  // rw  32
  kDriverFeature = 0x0c,        // rw  32
  kConfigVector = 0x10,         // rw  16
  kNumQueues = 0x12,            // r-  16
  kDeviceStatus = 0x14,         // rw  8
  kConfigGeneration = 0x15,     // r-  8
  kQueueSelect = 0x16,          // rw  16
  kQueueSize = 0x18,            // rw  16
  kQueueVector = 0x1a,          // rw  16
  kQueueEnable = 0x1c,          // rw  16
  kQueueNotifyOffset = 0x1e,    // r-  16
  kQueueDescriptors = 0x20,     // rw  64
  kQueueDriver = 0x28,          // rw  64
  kQueueDevice = 0x30,          // rw  64
  kQueueNotifyData = 0x38,      // r-  16  only with NOTIF_CONFIG_DATA, which is not offered
  kQueueReset = 0x3a,           // rw  16  with RING_RESET
  kCommonBytes = 0x3c,
};

// 4.1.4.8 The legacy interface in BAR 0; little-endian here, as the guest is.
enum Legacy : uint8_t {
  kLegacyDeviceFeatures = 0x00,  // r-  32
  kLegacyDriverFeatures = 0x04,  // rw  32
  kLegacyQueueAddress = 0x08,    // rw  32, pages
  kLegacyQueueSize = 0x0c,       // r-  16
  kLegacyQueueSelect = 0x0e,     // rw  16
  kLegacyQueueNotify = 0x10,     // -w  16
  kLegacyStatus = 0x12,          // rw  8
  kLegacyIsr = 0x13,             // r-  8
  kLegacyConfigVector = 0x14,    // rw  16, while MSI-X is enabled
  kLegacyQueueVector = 0x16,     // rw  16, while MSI-X is enabled
  kLegacyHeader = 0x14,          // the device's configuration follows here,
  kLegacyHeaderMsix = 0x18,      // or here while MSI-X is enabled
};

enum Isr : uint8_t { kIsrQueue = 1, kIsrConfig = 2 };  // 4.1.4.5

}  // namespace kite::devices::virtio_pci

// The network device. [VIRTIO 1.2] 5.1.
#pragma once

#include <cstdint>

namespace kite::devices::virtio_net {

inline constexpr uint16_t kType = 1;
inline constexpr uint16_t kLegacyDeviceId = 0x1000;
inline constexpr uint32_t kClass = 0x020000;  // Ethernet controller

// 5.1.2, without control queue and multiqueue: these two only.
enum Queue : uint16_t { kReceiveQueue = 0, kTransmitQueue = 1, kControlQueue = 2 };

// 5.1.3
inline constexpr uint64_t kChecksum = 1u << 0,  // the device completes checksums of what is sent
    kGuestChecksum = 1u << 1,                   // the driver takes what has no checksum, or a checked one
    kMtu = 1u << 3, kMac = 1u << 5, kMergeable = 1u << 15, kStatus = 1u << 16, kControl = 1u << 17,
                          kControlReceive = 1u << 18, kControlVlan = 1u << 19, kControlReceiveExtra = 1u << 20,
                          kControlMac = 1u << 23;

// 5.1.4
enum Config : uint8_t {
  kMacAt = 0,        // 48  rw for legacy drivers without CTRL_MAC_ADDR
  kStatusAt = 6,     // 16
  kMostPairsAt = 8,  // 16
  kMtuAt = 10,       // 16
  kConfigBytes = 12,
};
inline constexpr uint16_t kLinkUp = 1;
inline constexpr uint64_t kLeastMtu = 68;

// 5.1.6 In front of every frame.
enum Header : uint8_t {
  kFlagsAt = 0,           // 8
  kGsoTypeAt = 1,         // 8
  kChecksumStartAt = 6,   // 16
  kChecksumOffsetAt = 8,  // 16  from there
  kShortHeader = 10,      // legacy drivers without MRG_RXBUF
  kBuffersAt = 10,        // 16
  kHeader = 12,
};
inline constexpr uint8_t kNeedsChecksum = 1, kDataValid = 2;  // flags

// 5.1.6.5 The control queue: u8 class, u8 command, its data; then a byte of the device's.
enum ControlClass : uint8_t { kClassReceive = 0, kClassMac = 1, kClassVlan = 2 };
// kClassReceive: command n turns bit n of the modes on and off. 5.1.6.5.1.
inline constexpr uint8_t kReceiveCommands = 6, kFirstExtraCommand = 2;
enum MacCommand : uint8_t { kMacTableSet = 0, kMacAddressSet = 1 };
enum VlanCommand : uint8_t { kVlanAdd = 0, kVlanDelete = 1 };
enum Acknowledge : uint8_t { kAckOk = 0, kAckError = 1 };

}  // namespace kite::devices::virtio_net

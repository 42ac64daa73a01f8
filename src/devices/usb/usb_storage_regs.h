// What the Bulk-Only Transport numbers. [BOT] USB Mass Storage Class, Bulk-Only Transport, revision 1.0.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kite::devices::usb_storage {

// 4.3, 4.4: the interface and its endpoints.
inline constexpr uint8_t kClass = 0x08, kScsiTransparent = 0x06, kBulkOnly = 0x50;
inline constexpr uint8_t kInEndpoint = 0x81, kOutEndpoint = 0x02;

// 3.1, 3.2: requests of the class.
inline constexpr uint8_t kReset = 0xff, kGetMaxLun = 0xfe;

// 5.1 Command Block Wrapper: u32 signature, u32 tag, u32 length of the data, u8 flags, u8 lun, u8 length of the command
// block, u8 command block[16].
inline constexpr size_t kCbwBytes = 31;
inline constexpr uint32_t kCbwSignature = 0x43425355;
inline constexpr size_t kCbwTag = 4, kCbwLength = 8, kCbwFlags = 12, kCbwLun = 13, kCbwBlockLength = 14, kCbwBlock = 15;
inline constexpr uint8_t kToHost = 0x80;  // of the flags; the others are reserved
inline constexpr uint8_t kMostBlockBytes = 16;

// 5.2 Command Status Wrapper: u32 signature, u32 tag, u32 residue, u8 status.
inline constexpr size_t kCswBytes = 13;
inline constexpr uint32_t kCswSignature = 0x53425355;
inline constexpr size_t kCswTag = 4, kCswResidue = 8, kCswStatus = 12;
enum Status : uint8_t { kPassed = 0, kFailed = 1, kPhaseError = 2 };

}  // namespace kite::devices::usb_storage

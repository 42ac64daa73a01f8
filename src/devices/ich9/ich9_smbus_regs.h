// ICH9 SMBus controller, D31:F3. [ICH9] Intel 316972-004, chapter 20.
#pragma once

#include <cstdint>

namespace kite::devices::ich9_smbus_regs {

// Configuration space.
inline constexpr uint8_t kHostc = 0x40;  // rw  20.1.15 host configuration
inline constexpr uint8_t kHstEnable = 1u << 0;

// I/O space.
inline constexpr uint64_t kSmbusSize = 32;
enum Reg : uint8_t {
  kHstSts = 0x00,       // rwc 20.2.1 host status
  kHstCnt = 0x02,       // rw  20.2.2 host control
  kHstCmd = 0x03,       // rw  20.2.3 host command
  kXmitSlva = 0x04,     // rw  20.2.4 transmit slave address: [7:1] address, [0] read
  kHstD0 = 0x05,        // rw  20.2.5 data 0, or the count of a block
  kHstD1 = 0x06,        // rw  20.2.6 data 1
  kHostBlockDb = 0x07,  // rw  20.2.7 block data: a window into 32 bytes
  kAuxSts = 0x0c,       // rwc 20.2.10
  kAuxCtl = 0x0d,       // rw  20.2.11
};

// HST_STS.
inline constexpr uint8_t kIntr = 1u << 1;    // the command is complete
inline constexpr uint8_t kDevErr = 1u << 2;  // nobody answered, or the command makes no sense
inline constexpr uint8_t kInUse = 1u << 6;   // a semaphore: set by reading it
inline constexpr uint8_t kHstStsBits = 0xfe;
// HST_CNT.
inline constexpr uint8_t kIntrEnable = 1u << 0, kStart = 1u << 6;
inline constexpr unsigned kCommandShift = 2;
enum Command : uint8_t { kQuick = 0, kByte = 1, kByteData = 2, kWordData = 3, kProcessCall = 4, kBlock = 5 };

}  // namespace kite::devices::ich9_smbus_regs

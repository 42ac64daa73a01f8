// 8237A DMA controller, and the page registers that an AT puts beside it. [Intel 8237A] order number 231466,
// [AT TRM] IBM 5170 technical reference, system board.
#pragma once

#include <cstdint>

namespace kite::devices::i8237_regs {

// Offsets; the second controller's are twice as far apart. 0-7: address and count of channels 0-3, low byte first.
enum Reg : uint8_t {
  kStatusCommand = 0x8,  // r- status: [3:0] terminal counts, cleared by reading, [7:4] requests; -w command
  kRequest = 0x9,        // -w software request: [1:0] channel, [2] set
  kSingleMask = 0xa,     // -w [1:0] channel, [2] masked
  kMode = 0xb,           // -w below
  kClearFlipFlop = 0xc,  // -w the next byte of an address or a count is the low one
  kMasterClear = 0xd,    // r- temporary register; -w as a reset
  kClearMask = 0xe,      // -w no channel is masked
  kAllMask = 0xf,        // rw [3:0] masks
};
inline constexpr uint8_t kCommandDisable = 1u << 2;
// Mode.
inline constexpr uint8_t kModeChannel = 0x03, kModeTransfer = 0x0c, kModeAutoInit = 0x10, kModeDecrement = 0x20;
inline constexpr uint8_t kTransferVerify = 0x00, kTransferWrite = 0x04, kTransferRead = 0x08;  // to memory, from it
inline constexpr uint8_t kModeKind = 0xc0, kModeCascade = 0xc0;

inline constexpr unsigned kChannels = 4;
// Page registers by channel 0..7, from port 0x80. Channel 4 is the cascade; its page serves refresh.
inline constexpr uint8_t kPageOf[8] = {0x7, 0x3, 0x1, 0x2, 0xf, 0xb, 0x9, 0xa};
inline constexpr unsigned kPages = 16;

}  // namespace kite::devices::i8237_regs

// The Intel command set of parallel NOR flash (CFI primary command set 0001h) as an 8-bit chip.
// [28FxxxJ3] Intel StrataFlash 290667, chapter 4; [CFI] JEDEC JEP137, JESD68.01.
#pragma once

#include <cstdint>

namespace kite::devices::pflash_regs {

enum Command : uint8_t {
  kLockConfirm = 0x01,
  kProgramAlternate = 0x10,
  kBlockErase = 0x20,
  kLockDownConfirm = 0x2f,
  kProgram = 0x40,
  kClearStatus = 0x50,
  kLockSetup = 0x60,
  kReadStatus = 0x70,
  kReadId = 0x90,
  kReadQuery = 0x98,
  kConfirm = 0xd0,  // of an erase, a buffer, an unlocking
  kWriteBuffer = 0xe8,
  kReadArray = 0xff,
};

// Status register.
inline constexpr uint8_t kReady = 1u << 7;
inline constexpr uint8_t kEraseError = 1u << 5;
inline constexpr uint8_t kProgramError = 1u << 4;
inline constexpr uint8_t kLockError = 1u << 1;  // the block is locked, or the chip is write-protected

// Read-identifier addresses, within a block.
inline constexpr uint64_t kIdManufacturer = 0, kIdDevice = 1, kIdLock = 2;
inline constexpr uint8_t kIntel = 0x89, kDevice = 0x18;
inline constexpr uint8_t kLocked = 1;  // kIdLock, bit 0

inline constexpr uint64_t kBlockBytes = 4096;   // one erase block, uniform
inline constexpr uint64_t kBufferBytes = 1024;  // the write buffer
inline constexpr uint64_t kQueryBytes = 0x52;   // of the query table that this chip answers

}  // namespace kite::devices::pflash_regs

// What a stream starts from and what it leaves behind, the same for the host and the interpreter.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace kite::streams {

// Linear addresses of a stream's world. Everything around these pages is unmapped.
inline constexpr uint64_t kCodeAddress = 0x10000000, kCodeBytes = 0x1000;                        // read, execute
inline constexpr uint64_t kDataAddress = 0x20000000, kDataBytes = 0x2000;                        // read, write
inline constexpr uint64_t kStackAddress = 0x30000000, kStackBytes = 0x1000;                      // read, write
inline constexpr uint64_t kGsBase = 0x140;                                                       // 64-bit streams
inline constexpr uint16_t kCode32Selector = 0x23, kCode64Selector = 0x33, kDataSelector = 0x2b;  // Linux's own

struct Registers {
  std::array<uint64_t, 16> gpr{};
  uint64_t rip = 0;
  uint64_t rflags = 0;
  std::array<uint8_t, 416> fx{};        // the FXSAVE64 image without its reserved end
  std::array<uint8_t, 256> ymm_high{};  // bits 255:128 of YMM0 to YMM15; zeroes on hosts without AVX
  bool operator==(const Registers&) const = default;
};

struct Memory {
  std::array<uint8_t, kDataBytes> data{};
  std::array<uint8_t, kStackBytes> stack{};
  bool operator==(const Memory&) const = default;
};

// Every stream ends with an exception; a whole one with the #UD of the UD2 behind it.
struct Outcome {
  Registers registers;
  Memory memory;
  uint64_t vector = 0;
  uint64_t error_code = 0;     // #PF only
  uint64_t fault_address = 0;  // #PF only
};

struct World {
  bool wide = true;  // 64-bit code; else 32-bit code in a compatibility-mode segment
  Registers registers;
  Memory memory;
  std::array<uint8_t, kCodeBytes> code{};
};

}  // namespace kite::streams

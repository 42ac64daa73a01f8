// Bit arithmetic used throughout: masks, fields, alignment.
#pragma once

#include <concepts>
#include <cstdint>

namespace kite {

template <std::unsigned_integral T = uint64_t>
constexpr T bit(unsigned n) {
  return static_cast<T>(T{1} << n);
}

// The low `n` bits set; n in 0..64.
constexpr uint64_t low_mask(unsigned n) { return n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; }

// Bits [high:low] of `value`, as datasheets write them.
constexpr uint64_t field(uint64_t value, unsigned high, unsigned low) {
  return (value >> low) & low_mask(high - low + 1);
}

// `alignment` is a power of two.
constexpr uint64_t align_down(uint64_t value, uint64_t alignment) { return value & ~(alignment - 1); }
constexpr uint64_t align_up(uint64_t value, uint64_t alignment) { return (value + alignment - 1) & ~(alignment - 1); }
constexpr bool is_aligned(uint64_t value, uint64_t alignment) { return (value & (alignment - 1)) == 0; }

// Sign-extends the low `bits` (1..64) of `value`.
constexpr int64_t sign_extend(uint64_t value, unsigned bits) {
  return static_cast<int64_t>(value << (64 - bits)) >> (64 - bits);
}

}  // namespace kite

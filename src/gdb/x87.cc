#include "gdb/x87.h"

#include "support/bytes.h"

namespace kite::gdb {

namespace {

enum Index : uint8_t {
  kControlWord,
  kStatusWord,
  kTagWord,
  kCodeSegment,
  kCodeOffset,
  kDataSegment,
  kDataOffset,
  kOpcode
};
enum Tag : uint32_t { kValid, kZero, kSpecial, kEmpty };

// Where they are in the image, and how wide. It has 64-bit offsets instead of selectors: GDB's are bits 47:32 of these.
struct Place {
  uint8_t offset, bytes;
};
constexpr Place kPlaces[] = {{0, 2}, {2, 2}, {4, 1}, {12, 2}, {8, 4}, {20, 2}, {16, 4}, {6, 2}};

// [SDM 1 8.1.7] What the tag of a register that is not empty would be.
Tag tag_of(const uint8_t* st) {
  const auto exponent = static_cast<uint32_t>(load_le(st + 8, 2)) & 0x7fff;
  const uint64_t mantissa = load_le(st, 8);
  if (exponent == 0) return mantissa == 0 ? kZero : kSpecial;
  return exponent == 0x7fff || (mantissa >> 63) == 0 ? kSpecial : kValid;
}

// The image says which registers are empty by their numbers, and holds them by their places on the stack.
uint32_t full_tags(const x86::FxState& fx) {
  const uint32_t top = (static_cast<uint32_t>(load_le(fx.bytes.data() + kPlaces[kStatusWord].offset, 2)) >> 11) & 7;
  uint32_t tags = 0;
  for (uint32_t number = 0; number < 8; ++number) {
    const bool used = (fx.bytes[kPlaces[kTagWord].offset] >> number & 1) != 0;
    const uint8_t* const st = fx.bytes.data() + kFxSt0 + ((number - top) & 7) * 16;
    tags |= static_cast<uint32_t>(used ? tag_of(st) : kEmpty) << number * 2;
  }
  return tags;
}

}  // namespace

uint32_t read_x87(const x86::FxState& fx, uint8_t index) {
  if (index == kTagWord) return full_tags(fx);
  return static_cast<uint32_t>(load_le(fx.bytes.data() + kPlaces[index].offset, kPlaces[index].bytes));
}

bool write_x87(x86::FxState& fx, uint8_t index, uint32_t value) {
  const Place place = kPlaces[index];
  if (place.bytes < 4 && value > 0xffff) return false;
  if (index == kTagWord) {
    uint32_t used = 0;
    for (uint32_t number = 0; number < 8; ++number)
      if ((value >> number * 2 & 3) != kEmpty) used |= 1u << number;
    value = used;
  }
  store_le(fx.bytes.data() + place.offset, place.bytes, value);
  return true;
}

}  // namespace kite::gdb

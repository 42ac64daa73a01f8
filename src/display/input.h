// Input: where what people type and point at goes. The board's devices implement these.
#pragma once

#include <algorithm>
#include <cstdint>

namespace kite::display {

// A key's number is its set 1 make code, with 0xe000 added for the keys with an 0xe0 prefix; Pause is 0xe046.
using KeyNumber = uint16_t;
inline constexpr KeyNumber kLeftShift = 0x2a, kRightShift = 0x36;

// Buttons as bits.
inline constexpr uint8_t kButtonLeft = 1u << 0, kButtonRight = 1u << 1, kButtonMiddle = 1u << 2;

// The keyboard's lights as bits.
inline constexpr uint8_t kLedScroll = 1u << 0, kLedNum = 1u << 1, kLedCaps = 1u << 2;

// A place on the screen, for devices that have places: 0 is the left or upper edge, kMostPlace the other one.
inline constexpr uint16_t kMostPlace = 0x7fff;
constexpr uint16_t place_on(int64_t pixel, uint32_t side) {
  const int64_t last = side > 1 ? int64_t{side} - 1 : 1;
  return static_cast<uint16_t>(std::clamp<int64_t>(pixel, 0, last) * kMostPlace / last);
}

// Main executor's thread.
class Keyboard {
 public:
  virtual ~Keyboard() = default;
  virtual void key(KeyNumber key, bool down) = 0;
  [[nodiscard]] virtual uint8_t leds() { return 0; }  // that the guest has lit
};

class Pointer {
 public:
  virtual ~Pointer() = default;
  // Movement since the last event: right, down, wheel towards the user; the buttons as they are now.
  virtual void move(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons) = 0;
};

// A pointer that knows where on the screen it is.
class Tablet {
 public:
  virtual ~Tablet() = default;
  // `x` and `y` up to kMostPlace; the wheel and the buttons as a Pointer's.
  virtual void place(uint16_t x, uint16_t y, int32_t dz, uint8_t buttons) = 0;
};

}  // namespace kite::display

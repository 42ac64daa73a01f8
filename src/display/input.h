// Input: where what people type and point at goes. The board's devices implement these.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace kite::display {

// A key's number is its set 1 make code, with 0xe000 added for the keys with an 0xe0 prefix; Pause is 0xe046.
using KeyNumber = uint16_t;
inline constexpr KeyNumber kLeftShift = 0x2a, kRightShift = 0x36;

// Buttons as bits.
inline constexpr uint8_t kButtonLeft = 1u << 0, kButtonRight = 1u << 1, kButtonMiddle = 1u << 2, kButtonSide = 1u << 3,
                         kButtonExtra = 1u << 4;

// The right and the lower edge of the screen to an absolute pointer; 0 is the left and the upper.
inline constexpr int32_t kPlaceMost = 0x7fff;

// The keyboard's lights as bits.
inline constexpr uint8_t kLedScroll = 1u << 0, kLedNum = 1u << 1, kLedCaps = 1u << 2;

// The place of a pixel.
constexpr int32_t place_on(int64_t pixel, uint32_t side) {
  const int64_t last = side > 1 ? int64_t{side} - 1 : 1;
  return static_cast<int32_t>(std::clamp<int64_t>(pixel, 0, last) * kPlaceMost / last);
}

// Main executor's thread.
class Keyboard {
 public:
  virtual ~Keyboard() = default;
  virtual void key(KeyNumber key, bool down) = 0;
  // The guest uses it.
  [[nodiscard]] virtual bool ready() const { return true; }
  [[nodiscard]] virtual uint8_t leds() { return 0; }  // that the guest has lit
};

class Pointer {
 public:
  virtual ~Pointer() = default;
  // Relative pointers. Movement since the last event: right, down, wheel towards the user; the buttons as they are now.
  virtual void move(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons) = 0;
  // Absolute ones: where it is, and the rest as above.
  virtual void place(int32_t x, int32_t y, int32_t dz, uint8_t buttons) { (void)x, (void)y, (void)dz, (void)buttons; }
  [[nodiscard]] virtual bool absolute() const { return false; }
  [[nodiscard]] virtual bool ready() const { return true; }
  [[nodiscard]] virtual std::string_view pointer_name() const = 0;
};

}  // namespace kite::display

// Input: where what people type and point at goes. The board's devices implement these.
#pragma once

#include <cstdint>

namespace kite::display {

// A key's number is its set 1 make code, with 0xe000 added for the keys with an 0xe0 prefix; Pause is 0xe046.
using KeyNumber = uint16_t;
inline constexpr KeyNumber kLeftShift = 0x2a, kRightShift = 0x36;

// Buttons as bits.
inline constexpr uint8_t kButtonLeft = 1u << 0, kButtonRight = 1u << 1, kButtonMiddle = 1u << 2;

// Main executor's thread.
class Keyboard {
 public:
  virtual ~Keyboard() = default;
  virtual void key(KeyNumber key, bool down) = 0;
};

class Pointer {
 public:
  virtual ~Pointer() = default;
  // Movement since the last event: right, down, wheel towards the user; the buttons as they are now.
  virtual void move(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons) = 0;
};

}  // namespace kite::display

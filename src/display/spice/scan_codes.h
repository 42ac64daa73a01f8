// Bytes as a keyboard in scan code set 1 sends them, which is what SPICE clients send, to keys. [PS2KBD].
#pragma once

#include <optional>

#include "display/input.h"

namespace kite::display {

class ScanCodes {
 public:
  struct Event {
    KeyNumber key;
    bool down;
    bool operator==(const Event&) const = default;
  };
  // The event that this byte completes.
  std::optional<Event> put(uint8_t byte);

 private:
  static constexpr uint8_t kExtended = 0xe0, kPause = 0xe1;
  uint8_t prefix_ = 0;
  bool pause_begun_ = false;  // 1d or 9d has come after the prefix
};

}  // namespace kite::display

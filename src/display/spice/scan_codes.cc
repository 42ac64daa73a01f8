#include "display/spice/scan_codes.h"

namespace kite::display {

namespace {

constexpr uint8_t kBreak = 0x80;
constexpr KeyNumber kPauseKey = 0xe046;

}  // namespace

std::optional<ScanCodes::Event> ScanCodes::put(uint8_t byte) {
  if (byte == kExtended || byte == kPause) {
    prefix_ = byte;
    pause_begun_ = false;
    return {};
  }
  const bool down = (byte & kBreak) == 0;
  if (prefix_ == kPause) {
    // e1 1d 45 going down, e1 9d c5 going up.
    if (!pause_begun_) {
      pause_begun_ = true;
      return {};
    }
    prefix_ = 0;
    return Event{kPauseKey, down};
  }
  const unsigned base = prefix_ == kExtended ? 0xe000u : 0u;
  prefix_ = 0;
  return Event{static_cast<KeyNumber>(base | (byte & ~unsigned{kBreak})), down};
}

}  // namespace kite::display

// Keys and their scan codes in the three sets, and the controller's translation of set 2 to set 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace kite::devices {

// A key's number is its set 1 make code, with 0xe000 added for the keys with an 0xe0 prefix. The two keys whose codes
// are no such thing have numbers in the same form.
using Key = uint16_t;
inline constexpr Key kKeyPause = 0xe046;
inline constexpr Key kKeyPrintScreen = 0xe037;

// By the names that monitors use ("a", "ret", "ctrl_r", "kp_enter").
std::optional<Key> key_from_name(std::string_view name);

// At most eight bytes: what a keyboard in `set` (1, 2 or 3) sends when the key goes down or up. Empty for an unknown
// key, and for events the set does not report.
struct ScanSequence {
  uint8_t bytes[8] = {};
  uint8_t count = 0;
  [[nodiscard]] std::span<const uint8_t> span() const { return {bytes, count}; }
};
ScanSequence scan_sequence(Key key, bool down, uint8_t set);

// The controller's table: a set 2 byte as set 1. Break prefixes (0xf0) are the caller's.
uint8_t translate_set2(uint8_t code);

}  // namespace kite::devices

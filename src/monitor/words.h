// Lines that people type, taken apart.
#pragma once

#include <algorithm>
#include <string_view>

namespace kite::monitor {

// The next word of `text`, which then begins behind it; "" at the end.
inline std::string_view next_word(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  const std::string_view word = text.substr(0, text.find_first_of(" \t"));
  text.remove_prefix(word.size());
  return word;
}

}  // namespace kite::monitor

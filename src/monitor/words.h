// Lines that people type, taken apart.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace kite::monitor {

// The next word of `text`, which then begins behind it; "" at the end.
inline std::string_view next_word(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  const std::string_view word = text.substr(0, text.find_first_of(" \t"));
  text.remove_prefix(word.size());
  return word;
}

// The same, where a name may stand in double quotes, in which a backslash makes the next letter mean itself.
inline std::string next_name(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  if (!text.starts_with('"')) return std::string(next_word(text));
  std::string name;
  for (text.remove_prefix(1); !text.empty() && text.front() != '"'; text.remove_prefix(1)) {
    if (text.front() == '\\' && text.size() > 1) text.remove_prefix(1);
    name += text.front();
  }
  text.remove_prefix(std::min<size_t>(text.size(), 1));
  return name;
}

}  // namespace kite::monitor

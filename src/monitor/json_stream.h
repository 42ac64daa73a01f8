// Cuts a byte stream into JSON texts: QMP clients send objects without any framing but their own brackets.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace kite::monitor {

class JsonStream {
 public:
  static constexpr size_t kLongest = 16u << 20;  // bytes of one text; what is longer is thrown away
  static constexpr int kDeepest = 1024;          // nesting

  struct Item {
    std::string text;
    bool malformed = false;  // not JSON by its brackets, too long or too deep; `text` is a piece for the message
  };

  void feed(std::string_view bytes) { pending_.append(bytes); }
  // The next complete text, or nothing until more arrives.
  std::optional<Item> next();

 private:
  std::optional<Item> cut(size_t end, bool malformed);
  std::string pending_;
  size_t at_ = 0;  // scanned so far
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

}  // namespace kite::monitor

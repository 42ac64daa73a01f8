#include "monitor/json_stream.h"

namespace kite::monitor {

std::optional<JsonStream::Item> JsonStream::cut(size_t end, bool malformed) {
  Item item{.text = pending_.substr(0, end), .malformed = malformed};
  pending_.erase(0, end);
  at_ = 0;
  depth_ = 0;
  in_string_ = escaped_ = false;
  return item;
}

std::optional<JsonStream::Item> JsonStream::next() {
  if (depth_ == 0 && at_ == 0) {
    const size_t start = pending_.find_first_not_of(" \t\r\n");
    pending_.erase(0, start == std::string::npos ? pending_.size() : start);
    if (pending_.empty()) return std::nullopt;
    // Only objects are commands. Anything else is skipped to the end of its line, as one error.
    if (pending_[0] != '{') {
      const size_t end = pending_.find('\n');
      if (end == std::string::npos && pending_.size() < 4096) return std::nullopt;
      return cut(end == std::string::npos ? pending_.size() : end, true);
    }
  }
  for (; at_ < pending_.size(); ++at_) {
    const char c = pending_[at_];
    if (in_string_) {
      if (escaped_)
        escaped_ = false;
      else if (c == '\\')
        escaped_ = true;
      else if (c == '"')
        in_string_ = false;
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      if (++depth_ > kDeepest) return cut(at_ + 1, true);
    } else if (c == '}' || c == ']') {
      if (--depth_ == 0) return cut(at_ + 1, false);
    }
  }
  if (pending_.size() > kLongest) return cut(pending_.size(), true);
  return std::nullopt;
}

}  // namespace kite::monitor

// OutputQueue: text on its way to a chardev that may not take it all at once. No lock: one thread, or the owner's lock.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "chardev/chardev.h"

namespace kite::monitor {

class OutputQueue {
 public:
  explicit OutputQueue(Chardev& chardev) : chardev_(chardev) {}

  void append(std::string_view text) { text_ += text; }
  void clear() { text_.clear(); }
  [[nodiscard]] size_t size() const { return text_.size(); }
  // Writes as much as the chardev takes now; to be called again when it is writable.
  void flush() {
    while (!text_.empty()) {
      const size_t taken = chardev_.write({reinterpret_cast<const uint8_t*>(text_.data()), text_.size()});
      if (taken == 0) return;
      text_.erase(0, taken);
    }
  }

 private:
  Chardev& chardev_;
  std::string text_;
};

}  // namespace kite::monitor

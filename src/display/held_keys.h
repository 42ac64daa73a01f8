// HeldKeys: the keys that a server's clients hold down, so that they are let go of when the last client is gone.
#pragma once

#include <set>

#include "display/console.h"

namespace kite::display {

// Main executor's thread.
class HeldKeys {
 public:
  explicit HeldKeys(Console& console) : console_(console) {}

  void key(KeyNumber number, bool down) {
    console_.key(number, down);
    if (down)
      down_.insert(number);
    else
      down_.erase(number);
  }
  [[nodiscard]] bool holds(KeyNumber number) const { return down_.contains(number); }
  // Keys, and the pointer's buttons as well.
  void release() {
    for (const KeyNumber number : down_) console_.key(number, false);
    down_.clear();
    if (console_.buttons() != 0) console_.point({.buttons = 0});
  }

 private:
  Console& console_;
  std::set<KeyNumber> down_;
};

}  // namespace kite::display

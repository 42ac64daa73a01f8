// Turns of writes to a medium that takes whole blocks only: a write of less reads its block, changes it and writes it
// back, so that overlapping ones have to wait for each other.
#pragma once

#include <cstdint>
#include <list>

#include "block/co_sync.h"

namespace kite::block {

class WriteTurns {
  struct Active {
    uint64_t start, end;
    bool rewrites;
  };

 public:
  // `const WriteTurns::Turn turn(turns, start, end, rewrites); while (turn.blocked()) co_await turns.changed();`
  // `rewrites`: bytes in [start, end) are written that are only copied.
  class Turn {
   public:
    Turn(WriteTurns& turns, uint64_t start, uint64_t end, bool rewrites)
        : turns_(turns), at_(turns.active_.insert(turns.active_.end(), {start, end, rewrites})) {}
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() {
      turns_.active_.erase(at_);
      turns_.changed_.wake_all();
    }
    // An earlier one that overlaps and does not go well with this one.
    [[nodiscard]] bool blocked() const {
      for (auto other = turns_.active_.begin(); other != at_; ++other) {
        if (other->start < at_->end && at_->start < other->end && (other->rewrites || at_->rewrites)) return true;
      }
      return false;
    }

   private:
    WriteTurns& turns_;
    std::list<Active>::iterator at_;
  };
  [[nodiscard]] CoQueue::Awaiter changed() { return changed_.wait(); }
  void wake() { changed_.wake_all(); }  // those who wait for something else, too

 private:
  std::list<Active> active_;
  CoQueue changed_;
};

}  // namespace kite::block

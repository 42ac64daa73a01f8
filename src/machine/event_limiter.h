// EventLimiter: what is announced under one name comes once in an interval at most; of what is offered in between, the
// last one counts and comes at its end. A guest can then not drown whoever listens. Main executor's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "async/clock.h"

namespace kite::machine {

class EventLimiter {
 public:
  static constexpr int64_t kInterval = 1'000'000'000;

  explicit EventLimiter(Clock& clock) : clock_(clock) {}
  // Calls `announce` now or later.
  void offer(const std::string& name, std::function<void()> announce);

 private:
  struct Stream {
    std::function<void()> waiting;  // empty: nothing is
    std::unique_ptr<Timer> end;     // of the interval
  };
  void interval_over(std::string name);

  Clock& clock_;
  std::map<std::string, Stream> streams_;  // those whose interval is not over
};

}  // namespace kite::machine

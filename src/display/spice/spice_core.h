// SpiceCore: the event loop that libspice-server asks for, on an Executor. One a thread, all of it on that thread: the
// library's interface has no place for a context, so the thread's own one is found through a thread-local pointer.
#pragma once

#include <spice.h>

#include <functional>
#include <memory>
#include <vector>

#include "async/clock.h"
#include "async/executor.h"

namespace kite::display {

class SpiceCore {
 public:
  struct Hooks {
    std::function<void(int event, const SpiceChannelEventInfo& info)> channel;
    std::function<void()> after;  // the library has just done something
  };
  SpiceCore(Executor& executor, Clock& clock, Hooks hooks);
  ~SpiceCore();
  SpiceCore(const SpiceCore&) = delete;
  SpiceCore& operator=(const SpiceCore&) = delete;

  [[nodiscard]] SpiceCoreInterface* interface() const;

 private:
  friend struct SpiceCoreCalls;

  Executor& executor_;
  Clock& clock_;
  const Hooks hooks_;
  // What the library holds pointers to; what it has not removed in the end goes with this.
  std::vector<std::unique_ptr<SpiceTimer>> timers_;
  std::vector<std::unique_ptr<SpiceWatch>> watches_;
};

}  // namespace kite::display

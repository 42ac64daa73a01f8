// Doorbell: asks the executor's thread, from any thread, to look at something again.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "async/executor.h"

namespace kite {

// Runs `answer` on the executor's thread, once for any number of rings before it runs. Created and destroyed on that
// thread or while the executor does not run; after the destructor `answer` does not run any more.
class Doorbell {
 public:
  Doorbell(Executor& executor, std::function<void()> answer);
  ~Doorbell();
  Doorbell(const Doorbell&) = delete;
  Doorbell& operator=(const Doorbell&) = delete;

  void ring();  // any thread

 private:
  struct Shared {
    std::atomic<bool> rung{false};
    std::function<void()> answer;  // the executor's thread only; empty once the bell is gone
  };
  Executor& executor_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace kite

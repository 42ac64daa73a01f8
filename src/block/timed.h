// Sleeping in a coroutine of the block layer: an executor's timers for storage (latency of null nodes, throttling).
#pragma once

#include <coroutine>
#include <cstdint>
#include <functional>

#include "async/executor.h"
#include "support/fd.h"

namespace kite::block {

// `co_await sleep_ns(executor, ns);` resumes on the executor's thread, not before `ns` have passed.
struct SleepAwaiter {
  Executor& executor;
  int64_t ns;
  [[nodiscard]] bool await_ready() const noexcept { return ns <= 0; }
  void await_suspend(std::coroutine_handle<> handle) const;
  void await_resume() const noexcept {}
};
inline SleepAwaiter sleep_ns(Executor& executor, int64_t ns) { return {executor, ns}; }

int64_t monotonic_ns();

// Calls `ring` on the executor's thread once `ns` have passed, unless it is destroyed before.
class Alarm {
 public:
  Alarm(Executor& executor, int64_t ns, std::function<void()> ring);
  ~Alarm();
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

 private:
  Executor& executor_;
  Fd timer_;
};

}  // namespace kite::block

// Sleeping in a coroutine of the block layer: an executor's timers for storage (latency of null nodes, throttling).
#pragma once

#include <coroutine>
#include <cstdint>

#include "async/executor.h"

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

}  // namespace kite::block

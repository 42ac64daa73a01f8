// Threads for work that only computes (compression): `co_await run_in_worker(executor, work);` continues on the
// executor.
#pragma once

#include <coroutine>
#include <functional>
#include <utility>

#include "async/executor.h"

namespace kite::block {

struct WorkerAwaiter {
  Executor& executor;
  std::function<void()> work;
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle);
  void await_resume() const noexcept {}
};
// `work` may use what the awaiting coroutine owns.
inline WorkerAwaiter run_in_worker(Executor& executor, std::function<void()> work) {
  return {executor, std::move(work)};
}

}  // namespace kite::block

#include "async/task.h"

namespace kite {

struct TaskScope::Detached {
  struct promise_type {
    Detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
  };
};

TaskScope::~TaskScope() {
  // finished() makes the scope idle under the lock: whoever saw it idle waits here until finished() has let go.
  const std::lock_guard lock(mutex_);
  if (live_.load(std::memory_order_relaxed) != 0) std::terminate();  // tasks would outlive what they use
}

void TaskScope::spawn(Task<void> task) {
  live_.fetch_add(1, std::memory_order_relaxed);
  run(*this, std::move(task));
}

TaskScope::Detached TaskScope::run(TaskScope& scope, Task<void> task) {
  {
    Task<void> owned = std::move(task);
    co_await owned;
  }
  scope.finished();
}

void TaskScope::finished() {
  std::vector<std::coroutine_handle<>> waiters;
  {
    const std::lock_guard lock(mutex_);
    if (live_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    waiters.swap(waiters_);
    idle_.notify_all();
  }
  // The scope may be gone from here on.
  for (const std::coroutine_handle<> waiter : waiters) waiter.resume();
}

bool TaskScope::JoinAwaiter::await_suspend(std::coroutine_handle<> awaiting) {
  const std::lock_guard lock(scope.mutex_);
  if (scope.idle()) return false;
  scope.waiters_.push_back(awaiting);
  return true;
}

void TaskScope::wait_idle() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return idle(); });
}

}  // namespace kite

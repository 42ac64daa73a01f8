// Task<T>: a lazily started coroutine that one other coroutine awaits. TaskScope: where detached tasks live, so that
// their owner can wait for all of them before it goes away.
//
// Rules: no capturing coroutine lambdas; a coroutine owns (by value parameter) what it uses across a suspension point.
#pragma once

#include <atomic>
#include <condition_variable>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace kite {

template <class T>
class Task;

namespace detail {

struct FinalAwaiter {
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  template <class Promise>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> finished) const noexcept {
    return finished.promise().continuation ? finished.promise().continuation : std::noop_coroutine();
  }
  void await_resume() const noexcept {}
};

struct TaskPromiseBase {
  std::coroutine_handle<> continuation;
  std::suspend_always initial_suspend() noexcept { return {}; }
  FinalAwaiter final_suspend() noexcept { return {}; }
  // No exceptions in the paths that use tasks: one that escapes is a bug of ours.
  [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
};

template <class T>
struct TaskPromise : TaskPromiseBase {
  std::optional<T> value;
  Task<T> get_return_object();
  template <class U>
  void return_value(U&& result) {
    value.emplace(std::forward<U>(result));
  }
  T take() { return std::move(*value); }
};

template <>
struct TaskPromise<void> : TaskPromiseBase {
  Task<void> get_return_object();
  void return_void() {}
  void take() {}
};

}  // namespace detail

template <class T = void>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::TaskPromise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  explicit Task(Handle handle) : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  [[nodiscard]] bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) noexcept {
    handle_.promise().continuation = awaiting;
    return handle_;
  }
  T await_resume() { return handle_.promise().take(); }

 private:
  Handle handle_;
};

template <class T>
Task<T> detail::TaskPromise<T>::get_return_object() {
  return Task<T>(std::coroutine_handle<TaskPromise>::from_promise(*this));
}
inline Task<void> detail::TaskPromise<void>::get_return_object() {
  return Task<void>(std::coroutine_handle<TaskPromise>::from_promise(*this));
}

// Holds detached tasks. spawn() starts the task on the calling thread, up to its first suspension. A task's frame and
// all it owns are gone before the scope counts it as ended. The scope must be empty when it is destroyed: the owner
// awaits join() (or checks idle()) first. Thread-safe.
class TaskScope {
 public:
  TaskScope() = default;
  ~TaskScope();
  TaskScope(const TaskScope&) = delete;
  TaskScope& operator=(const TaskScope&) = delete;

  void spawn(Task<void> task);
  [[nodiscard]] bool idle() const { return live_.load(std::memory_order_acquire) == 0; }

  // Resumes its awaiter once no task is live. Resumption happens on the thread that ended the last task.
  struct JoinAwaiter {
    TaskScope& scope;
    [[nodiscard]] bool await_ready() const noexcept { return scope.idle(); }
    bool await_suspend(std::coroutine_handle<> awaiting);
    void await_resume() const noexcept {}
  };
  [[nodiscard]] JoinAwaiter join() { return JoinAwaiter{*this}; }
  // Blocks the calling thread until no task is live. Not on a thread that the tasks need to make progress.
  void wait_idle();

 private:
  struct Detached;
  static Detached run(TaskScope& scope, Task<void> task);
  void finished();

  std::atomic<size_t> live_{0};
  std::mutex mutex_;
  std::condition_variable idle_;
  std::vector<std::coroutine_handle<>> waiters_;
};

}  // namespace kite

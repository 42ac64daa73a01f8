// Waiting among the coroutines of one executor: a mutex and a queue. Not thread-safe: everything happens on the
// executor's thread, so "between two suspension points" is atomic.
#pragma once

#include <coroutine>
#include <deque>
#include <utility>
#include <vector>

namespace kite::block {

// Resumes `handle` now, or, inside another such call, after that one's coroutine has suspended: long queues of waiters
// do not pile up on the stack.
void resume_in_turn(std::coroutine_handle<> handle);

// First come, first served. `const CoLock lock = co_await mutex.lock();`
class CoMutex {
 public:
  class Lock {
   public:
    Lock() = default;
    explicit Lock(CoMutex& mutex) : mutex_(&mutex) {}
    Lock(Lock&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Lock& operator=(Lock&& other) noexcept {
      if (this != &other) {
        unlock();
        mutex_ = std::exchange(other.mutex_, nullptr);
      }
      return *this;
    }
    ~Lock() { unlock(); }
    void unlock() {
      if (mutex_ != nullptr) std::exchange(mutex_, nullptr)->unlock();
    }
    [[nodiscard]] bool held() const { return mutex_ != nullptr; }

   private:
    CoMutex* mutex_ = nullptr;
  };

  struct Awaiter {
    CoMutex& mutex;
    [[nodiscard]] bool await_ready() const noexcept { return !mutex.locked_ && (mutex.locked_ = true); }
    void await_suspend(std::coroutine_handle<> handle) const { mutex.waiters_.push_back(handle); }
    [[nodiscard]] Lock await_resume() const noexcept { return Lock(mutex); }
  };
  [[nodiscard]] Awaiter lock() { return Awaiter{*this}; }
  [[nodiscard]] bool locked() const { return locked_; }

 private:
  // The lock passes to the first waiter, which goes on inside this call.
  void unlock() {
    if (waiters_.empty()) {
      locked_ = false;
      return;
    }
    const std::coroutine_handle<> next = waiters_.front();
    waiters_.pop_front();
    resume_in_turn(next);
  }

  bool locked_ = false;
  std::deque<std::coroutine_handle<>> waiters_;
};

// A place to wait for "something changed". Wakers resume all; each looks again at what it waits for.
class CoQueue {
 public:
  struct Awaiter {
    CoQueue& queue;
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const { queue.waiters_.push_back(handle); }
    void await_resume() const noexcept {}
  };
  [[nodiscard]] Awaiter wait() { return Awaiter{*this}; }
  void wake_all() {
    std::vector<std::coroutine_handle<>> waiters;
    waiters.swap(waiters_);
    for (const std::coroutine_handle<> waiter : waiters) resume_in_turn(waiter);
  }
  [[nodiscard]] bool empty() const { return waiters_.empty(); }

 private:
  std::vector<std::coroutine_handle<>> waiters_;
};

}  // namespace kite::block

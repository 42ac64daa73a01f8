// An Executor is one thread's event loop: posted work, coroutines to resume, file descriptors and clocks. Everything it
// runs, it runs on the thread that is inside run(). post(), wake() and stop() may be called from any thread; the rest
// from the loop's own thread or before it runs.
#pragma once

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "async/adaptive_poll.h"
#include "async/clock.h"
#include "support/fd.h"
#include "support/result.h"

struct epoll_event;

namespace kite {

class Executor {
 public:
  // Fails only when the host is out of descriptors.
  static Result<std::unique_ptr<Executor>> create(std::string name);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Runs until stop(), and what was posted before stop() still runs. Names the calling thread. A stop() that comes
  // before run() makes it return at once; it can run again afterwards.
  void run();
  // One pass: fires what is ready, waits at most `timeout_ns` for something (0: do not wait). Tests drive it by hand.
  void run_once(int64_t timeout_ns);
  void stop();
  // Before it sleeps the loop looks for work, at most this long, while waits are short. Before it runs.
  void poll_before_sleep(int64_t most_ns) { poll_ = AdaptivePoll(most_ns); }
  [[nodiscard]] bool on_this_thread() const;

  void post(std::function<void()> work);
  // Fires the clock's timers on this thread from now on. The clock outlives the executor or is detached first.
  void attach(Clock& clock);
  void detach(Clock& clock);

  // Readiness of a descriptor, level-triggered. The callback gets the EPOLL* bits. One watch a descriptor; the caller
  // keeps the descriptor open until unwatch(). With no events asked for, nothing is reported, not even EPOLLHUP.
  // Descriptors that cannot be polled (regular files, /dev/null) count as always ready. Callable from any thread; after
  // unwatch() returns on the loop's thread the callback does not run again.
  void watch(int fd, uint32_t epoll_events, std::function<void(uint32_t)> ready);
  void modify(int fd, uint32_t epoll_events);
  void unwatch(int fd);

  // Called on the loop's thread before it waits: submits what was batched, and answers whether that made progress
  // already (then the loop goes round without sleeping). Loop's thread only. `owner` names the hook for removal.
  void add_batch_hook(const void* owner, std::function<bool()> hook);
  void remove_batch_hook(const void* owner);

  // `co_await executor.schedule();` continues on this executor's thread.
  struct ScheduleAwaiter {
    Executor& executor;
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) {
      executor.post([handle] { handle.resume(); });
    }
    void await_resume() const noexcept {}
  };
  [[nodiscard]] ScheduleAwaiter schedule() { return ScheduleAwaiter{*this}; }

 private:
  struct Watch;
  // What other threads touch to wake the loop; a clock's hook may still hold it when the executor is gone.
  struct Wakeup {
    Fd event;
    std::atomic<bool> pending{false};
    std::atomic<std::thread::id> thread{};
    void wake();
  };
  class ThreadMark;

  Executor(std::string name, Fd epoll, std::shared_ptr<Wakeup> wakeup);
  struct BatchHook {
    const void* owner;
    std::shared_ptr<std::function<bool()>> call;
  };
  bool run_batch_hooks();
  void drain_posted();
  void fire_clocks();
  int64_t host_ns_until_work(int64_t timeout_ns);
  int next_events(std::span<epoll_event> events, int64_t timeout_ns);  // as epoll_wait() answers
  void wait_for_events(int64_t timeout_ns);
  void dispatch(uint64_t key, uint32_t events);
  void dispatch_always_ready();
  void set_interest(Watch& watch, uint32_t epoll_events);  // under mutex_

  std::string name_;
  Fd epoll_;
  std::shared_ptr<Wakeup> wakeup_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;  // guards the four below
  std::vector<std::function<void()>> posted_;
  std::unordered_map<int, std::shared_ptr<Watch>> watches_;
  size_t always_ready_ = 0;  // watches that epoll refuses
  uint32_t next_generation_ = 0;
  // The four below belong to the loop's thread.
  AdaptivePoll poll_;
  std::vector<Clock*> clocks_;
  std::vector<BatchHook> batch_hooks_;
  unsigned busy_passes_ = 0;  // since descriptors were last looked at
};

}  // namespace kite

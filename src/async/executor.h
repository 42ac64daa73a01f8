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
#include <thread>
#include <unordered_map>
#include <vector>

#include "async/clock.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite {

class Executor {
 public:
  // Fails only when the host is out of descriptors.
  static Result<std::unique_ptr<Executor>> create(std::string name);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Runs until stop(). Names the calling thread.
  void run();
  // One pass: fires what is ready, waits at most `timeout_ns` for something (0: do not wait). Tests drive it by hand.
  void run_once(int64_t timeout_ns);
  void stop();
  [[nodiscard]] bool on_this_thread() const;

  void post(std::function<void()> work);
  // Fires the clock's timers on this thread from now on. The clock outlives the executor or is detached first.
  void attach(Clock& clock);
  void detach(Clock& clock);

  // Readiness of a descriptor. The callback gets the EPOLL* bits. One watch a descriptor; the caller keeps the
  // descriptor open until unwatch(). Callable from any thread; after unwatch() returns on the loop's thread the callback
  // does not run again.
  void watch(int fd, uint32_t epoll_events, std::function<void(uint32_t)> ready);
  void modify(int fd, uint32_t epoll_events);
  void unwatch(int fd);

  // `co_await executor.schedule();` continues on this executor's thread.
  struct ScheduleAwaiter {
    Executor& executor;
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) { executor.post([handle] { handle.resume(); }); }
    void await_resume() const noexcept {}
  };
  [[nodiscard]] ScheduleAwaiter schedule() { return ScheduleAwaiter{*this}; }

 private:
  struct Watch;
  explicit Executor(std::string name, Fd epoll, Fd event);
  void wake();
  void drain_posted();
  int64_t fire_clocks();

  std::string name_;
  Fd epoll_;
  Fd event_;
  std::atomic<bool> stop_{false};
  std::atomic<std::thread::id> thread_{};
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;
  std::unordered_map<int, std::shared_ptr<Watch>> watches_;
  std::vector<Clock*> clocks_;
};

}  // namespace kite

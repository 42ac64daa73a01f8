#include "block/timed.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

namespace kite::block {

int64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

namespace {

// A descriptor that becomes readable after `ns`; -1 when the host has none left.
int make_timer(int64_t ns) {
  const int timer = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (timer < 0) return -1;
  itimerspec when{};
  when.it_value = {.tv_sec = static_cast<time_t>(ns / 1'000'000'000), .tv_nsec = static_cast<long>(ns % 1'000'000'000)};
  ::timerfd_settime(timer, 0, &when, nullptr);
  return timer;
}

}  // namespace

void SleepAwaiter::await_suspend(std::coroutine_handle<> handle) const {
  const int timer = make_timer(ns);
  if (timer < 0) {  // out of descriptors: late sleepers come early
    executor.post([handle] { handle.resume(); });
    return;
  }
  Executor* home = &executor;
  home->watch(timer, EPOLLIN, [home, timer, handle](uint32_t) {
    // The watch and what it captured go with unwatch(): everything needed afterwards is on this stack.
    const std::coroutine_handle<> sleeper = handle;
    const int fd = timer;
    home->unwatch(fd);
    ::close(fd);
    sleeper.resume();
  });
}

Alarm::Alarm(Executor& executor, int64_t ns, std::function<void()> ring)
    : executor_(executor), timer_(make_timer(ns > 0 ? ns : 1)) {
  if (!timer_.valid()) return;
  executor_.watch(timer_.get(), EPOLLIN, [this, ring = std::move(ring)](uint32_t) {
    executor_.modify(timer_.get(), 0);
    ring();
  });
}

Alarm::~Alarm() {
  if (timer_.valid()) executor_.unwatch(timer_.get());
}

}  // namespace kite::block

// Clocks and timers. Time is int64_t nanoseconds. Nothing under devices/, cpu/ or accel/jit reads the host's clock: a
// Clock is injected, and tests and qtest drive a ManualClock.
//
//   HostClock     CLOCK_MONOTONIC or CLOCK_REALTIME, always running
//   VirtualClock  guest time: starts at 0, runs with the host's monotonic clock, can be paused (VM stopped)
//   ManualClock   stands still until it is stepped
//
// Timers fire on whatever thread calls Clock::run_due() (an Executor for real clocks, the stepping thread for a manual
// one), with no lock of the clock's held, so a callback may arm and disarm timers and take its device's lock.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

namespace kite {

class Clock;

// Armed for one instant at a time. A callback that was already on its way may still run after disarm() returns in
// another thread: the owner's state, under the owner's lock, decides whether the deadline is still meant. The
// destructor waits for a callback that runs in another thread, so the owner destroys its timers without holding its
// lock; a callback may destroy its own timer. A callback never overlaps itself.
class Timer {
 public:
  Timer(Clock& clock, std::function<void()> callback);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void arm_at(int64_t deadline_ns);  // replaces an earlier deadline; a past one fires at once
  void disarm();
  [[nodiscard]] bool armed() const;
  [[nodiscard]] std::optional<int64_t> deadline() const;
  [[nodiscard]] Clock& clock() const { return clock_; }

 private:
  friend class Clock;
  // One running callback, on the stack of the thread that fires it.
  struct Run {
    std::thread::id thread;
    Timer* timer;                                     // null once the callback destroyed its timer
    std::unique_ptr<std::function<void()>> callback;  // kept for the rest of the call when that happens
  };

  Clock& clock_;
  std::unique_ptr<std::function<void()>> callback_;
  // Guarded by clock_.mutex_.
  std::optional<int64_t> deadline_;
  uint64_t sequence_ = 0;  // timers of one instant fire in the order they were armed
  Run* run_ = nullptr;
};

class Clock {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  virtual ~Clock() = default;
  [[nodiscard]] virtual int64_t now() const = 0;

  // The earliest deadline, or kNever.
  [[nodiscard]] int64_t next_deadline() const;
  // How long the host should sleep before run_due() has work, in ns: 0 when due, kNever when nothing will come due by
  // itself (no timer, or the clock is paused). Whoever asks knows of every deadline so far; the hook of set_wake() is
  // called for nearer ones.
  [[nodiscard]] virtual int64_t host_ns_until_due() const;
  // Fires every timer whose deadline is not after now(), in order. A timer that is armed while it runs waits for the
  // next call, so one call ends even when a callback always arms for the past.
  void run_due();
  // Called (under no lock) when a deadline comes before all that host_ns_until_due() or the hook have told of, or the
  // clock's rate changes; an executor uses it to wake up and look again. A deadline that moved away and comes back, as
  // that of an operating system's tick, does not count. One hook a clock.
  void set_wake(std::function<void()> wake);

 protected:
  void wake();
  // Fires the timers due at `now`; a manual clock calls it while it walks.
  void run_due_at(int64_t now);
  // The earliest deadline among the timers whose callback is not running, or kNever.
  [[nodiscard]] int64_t next_idle_deadline() const;

 private:
  friend class Timer;
  struct Order {
    bool operator()(const Timer* a, const Timer* b) const;
  };
  // The first timer that run_due_at() may fire; null when there is none. Under mutex_.
  [[nodiscard]] Timer* take_due(int64_t now, uint64_t before_sequence);
  void fire(std::unique_lock<std::mutex>& lock, Timer& timer);

  mutable std::mutex mutex_;
  std::condition_variable finished_;  // a callback ended
  std::set<Timer*, Order> timers_;
  uint64_t next_sequence_ = 0;
  std::shared_ptr<std::function<void()>> wake_;
  mutable int64_t told_ = kNever;  // the earliest deadline that whoever sleeps will wake up for
};

class HostClock final : public Clock {
 public:
  enum class Kind : uint8_t { kMonotonic, kRealtime };
  explicit HostClock(Kind kind) : kind_(kind) {}
  [[nodiscard]] int64_t now() const override;
  // The realtime clock can be set, so it is looked at once a second while a timer is armed.
  [[nodiscard]] int64_t host_ns_until_due() const override;

 private:
  Kind kind_;
};

// Guest time; starts paused at 0. Thread-safe; now() takes no lock.
class VirtualClock final : public Clock {
 public:
  [[nodiscard]] int64_t now() const override;
  [[nodiscard]] int64_t host_ns_until_due() const override;
  void pause();
  void resume();
  [[nodiscard]] bool running() const;
  void set_now(int64_t now_ns);  // a restored machine goes on where the saved one stopped

 private:
  // Goes on from `guest_now`, or from the present guest time. Under change_.
  void rebase(std::optional<int64_t> guest_now, bool running);

  std::atomic<uint64_t> sequence_{0};  // seqlock over the three below
  std::atomic<int64_t> host_base_{0};
  std::atomic<int64_t> guest_base_{0};
  std::atomic<bool> running_{false};
  std::mutex change_;  // one writer at a time
};

class ManualClock final : public Clock {
 public:
  [[nodiscard]] int64_t now() const override { return now_.load(std::memory_order_acquire); }
  [[nodiscard]] int64_t host_ns_until_due() const override { return kNever; }
  // Moves to `target_ns` (never back), stopping at every deadline in order and firing it with now() at that deadline.
  // A callback that arms its timer for now() again and again keeps time from passing.
  void advance_to(int64_t target_ns);
  void advance(int64_t delta_ns);  // a negative delta counts as 0; the sum saturates
  // To the next deadline; false when no timer is armed.
  bool step();

 private:
  void raise_now(int64_t now_ns);

  std::atomic<int64_t> now_{0};
};

}  // namespace kite

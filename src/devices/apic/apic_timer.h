// The timer of a local APIC: a 32-bit down counter with a divider, one-shot or periodic, or a TSC deadline.
// [SDM 3A 11.5.4]
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>

#include "async/clock.h"
#include "devices/tick_rate.h"

namespace kite::devices {

class ApicTimer {
 public:
  // r- LVT timer 18:17
  enum class Mode : uint8_t { kOneShot = 0, kPeriodic = 1, kTscDeadline = 2, kReserved = 3 };

  // Everything the guest can notice; times are ticks of the undivided timer clock since the clock read 0.
  struct State {
    Mode mode = Mode::kOneShot;
    uint8_t divide = 0;  // the divide configuration register
    uint32_t initial = 0;
    bool counting = false;
    uint32_t count = 0;  // the current count at tick `since`
    uint64_t since = 0;
    uint64_t deadline_tsc = 0;  // 0: not armed
    int64_t deadline_ns = 0;    // the same, on the clock
    int64_t not_before_ns = 0;  // the pace of a periodic timer that is too fast to follow
  };

  // `expired` runs on whatever thread notices: the one that drives the clock, or a vCPU that looks at the timer when
  // its time has come. The timer's lock is held: it must not come back here.
  ApicTimer(Clock& clock, uint64_t timer_hz, uint64_t tsc_hz, std::function<void()> expired);

  // Any thread.
  void set_mode(Mode mode);
  void set_divide(uint8_t value);
  void set_initial(uint32_t count);
  [[nodiscard]] uint32_t initial() const;
  [[nodiscard]] uint32_t current();
  [[nodiscard]] uint8_t divide() const;
  [[nodiscard]] uint64_t deadline();
  // `tsc_offset` as in ApicCpu. Ignored outside TSC-deadline mode.
  void set_deadline(uint64_t tsc, int64_t tsc_offset);

  void reset();
  void start();
  void stop();  // after it returns `expired` is not called until start()
  [[nodiscard]] State state() const;
  void set_state(const State& state);

 private:
  // Callers hold lock_.
  [[nodiscard]] uint64_t tick_length() const;  // ticks of the timer clock for one count
  [[nodiscard]] uint64_t now() const { return rate_.to_ticks(clock_.now()); }
  void rebase(uint64_t now);  // brings count and since up to now; may end a one-shot
  void catch_up();            // expires, if it is time
  [[nodiscard]] int64_t expiry_ns() const;
  void schedule();
  void fire();
  [[nodiscard]] int64_t deadline_on_clock(uint64_t tsc, int64_t tsc_offset) const;

  // Static configuration.
  TickRate rate_;
  TickRate tsc_rate_;

  // Wiring.
  Clock& clock_;
  std::function<void()> expired_;

  // State, guarded by lock_.
  mutable std::mutex lock_;
  State state_;
  bool stopped_ = false;
  Timer timer_;  // the last member: destroyed first
};

}  // namespace kite::devices

#include "devices/apic/apic_timer.h"

#include <algorithm>
#include <utility>

namespace kite::devices {
namespace {

// A periodic timer with a shorter period than this expires once for several periods: its one pending bit cannot tell,
// and no host follows a guest that asks for an interrupt every nanosecond.
constexpr int64_t kShortestPeriodNs = 20'000;

}  // namespace

ApicTimer::ApicTimer(Clock& clock, uint64_t timer_hz, uint64_t tsc_hz, std::function<void()> expired)
    : rate_(timer_hz), tsc_rate_(tsc_hz), clock_(clock), expired_(std::move(expired)), timer_(clock, [this] {
        fire();
      }) {}

// [SDM 3A 11.5.4] divide configuration: bits 3, 1 and 0; 111 divides by 1, 000 by 2, up to 110 by 128.
uint64_t ApicTimer::tick_length() const {
  const unsigned code = (state_.divide & 3u) | (state_.divide >> 1 & 4u);
  return uint64_t{1} << ((code + 1) & 7u);
}

void ApicTimer::rebase(uint64_t now) {
  if (!state_.counting || now <= state_.since) return;
  const uint64_t length = tick_length();
  const uint64_t steps = (now - state_.since) / length;
  state_.since += steps * length;
  if (steps < state_.count) {
    state_.count -= static_cast<uint32_t>(steps);
  } else if (state_.mode == Mode::kPeriodic && state_.initial != 0) {
    state_.count = state_.initial - static_cast<uint32_t>((steps - state_.count) % state_.initial);
  } else {
    state_.count = 0;
    state_.counting = false;
  }
}

// When expired() is due; kNever when nothing is under way.
int64_t ApicTimer::expiry_ns() const {
  if (state_.mode == Mode::kTscDeadline) return state_.deadline_tsc != 0 ? state_.deadline_ns : Clock::kNever;
  if (!state_.counting) return Clock::kNever;
  return std::max(rate_.to_ns(state_.since + state_.count * tick_length()), state_.not_before_ns);
}

void ApicTimer::schedule() {
  const int64_t expiry = expiry_ns();
  if (expiry == Clock::kNever) return timer_.disarm();
  timer_.arm_at(expiry);
}

void ApicTimer::catch_up() {
  const int64_t now_ns = clock_.now();
  if (stopped_ || now_ns < expiry_ns()) return;
  if (state_.mode == Mode::kTscDeadline) {
    state_.deadline_tsc = 0;  // [SDM 3A 11.5.4.1] the MSR reads 0 once the deadline has passed
    state_.deadline_ns = 0;
  } else {
    rebase(rate_.to_ticks(now_ns));
    state_.not_before_ns = now_ns + kShortestPeriodNs;
  }
  expired_();
}

void ApicTimer::fire() {
  const std::lock_guard guard(lock_);
  if (stopped_) return;
  catch_up();
  schedule();
}

void ApicTimer::set_mode(Mode mode) {
  const std::lock_guard guard(lock_);
  if (mode == state_.mode) return;
  catch_up();
  // [SDM 3A 11.5.4.1] a change to or from TSC-deadline mode disarms the timer.
  if (mode == Mode::kTscDeadline || state_.mode == Mode::kTscDeadline) {
    state_.counting = false;
    state_.count = 0;
    state_.deadline_tsc = 0;
    state_.deadline_ns = 0;
    if (mode == Mode::kTscDeadline) state_.initial = 0;
  } else {
    rebase(now());  // the count goes on in the new mode
  }
  state_.mode = mode;
  schedule();
}

void ApicTimer::set_divide(uint8_t value) {
  const std::lock_guard guard(lock_);
  catch_up();
  rebase(now());
  state_.divide = value & 0x0b;
  schedule();
}

void ApicTimer::set_initial(uint32_t count) {
  const std::lock_guard guard(lock_);
  if (state_.mode == Mode::kTscDeadline) return;  // [SDM 3A 11.5.4.1] ignored
  catch_up();
  state_.initial = count;
  state_.count = count;
  state_.since = now();
  state_.counting = count != 0;
  state_.not_before_ns = 0;
  schedule();
}

uint32_t ApicTimer::initial() const {
  const std::lock_guard guard(lock_);
  return state_.initial;
}

uint32_t ApicTimer::current() {
  const std::lock_guard guard(lock_);
  catch_up();
  rebase(now());
  schedule();
  return state_.count;
}

uint8_t ApicTimer::divide() const {
  const std::lock_guard guard(lock_);
  return state_.divide;
}

uint64_t ApicTimer::deadline() {
  const std::lock_guard guard(lock_);
  catch_up();
  return state_.deadline_tsc;
}

int64_t ApicTimer::deadline_on_clock(uint64_t tsc, int64_t tsc_offset) const {
  const auto ticks = static_cast<__int128>(tsc) - tsc_offset;
  if (ticks <= 0) return 0;
  if (ticks > static_cast<__int128>(UINT64_MAX)) return Clock::kNever;
  return tsc_rate_.to_ns(static_cast<uint64_t>(ticks));
}

void ApicTimer::set_deadline(uint64_t tsc, int64_t tsc_offset) {
  const std::lock_guard guard(lock_);
  if (state_.mode != Mode::kTscDeadline) return;
  catch_up();
  state_.deadline_tsc = tsc;
  state_.deadline_ns = tsc != 0 ? deadline_on_clock(tsc, tsc_offset) : 0;
  catch_up();  // a deadline in the past expires before the instruction that wrote it retires
  schedule();
}

void ApicTimer::reset() {
  const std::lock_guard guard(lock_);
  state_ = {};
  timer_.disarm();
}

void ApicTimer::start() {
  const std::lock_guard guard(lock_);
  stopped_ = false;
  schedule();
}

void ApicTimer::stop() {
  const std::lock_guard guard(lock_);
  stopped_ = true;
}

ApicTimer::State ApicTimer::state() const {
  const std::lock_guard guard(lock_);
  return state_;
}

void ApicTimer::set_state(const State& state) {
  const std::lock_guard guard(lock_);
  state_ = state;
  schedule();
}

}  // namespace kite::devices

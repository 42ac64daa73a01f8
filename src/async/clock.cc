#include "async/clock.h"

#include <time.h>

#include <algorithm>
#include <utility>

namespace kite {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;

int64_t read_host(clockid_t id) {
  timespec now{};
  ::clock_gettime(id, &now);
  return int64_t{now.tv_sec} * kNsPerSecond + now.tv_nsec;
}

int64_t saturating_add(int64_t a, int64_t b) {
  int64_t sum = 0;
  if (!__builtin_add_overflow(a, b, &sum)) return sum;
  return a > 0 ? std::numeric_limits<int64_t>::max() : std::numeric_limits<int64_t>::min();
}

int64_t saturating_distance(int64_t from, int64_t to) {
  int64_t distance = 0;
  if (to <= from) return 0;
  return __builtin_sub_overflow(to, from, &distance) ? Clock::kNever : distance;
}

}  // namespace

// --- Timer ---

Timer::Timer(Clock& clock, std::function<void()> callback)
    : clock_(clock), callback_(std::make_unique<std::function<void()>>(std::move(callback))) {}

Timer::~Timer() {
  std::unique_lock lock(clock_.mutex_);
  if (deadline_) clock_.timers_.erase(this);
  deadline_.reset();
  if (run_ != nullptr && run_->thread == std::this_thread::get_id()) {
    run_->timer = nullptr;
    run_->callback = std::move(callback_);
    return;
  }
  clock_.finished_.wait(lock, [this] { return run_ == nullptr; });
  // What the callback armed while it ended.
  if (deadline_) clock_.timers_.erase(this);
}

void Timer::arm_at(int64_t deadline_ns) {
  std::shared_ptr<std::function<void()>> wake;
  {
    const std::lock_guard lock(clock_.mutex_);
    // A timer that is armed again keeps its node in the set.
    auto node = deadline_ ? clock_.timers_.extract(this) : decltype(clock_.timers_)::node_type();
    deadline_ = deadline_ns;
    sequence_ = clock_.next_sequence_++;
    if (node) {
      clock_.timers_.insert(std::move(node));
    } else {
      clock_.timers_.insert(this);
    }
    if (deadline_ns < clock_.told_) {
      clock_.told_ = deadline_ns;
      wake = clock_.wake_;
    }
  }
  if (wake != nullptr) (*wake)();
}

void Timer::disarm() {
  const std::lock_guard lock(clock_.mutex_);
  if (deadline_) clock_.timers_.erase(this);
  deadline_.reset();
}

bool Timer::armed() const {
  const std::lock_guard lock(clock_.mutex_);
  return deadline_.has_value();
}

std::optional<int64_t> Timer::deadline() const {
  const std::lock_guard lock(clock_.mutex_);
  return deadline_;
}

// --- Clock ---

bool Clock::Order::operator()(const Timer* a, const Timer* b) const {
  return std::pair(*a->deadline_, a->sequence_) < std::pair(*b->deadline_, b->sequence_);
}

int64_t Clock::next_deadline() const {
  const std::lock_guard lock(mutex_);
  return timers_.empty() ? kNever : *(*timers_.begin())->deadline_;
}

int64_t Clock::next_idle_deadline() const {
  const std::lock_guard lock(mutex_);
  const auto idle = std::ranges::find_if(timers_, [](const Timer* timer) { return timer->run_ == nullptr; });
  return idle == timers_.end() ? kNever : *(*idle)->deadline_;
}

int64_t Clock::host_ns_until_due() const {
  const int64_t deadline = [this] {
    const std::lock_guard lock(mutex_);
    return told_ = timers_.empty() ? kNever : *(*timers_.begin())->deadline_;
  }();
  return deadline == kNever ? kNever : saturating_distance(now(), deadline);
}

void Clock::run_due() { run_due_at(now()); }

void Clock::set_wake(std::function<void()> wake) {
  auto shared = wake ? std::make_shared<std::function<void()>>(std::move(wake)) : nullptr;
  const std::lock_guard lock(mutex_);
  wake_.swap(shared);
}

void Clock::wake() {
  std::shared_ptr<std::function<void()>> hook;
  {
    const std::lock_guard lock(mutex_);
    hook = wake_;
  }
  if (hook != nullptr) (*hook)();
}

void Clock::run_due_at(int64_t now) {
  std::unique_lock lock(mutex_);
  const uint64_t before_sequence = next_sequence_;
  while (Timer* timer = take_due(now, before_sequence)) fire(lock, *timer);
}

Timer* Clock::take_due(int64_t now, uint64_t before_sequence) {
  for (auto at = timers_.begin(); at != timers_.end() && *(*at)->deadline_ <= now; ++at) {
    Timer* timer = *at;
    // One whose callback is still running is left to the thread that runs it.
    if (timer->run_ != nullptr || timer->sequence_ >= before_sequence) continue;
    timers_.erase(at);
    timer->deadline_.reset();
    return timer;
  }
  return nullptr;
}

void Clock::fire(std::unique_lock<std::mutex>& lock, Timer& timer) {
  Timer::Run run{.thread = std::this_thread::get_id(), .timer = &timer, .callback = nullptr};
  const std::function<void()>& callback = *timer.callback_;
  timer.run_ = &run;
  lock.unlock();
  callback();
  run.callback.reset();  // captures may own anything, so they go without the lock
  lock.lock();
  if (run.timer != nullptr) run.timer->run_ = nullptr;
  finished_.notify_all();
}

// --- HostClock ---

int64_t HostClock::now() const { return read_host(kind_ == Kind::kMonotonic ? CLOCK_MONOTONIC : CLOCK_REALTIME); }

int64_t HostClock::host_ns_until_due() const {
  const int64_t wait = Clock::host_ns_until_due();
  if (kind_ == Kind::kMonotonic || wait == kNever) return wait;
  return std::min(wait, kNsPerSecond);
}

// --- VirtualClock ---

int64_t VirtualClock::now() const {
  while (true) {
    const uint64_t before = sequence_.load(std::memory_order_acquire);
    const int64_t host_base = host_base_.load(std::memory_order_relaxed);
    const int64_t guest_base = guest_base_.load(std::memory_order_relaxed);
    const bool running = running_.load(std::memory_order_relaxed);
    // The host's clock is read inside the window: a reader that read it after a pause would be ahead of the paused
    // time. The fence keeps the second look behind RDTSC, which a plain load may overtake.
    const int64_t host_now = running ? read_host(CLOCK_MONOTONIC) : host_base;
    __builtin_ia32_lfence();
    std::atomic_thread_fence(std::memory_order_acquire);
    if ((before & 1) == 0 && sequence_.load(std::memory_order_relaxed) == before) [[likely]] {
      return saturating_add(guest_base, host_now - host_base);
    }
  }
}

int64_t VirtualClock::host_ns_until_due() const { return running() ? Clock::host_ns_until_due() : kNever; }

void VirtualClock::rebase(std::optional<int64_t> guest_now, bool running) {
  const uint64_t sequence = sequence_.load(std::memory_order_relaxed);
  // Sequentially consistent: every reader that still takes the old bases has read the host's clock before this thread.
  sequence_.store(sequence + 1, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const int64_t host_now = read_host(CLOCK_MONOTONIC);
  const int64_t passed = running_.load(std::memory_order_relaxed) ? host_now - host_base_.load() : 0;
  guest_base_.store(guest_now.value_or(saturating_add(guest_base_.load(), passed)), std::memory_order_relaxed);
  host_base_.store(host_now, std::memory_order_relaxed);
  running_.store(running, std::memory_order_relaxed);
  sequence_.store(sequence + 2, std::memory_order_release);
}

void VirtualClock::pause() {
  const std::lock_guard lock(change_);
  if (running_.load(std::memory_order_relaxed)) rebase(std::nullopt, false);
}

void VirtualClock::resume() {
  {
    const std::lock_guard lock(change_);
    if (running_.load(std::memory_order_relaxed)) return;
    rebase(std::nullopt, true);
  }
  wake();
}

bool VirtualClock::running() const { return running_.load(std::memory_order_acquire); }

void VirtualClock::set_now(int64_t now_ns) {
  {
    const std::lock_guard lock(change_);
    rebase(now_ns, running_.load(std::memory_order_relaxed));
  }
  wake();
}

// --- ManualClock ---

void ManualClock::raise_now(int64_t now_ns) {
  int64_t current = now_.load(std::memory_order_relaxed);
  while (current < now_ns && !now_.compare_exchange_weak(current, now_ns, std::memory_order_acq_rel)) {
  }
}

void ManualClock::advance_to(int64_t target_ns) {
  for (int64_t deadline = next_idle_deadline(); deadline <= target_ns; deadline = next_idle_deadline()) {
    raise_now(deadline);
    run_due_at(now());
    if (deadline == kNever) break;  // no timer at all, or one that was armed for the end of time and has fired
  }
  raise_now(target_ns);
}

void ManualClock::advance(int64_t delta_ns) { advance_to(saturating_add(now(), std::max<int64_t>(delta_ns, 0))); }

bool ManualClock::step() {
  const int64_t deadline = next_deadline();
  if (deadline == kNever) return false;
  advance_to(std::max(deadline, now()));
  return true;
}

}  // namespace kite

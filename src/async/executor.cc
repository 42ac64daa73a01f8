#include "async/executor.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "support/log.h"

namespace kite {
namespace {

constexpr uint64_t kWakeKey = ~uint64_t{0};
constexpr size_t kEventsAPass = 64;
// While batch hooks make progress by themselves, descriptors are looked at only every so many passes.
constexpr unsigned kBusyPasses = 16;

timespec to_timespec(int64_t ns) {
  return timespec{.tv_sec = static_cast<time_t>(ns / 1'000'000'000), .tv_nsec = static_cast<long>(ns % 1'000'000'000)};
}

// Waits with nanosecond precision; `timeout_ns` of Clock::kNever waits for ever. Answers the count, or -1 with errno.
int epoll_wait_ns(int epoll, std::span<epoll_event> events, int64_t timeout_ns) {
  static std::atomic<bool> has_pwait2{true};
  const int room = static_cast<int>(events.size());
  const timespec limit = to_timespec(timeout_ns);
  const timespec* timeout = timeout_ns == Clock::kNever ? nullptr : &limit;
  if (has_pwait2.load(std::memory_order_relaxed)) {
    const int count = ::epoll_pwait2(epoll, events.data(), room, timeout, nullptr);
    if (count >= 0 || errno != ENOSYS) return count;
    has_pwait2.store(false, std::memory_order_relaxed);
  }
  // Kernels before 5.11: an epoll descriptor can itself be polled, and ppoll() counts in nanoseconds.
  pollfd ready{.fd = epoll, .events = POLLIN, .revents = 0};
  if (const int polled = ::ppoll(&ready, 1, timeout, nullptr); polled <= 0) return polled;
  return ::epoll_wait(epoll, events.data(), room, 0);
}

}  // namespace

struct Executor::Watch {
  int fd;
  uint32_t generation;  // tells a late event of an earlier watch of the same number from ours
  uint32_t events = 0;
  bool always_ready = false;
  std::function<void(uint32_t)> ready;

  [[nodiscard]] uint64_t key() const { return uint64_t{generation} << 32 | static_cast<uint32_t>(fd); }
};

// The thread inside the loop, for as long as it is inside.
class Executor::ThreadMark {
 public:
  explicit ThreadMark(Wakeup& wakeup) : wakeup_(wakeup), outer_(wakeup.thread.exchange(std::this_thread::get_id())) {}
  ThreadMark(const ThreadMark&) = delete;
  ThreadMark& operator=(const ThreadMark&) = delete;
  ~ThreadMark() { wakeup_.thread.store(outer_); }

 private:
  Wakeup& wakeup_;
  std::thread::id outer_;
};

void Executor::Wakeup::wake() {
  // The loop is about to look at all its work anyway when it wakes itself or when a wake is already on its way.
  if (thread.load(std::memory_order_relaxed) == std::this_thread::get_id()) return;
  if (pending.exchange(true, std::memory_order_acq_rel)) return;
  const uint64_t one = 1;
  while (::write(event.get(), &one, sizeof one) < 0 && errno == EINTR) {
  }
}

Result<std::unique_ptr<Executor>> Executor::create(std::string name) {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return fail("cannot create the event loop '{}': epoll: {}", name, errno_text(errno));
  auto wakeup = std::make_shared<Wakeup>();
  wakeup->event.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wakeup->event.valid()) return fail("cannot create the event loop '{}': eventfd: {}", name, errno_text(errno));
  epoll_event interest{.events = EPOLLIN, .data = {.u64 = kWakeKey}};
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wakeup->event.get(), &interest) != 0) {
    return fail("cannot create the event loop '{}': epoll_ctl: {}", name, errno_text(errno));
  }
  return std::unique_ptr<Executor>(new Executor(std::move(name), std::move(epoll), std::move(wakeup)));
}

Executor::Executor(std::string name, Fd epoll, std::shared_ptr<Wakeup> wakeup)
    : name_(std::move(name)), epoll_(std::move(epoll)), wakeup_(std::move(wakeup)) {}

Executor::~Executor() {
  for (Clock* clock : clocks_) clock->set_wake({});
}

bool Executor::on_this_thread() const {
  return wakeup_->thread.load(std::memory_order_relaxed) == std::this_thread::get_id();
}

void Executor::run() {
  constexpr size_t kLongestThreadName = 15;
  ::pthread_setname_np(::pthread_self(), name_.substr(0, kLongestThreadName).c_str());
  ::prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);  // guest timers want better than the default 50 us
  const ThreadMark mark(*wakeup_);
  while (!stop_.exchange(false, std::memory_order_acq_rel)) run_once(Clock::kNever);
  drain_posted();
}

void Executor::run_once(int64_t timeout_ns) {
  const ThreadMark mark(*wakeup_);
  if (!run_batch_hooks()) {
    wait_for_events(host_ns_until_work(timeout_ns));
    busy_passes_ = 0;
  } else if (++busy_passes_ == kBusyPasses) {
    wait_for_events(0);
    busy_passes_ = 0;
  }
  dispatch_always_ready();
  drain_posted();
  fire_clocks();
}

void Executor::stop() {
  stop_.store(true, std::memory_order_release);
  wakeup_->wake();
}

void Executor::post(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(work));
    if (posted_.size() > 1) return;  // whoever posted the first has woken the loop
  }
  wakeup_->wake();
}

void Executor::drain_posted() {
  std::vector<std::function<void()>> work;
  {
    const std::lock_guard lock(mutex_);
    work.swap(posted_);
  }
  for (std::function<void()>& item : work) {
    item();
    item = nullptr;  // what it owns goes before the next one runs
  }
}

void Executor::attach(Clock& clock) {
  clocks_.push_back(&clock);
  clock.set_wake([wakeup = wakeup_] { wakeup->wake(); });
  wakeup_->wake();
}

void Executor::detach(Clock& clock) {
  std::erase(clocks_, &clock);
  clock.set_wake({});
}

void Executor::add_batch_hook(const void* owner, std::function<bool()> hook) {
  batch_hooks_.push_back({owner, std::make_shared<std::function<bool()>>(std::move(hook))});
}

void Executor::remove_batch_hook(const void* owner) {
  std::erase_if(batch_hooks_, [owner](const BatchHook& hook) { return hook.owner == owner; });
}

bool Executor::run_batch_hooks() {
  bool progress = false;
  // By index, holding the one that runs: a hook may add and remove hooks.
  for (size_t i = 0; i < batch_hooks_.size(); ++i) {
    const std::shared_ptr<std::function<bool()>> call = batch_hooks_[i].call;
    progress |= (*call)();
  }
  return progress;
}

void Executor::fire_clocks() {
  // By index: a callback may attach and detach clocks.
  for (size_t i = 0; i < clocks_.size(); ++i) {
    if (clocks_[i]->host_ns_until_due() == 0) clocks_[i]->run_due();
  }
}

int64_t Executor::host_ns_until_work(int64_t timeout_ns) {
  int64_t wait = std::max<int64_t>(timeout_ns, 0);
  {
    const std::lock_guard lock(mutex_);
    if (!posted_.empty() || always_ready_ != 0 || stop_.load(std::memory_order_acquire)) return 0;
  }
  for (const Clock* clock : clocks_) wait = std::min(wait, clock->host_ns_until_due());
  return wait;
}

int Executor::next_events(std::span<epoll_event> events, int64_t timeout_ns) {
  if (timeout_ns == 0) return epoll_wait_ns(epoll_.get(), events, 0);
  const AdaptivePoll::Wait wait(poll_);
  while (wait.look_again() && wait.elapsed_ns() < timeout_ns)
    if (const int count = epoll_wait_ns(epoll_.get(), events, 0); count != 0) return count;
  const int64_t rest = timeout_ns == Clock::kNever ? timeout_ns : std::max<int64_t>(timeout_ns - wait.elapsed_ns(), 0);
  return epoll_wait_ns(epoll_.get(), events, rest);
}

void Executor::wait_for_events(int64_t timeout_ns) {
  std::array<epoll_event, kEventsAPass> events;
  const int count = next_events(events, timeout_ns);
  if (count < 0 && errno != EINTR) log::error("event loop '{}': epoll_wait: {}", name_, errno_text(errno));
  for (int i = 0; i < count; ++i)
    dispatch(events[static_cast<size_t>(i)].data.u64, events[static_cast<size_t>(i)].events);
}

void Executor::dispatch(uint64_t key, uint32_t events) {
  if (key == kWakeKey) {
    uint64_t count = 0;
    while (::read(wakeup_->event.get(), &count, sizeof count) < 0 && errno == EINTR) {
    }
    // After the read and before the work is looked at: a wake that is skipped until here is one whose work is seen.
    wakeup_->pending.exchange(false, std::memory_order_acq_rel);
    return;
  }
  std::shared_ptr<Watch> watch;
  {
    const std::lock_guard lock(mutex_);
    const auto found = watches_.find(static_cast<int>(static_cast<uint32_t>(key)));
    if (found == watches_.end() || found->second->key() != key) return;
    // An earlier callback of this pass may have changed what is asked for.
    const uint32_t asked = found->second->events;
    events &= asked == 0 ? 0 : asked | EPOLLHUP | EPOLLERR;
    if (events == 0) return;
    watch = found->second;
  }
  watch->ready(events);
}

void Executor::dispatch_always_ready() {
  std::vector<std::pair<uint64_t, uint32_t>> ready;
  {
    const std::lock_guard lock(mutex_);
    if (always_ready_ == 0) return;
    for (const auto& [fd, watch] : watches_) {
      if (watch->always_ready) ready.emplace_back(watch->key(), watch->events & (EPOLLIN | EPOLLOUT));
    }
  }
  for (const auto& [key, events] : ready) dispatch(key, events);
}

void Executor::watch(int fd, uint32_t epoll_events, std::function<void(uint32_t)> ready) {
  const std::lock_guard lock(mutex_);
  auto watch = std::make_shared<Watch>(Watch{.fd = fd, .generation = next_generation_++, .ready = std::move(ready)});
  const auto [at, fresh] = watches_.emplace(fd, std::move(watch));
  if (!fresh) {
    log::error("event loop '{}': descriptor {} is watched twice", name_, fd);
    return;
  }
  set_interest(*at->second, epoll_events);
}

void Executor::modify(int fd, uint32_t epoll_events) {
  const std::lock_guard lock(mutex_);
  if (const auto found = watches_.find(fd); found != watches_.end()) set_interest(*found->second, epoll_events);
}

void Executor::unwatch(int fd) {
  std::shared_ptr<Watch> dropped;  // its captures go after the lock
  const std::lock_guard lock(mutex_);
  const auto found = watches_.find(fd);
  if (found == watches_.end()) return;
  set_interest(*found->second, 0);
  dropped = std::move(found->second);
  watches_.erase(found);
}

void Executor::set_interest(Watch& watch, uint32_t epoll_events) {
  if (watch.events == epoll_events) return;
  const int operation = watch.events == 0 ? EPOLL_CTL_ADD : epoll_events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
  watch.events = epoll_events;
  if (watch.always_ready) {
    always_ready_ -= 1;
    watch.always_ready = false;
    if (epoll_events == 0) return;
  }
  epoll_event interest{.events = epoll_events, .data = {.u64 = watch.key()}};
  if (::epoll_ctl(epoll_.get(), operation, watch.fd, &interest) == 0) return;
  if (errno == EPERM) {  // regular files and some devices have no readiness to wait for: they are always ready
    watch.always_ready = true;
    always_ready_ += 1;
    wakeup_->wake();
    return;
  }
  log::error("event loop '{}': cannot watch descriptor {}: {}", name_, watch.fd, errno_text(errno));
}

}  // namespace kite

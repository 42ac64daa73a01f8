#include "display/spice/spice_core.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>

// The library's names for what is ours to define.
struct SpiceTimer {
  SpiceTimer(kite::Clock& clock, std::function<void()> call) : timer(clock, std::move(call)) {}
  kite::Timer timer;
};
struct SpiceWatch {
  int fd, mask;
};

namespace kite::display {

namespace {

thread_local SpiceCore* current = nullptr;

uint32_t to_epoll(int mask) {
  return ((mask & SPICE_WATCH_EVENT_READ) != 0 ? EPOLLIN : 0u) |
         ((mask & SPICE_WATCH_EVENT_WRITE) != 0 ? EPOLLOUT : 0u);
}

// An error shows in what the library does next with the socket.
int from_epoll(uint32_t events) {
  constexpr uint32_t kEnd = EPOLLHUP | EPOLLERR;
  return ((events & (EPOLLIN | kEnd)) != 0 ? SPICE_WATCH_EVENT_READ : 0) |
         ((events & (EPOLLOUT | kEnd)) != 0 ? SPICE_WATCH_EVENT_WRITE : 0);
}

template <class Thing>
void drop(std::vector<std::unique_ptr<Thing>>& things, const Thing* thing) {
  const auto found = std::ranges::find(things, thing, &std::unique_ptr<Thing>::get);
  if (found == things.end()) return;
  const std::unique_ptr<Thing> gone = std::move(*found);
  things.erase(found);
}

}  // namespace

// The functions of the library's table.
struct SpiceCoreCalls {
  static SpiceTimer* add_timer(SpiceTimerFunc call, void* context) {
    SpiceCore& core = *current;
    return core.timers_
        .emplace_back(std::make_unique<SpiceTimer>(core.clock_,
                                                   [&core, call, context] {
                                                     call(context);
                                                     core.hooks_.after();
                                                   }))
        .get();
  }
  static void start_timer(SpiceTimer* timer, uint32_t milliseconds) {
    timer->timer.arm_at(timer->timer.clock().now() + int64_t{milliseconds} * 1'000'000);
  }
  static void cancel_timer(SpiceTimer* timer) { timer->timer.disarm(); }
  static void remove_timer(SpiceTimer* timer) { drop(current->timers_, timer); }

  // The library is handed its clients. Where it listens by itself, it is to stop that.
  static SpiceWatch* add_watch(int fd, int mask, SpiceWatchFunc call, void* context) {
    SpiceCore& core = *current;
    int listens = 0;
    socklen_t length = sizeof listens;
    if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens != 0) {
      ::shutdown(fd, SHUT_RDWR);
      mask = 0;
    }
    SpiceWatch* const watch = core.watches_.emplace_back(std::make_unique<SpiceWatch>(SpiceWatch{fd, mask})).get();
    core.executor_.watch(fd, to_epoll(mask), [&core, watch, call, context](uint32_t events) {
      call(watch->fd, from_epoll(events) & watch->mask, context);
      core.hooks_.after();
    });
    return watch;
  }
  static void update_watch(SpiceWatch* watch, int mask) {
    watch->mask = mask;
    current->executor_.modify(watch->fd, to_epoll(mask));
  }
  static void remove_watch(SpiceWatch* watch) {
    current->executor_.unwatch(watch->fd);
    drop(current->watches_, watch);
  }

  static void channel_event(int event, SpiceChannelEventInfo* info) { current->hooks_.channel(event, *info); }
};

SpiceCore::SpiceCore(Executor& executor, Clock& clock, Hooks hooks)
    : executor_(executor), clock_(clock), hooks_(std::move(hooks)) {
  current = this;
}

SpiceCore::~SpiceCore() {
  for (const auto& watch : watches_) executor_.unwatch(watch->fd);
  current = nullptr;
}

SpiceCoreInterface* SpiceCore::interface() const {
  static SpiceCoreInterface table{.base = {.type = SPICE_INTERFACE_CORE,
                                           .description = "Kite's event loop",
                                           .major_version = SPICE_INTERFACE_CORE_MAJOR,
                                           .minor_version = SPICE_INTERFACE_CORE_MINOR},
                                  .timer_add = SpiceCoreCalls::add_timer,
                                  .timer_start = SpiceCoreCalls::start_timer,
                                  .timer_cancel = SpiceCoreCalls::cancel_timer,
                                  .timer_remove = SpiceCoreCalls::remove_timer,
                                  .watch_add = SpiceCoreCalls::add_watch,
                                  .watch_update_mask = SpiceCoreCalls::update_watch,
                                  .watch_remove = SpiceCoreCalls::remove_watch,
                                  .channel_event = SpiceCoreCalls::channel_event};
  return &table;
}

}  // namespace kite::display

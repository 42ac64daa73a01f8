// AdaptivePoll: a thread that has nothing to do looks around for a while before it sleeps, since waking it up takes the
// host longer than many waits last. How long it looks follows what its waits have been: it grows while they are short
// enough to be caught and stops as soon as one is not, so that an idle thread sleeps at once. Linux does the same for
// halted virtual CPUs (Documentation/virt/kvm/halt-polling).
#pragma once

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cstdint>

namespace kite {

// Of one thread.
class AdaptivePoll {
 public:
  static constexpr int64_t kLeastNs = 10'000;
  // Never longer than this; 0: it never looks.
  explicit AdaptivePoll(int64_t most_ns = 0) : most_ns_(most_ns) {}

  [[nodiscard]] int64_t window_ns() const { return window_ns_; }
  // A wait took this long, looking and sleeping.
  void waited(int64_t ns) {
    if (ns <= window_ns_) return;
    window_ns_ = ns > most_ns_ ? 0 : std::min(most_ns_, std::max(kLeastNs, 2 * window_ns_));
  }

  // One wait, from construction to destruction.
  class Wait {
   public:
    explicit Wait(AdaptivePoll& poll) : poll_(poll), start_ns_(poll.most_ns_ == 0 ? 0 : now_ns()) {}
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;
    ~Wait() {
      if (poll_.most_ns_ != 0) poll_.waited(elapsed_ns());
    }
    [[nodiscard]] int64_t elapsed_ns() const { return poll_.most_ns_ == 0 ? 0 : now_ns() - start_ns_; }
    // True: look again; threads that have something to do went first. False: it is time to sleep.
    [[nodiscard]] bool look_again() const {
      if (poll_.window_ns_ == 0 || elapsed_ns() >= poll_.window_ns_) return false;
      ::sched_yield();
      return true;
    }

   private:
    static int64_t now_ns() {
      timespec now{};
      ::clock_gettime(CLOCK_MONOTONIC, &now);
      return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
    }
    AdaptivePoll& poll_;
    const int64_t start_ns_;
  };

 private:
  int64_t most_ns_;
  int64_t window_ns_ = 0;
};

}  // namespace kite

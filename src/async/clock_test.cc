#include "async/clock.h"

#include <gtest/gtest.h>

#include <latch>
#include <thread>
#include <vector>

namespace kite {
namespace {

TEST(ManualClock, FiresInOrderOfDeadlineThenOfArming) {
  ManualClock clock;
  std::vector<int> fired;
  Timer late(clock, [&] { fired.push_back(3); });
  Timer first(clock, [&] { fired.push_back(1); });
  Timer second(clock, [&] { fired.push_back(2); });
  late.arm_at(20);
  first.arm_at(10);
  second.arm_at(10);

  clock.advance_to(20);

  EXPECT_EQ(fired, (std::vector{1, 2, 3}));
}

TEST(ManualClock, NowIsTheDeadlineInsideTheCallback) {
  ManualClock clock;
  std::vector<int64_t> seen;
  Timer a(clock, [&] { seen.push_back(clock.now()); });
  Timer b(clock, [&] { seen.push_back(clock.now()); });
  a.arm_at(7);
  b.arm_at(9);

  clock.advance_to(100);

  EXPECT_EQ(seen, (std::vector<int64_t>{7, 9}));
  EXPECT_EQ(clock.now(), 100);
}

TEST(ManualClock, PeriodicTimerFiresAtEveryPeriodOfOneStep) {
  ManualClock clock;
  std::vector<int64_t> seen;
  Timer* self = nullptr;
  Timer timer(clock, [&] {
    seen.push_back(clock.now());
    self->arm_at(clock.now() + 10);
  });
  self = &timer;
  timer.arm_at(10);

  clock.advance(35);

  EXPECT_EQ(seen, (std::vector<int64_t>{10, 20, 30}));
  EXPECT_EQ(timer.deadline(), 40);
}

TEST(ManualClock, StepGoesToTheNextDeadline) {
  ManualClock clock;
  int fired = 0;
  Timer timer(clock, [&] { ++fired; });
  timer.arm_at(500);

  EXPECT_TRUE(clock.step());
  EXPECT_FALSE(clock.step());

  EXPECT_EQ(clock.now(), 500);
  EXPECT_EQ(fired, 1);
}

TEST(ManualClock, NeverGoesBack) {
  ManualClock clock;
  clock.advance_to(50);

  clock.advance_to(20);
  clock.advance(-20);

  EXPECT_EQ(clock.now(), 50);
}

TEST(ManualClock, PastDeadlineFiresAtTheNextStepWithoutMovingBack) {
  ManualClock clock;
  clock.advance_to(50);
  int64_t seen = 0;
  Timer timer(clock, [&] { seen = clock.now(); });
  timer.arm_at(10);

  clock.advance_to(50);

  EXPECT_EQ(seen, 50);
}

TEST(ManualClock, AdvanceSaturatesAtTheEndOfTime) {
  ManualClock clock;
  int fired = 0;
  Timer timer(clock, [&] { ++fired; });
  timer.arm_at(Clock::kNever);
  clock.advance(10);

  clock.advance(Clock::kNever);

  EXPECT_EQ(clock.now(), Clock::kNever);
  EXPECT_EQ(fired, 1);
}

TEST(ManualClock, CallbackThatStepsTheClockDoesNotFireItselfAgain) {
  ManualClock clock;
  int fired = 0;
  Timer* self = nullptr;
  Timer timer(clock, [&] {
    if (++fired == 1) {
      self->arm_at(clock.now() + 1);
      clock.advance(5);
    }
  });
  self = &timer;
  timer.arm_at(10);

  clock.advance_to(20);

  EXPECT_EQ(fired, 2);
  EXPECT_EQ(clock.now(), 20);
}

TEST(Timer, DisarmedDoesNotFire) {
  ManualClock clock;
  int fired = 0;
  Timer timer(clock, [&] { ++fired; });
  timer.arm_at(10);

  timer.disarm();
  clock.advance_to(20);

  EXPECT_EQ(fired, 0);
  EXPECT_FALSE(timer.armed());
}

TEST(Timer, ArmingAgainReplacesTheDeadline) {
  ManualClock clock;
  std::vector<int64_t> seen;
  Timer timer(clock, [&] { seen.push_back(clock.now()); });
  timer.arm_at(10);

  timer.arm_at(30);
  clock.advance_to(100);

  EXPECT_EQ(seen, (std::vector<int64_t>{30}));
}

TEST(Timer, DestroyedWhileArmedDoesNotFire) {
  ManualClock clock;
  int fired = 0;
  {
    Timer timer(clock, [&] { ++fired; });
    timer.arm_at(10);
  }

  clock.advance_to(20);

  EXPECT_EQ(fired, 0);
  EXPECT_EQ(clock.next_deadline(), Clock::kNever);
}

TEST(Timer, CallbackMayDisarmAnotherOfTheSameInstant) {
  ManualClock clock;
  int fired = 0;
  Timer second(clock, [&] { ++fired; });
  Timer first(clock, [&] { second.disarm(); });
  first.arm_at(10);
  second.arm_at(10);

  clock.advance_to(10);

  EXPECT_EQ(fired, 0);
}

TEST(Timer, CallbackMayDestroyItsOwnTimer) {
  ManualClock clock;
  auto owned = std::make_shared<std::vector<int>>(1, 42);
  std::weak_ptr<std::vector<int>> watch = owned;
  std::unique_ptr<Timer> timer;
  int seen = 0;
  timer = std::make_unique<Timer>(clock, [&timer, &seen, owned = std::move(owned)] {
    timer.reset();
    seen = owned->front();  // the captures live until the call ends
  });
  timer->arm_at(1);

  clock.advance_to(1);

  EXPECT_EQ(seen, 42);
  EXPECT_TRUE(watch.expired());
}

TEST(Timer, DestructorWaitsForACallbackInAnotherThread) {
  ManualClock clock;
  std::latch inside(1);
  std::atomic<bool> finished{false};
  auto timer = std::make_unique<Timer>(clock, [&] {
    inside.count_down();
    for (int i = 0; i < 1000; ++i) std::this_thread::yield();
    finished = true;
  });
  timer->arm_at(1);
  std::thread stepper([&] { clock.advance_to(1); });
  inside.wait();

  timer.reset();

  EXPECT_TRUE(finished);
  stepper.join();
}

TEST(Timer, ArmedForThePastByItsOwnCallbackWaitsForTheNextPass) {
  HostClock clock(HostClock::Kind::kMonotonic);
  int fired = 0;
  Timer* self = nullptr;
  Timer timer(clock, [&] {
    ++fired;
    self->arm_at(0);
  });
  self = &timer;
  timer.arm_at(0);

  clock.run_due();
  EXPECT_EQ(fired, 1);
  clock.run_due();

  EXPECT_EQ(fired, 2);
}

TEST(Clock, WakesWhenTheEarliestDeadlineComesNearer) {
  ManualClock clock;
  int wakes = 0;
  clock.set_wake([&] { ++wakes; });
  Timer a(clock, [] {});
  Timer b(clock, [] {});

  a.arm_at(100);
  EXPECT_EQ(wakes, 1);
  b.arm_at(200);
  EXPECT_EQ(wakes, 1);
  b.arm_at(50);
  EXPECT_EQ(wakes, 2);
  b.arm_at(60);

  EXPECT_EQ(wakes, 2);
}

TEST(Clock, ADeadlineThatComesBackWakesNobody) {
  ManualClock clock;
  int wakes = 0;
  clock.set_wake([&] { ++wakes; });
  Timer tick(clock, [] {});
  tick.arm_at(100);
  EXPECT_EQ(wakes, 1);

  tick.arm_at(1000);
  tick.disarm();
  tick.arm_at(100);
  EXPECT_EQ(wakes, 1) << "who was told of 100 still wakes up for it";
  tick.arm_at(99);
  EXPECT_EQ(wakes, 2);
}

TEST(HostClock, WhoAsksIsToldOfWhatComesNearerThanTheAnswer) {
  HostClock clock(HostClock::Kind::kMonotonic);
  int wakes = 0;
  clock.set_wake([&] { ++wakes; });
  Timer tick(clock, [] {});
  const int64_t now = clock.now();
  constexpr int64_t kHour = int64_t{3600} * 1'000'000'000;
  tick.arm_at(now + kHour);
  EXPECT_EQ(wakes, 1);
  tick.arm_at(now + 3 * kHour);
  static_cast<void>(clock.host_ns_until_due());
  tick.arm_at(now + 2 * kHour);
  EXPECT_EQ(wakes, 2);
}

TEST(HostClock, IsDueAtOnceForPastDeadlines) {
  HostClock clock(HostClock::Kind::kMonotonic);
  Timer timer(clock, [] {});

  timer.arm_at(clock.now() - 1);

  EXPECT_EQ(clock.host_ns_until_due(), 0);
}

TEST(HostClock, MonotonicWaitIsTheDistance) {
  HostClock clock(HostClock::Kind::kMonotonic);
  Timer timer(clock, [] {});
  constexpr int64_t kHour = 3'600'000'000'000;

  timer.arm_at(clock.now() + 2 * kHour);

  EXPECT_GT(clock.host_ns_until_due(), kHour);
  EXPECT_LE(clock.host_ns_until_due(), 2 * kHour);
}

TEST(HostClock, RealtimeIsLookedAtEverySecond) {
  HostClock clock(HostClock::Kind::kRealtime);
  Timer timer(clock, [] {});

  timer.arm_at(clock.now() + 3'600'000'000'000);

  EXPECT_EQ(clock.host_ns_until_due(), 1'000'000'000);
}

TEST(VirtualClock, StartsPausedAtZero) {
  VirtualClock clock;

  EXPECT_FALSE(clock.running());
  EXPECT_EQ(clock.now(), 0);
  EXPECT_EQ(clock.now(), 0);
}

TEST(VirtualClock, RunsAfterResume) {
  VirtualClock clock;
  clock.resume();
  const int64_t before = clock.now();

  while (clock.now() == before) {
  }

  EXPECT_GT(clock.now(), before);
}

TEST(VirtualClock, StandsStillWhilePausedAndGoesOnWithoutAJump) {
  VirtualClock clock;
  clock.set_now(1'000'000'000'000);
  clock.resume();
  clock.pause();
  const int64_t paused = clock.now();
  HostClock host(HostClock::Kind::kMonotonic);
  const int64_t before = host.now();
  while (host.now() < before + 2'000'000) {
  }
  EXPECT_EQ(clock.now(), paused);

  const int64_t host_at_resume = host.now();
  clock.resume();
  const int64_t guest = clock.now();

  EXPECT_GE(guest, paused);
  EXPECT_LE(guest - paused, host.now() - host_at_resume);
}

TEST(VirtualClock, NothingComesDueWhilePaused) {
  VirtualClock clock;
  Timer timer(clock, [] {});
  timer.arm_at(0);
  EXPECT_EQ(clock.host_ns_until_due(), Clock::kNever);

  clock.resume();

  EXPECT_EQ(clock.host_ns_until_due(), 0);
}

TEST(VirtualClock, SetNowKeepsWhetherItRuns) {
  VirtualClock clock;

  clock.set_now(5'000);

  EXPECT_EQ(clock.now(), 5'000);
  EXPECT_FALSE(clock.running());
}

TEST(VirtualClock, ResumeWakesTheExecutor) {
  VirtualClock clock;
  int wakes = 0;
  clock.set_wake([&] { ++wakes; });

  clock.resume();

  EXPECT_EQ(wakes, 1);
}

TEST(VirtualClock, ReadersNeverSeeTimeGoBackWhileItIsPausedAndResumed) {
  VirtualClock clock;
  std::atomic<bool> stop{false};
  std::atomic<int> backward{0};
  std::thread reader([&] {
    int64_t last = 0;
    while (!stop) {
      const int64_t now = clock.now();
      if (now < last) ++backward;
      last = now;
    }
  });

  for (int i = 0; i < 20'000; ++i) {
    clock.resume();
    clock.pause();
  }
  stop = true;
  reader.join();

  EXPECT_EQ(backward, 0);
}

}  // namespace
}  // namespace kite

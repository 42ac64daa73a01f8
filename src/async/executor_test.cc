#include "async/executor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/epoll.h>

#include <array>
#include <thread>

#include "async/task.h"

namespace kite {
namespace {

std::unique_ptr<Executor> make_executor() { return std::move(*Executor::create("test-loop")); }

struct Pipe {
  Fd in, out;
};
Pipe make_pipe() {
  std::array<int, 2> fds{};
  EXPECT_EQ(::pipe2(fds.data(), O_CLOEXEC | O_NONBLOCK), 0);
  return {Fd(fds[0]), Fd(fds[1])};
}
void put(const Fd& fd) { ASSERT_EQ(::write(fd.get(), "x", 1), 1); }
void drain(int fd) {
  std::array<char, 16> buffer;
  while (::read(fd, buffer.data(), buffer.size()) > 0) {
  }
}

TEST(Executor, RunsPostedWorkInOrder) {
  auto executor = make_executor();
  std::vector<int> ran;
  executor->post([&] { ran.push_back(1); });
  executor->post([&] { ran.push_back(2); });

  executor->run_once(0);

  EXPECT_EQ(ran, (std::vector{1, 2}));
}

TEST(Executor, WorkPostedByWorkRunsInTheNextPass) {
  auto executor = make_executor();
  int ran = 0;
  executor->post([&] { executor->post([&] { ++ran; }); });

  executor->run_once(0);
  EXPECT_EQ(ran, 0);
  executor->run_once(Clock::kNever);

  EXPECT_EQ(ran, 1);
}

TEST(Executor, RunNamesItsThreadAndKnowsIt) {
  auto executor = make_executor();
  std::array<char, 16> name{};
  bool inside = false;
  std::thread thread([&] { executor->run(); });

  executor->post([&] {
    ::pthread_getname_np(::pthread_self(), name.data(), name.size());
    inside = executor->on_this_thread();
    executor->stop();
  });
  thread.join();

  EXPECT_STREQ(name.data(), "test-loop");
  EXPECT_TRUE(inside);
  EXPECT_FALSE(executor->on_this_thread());
}

TEST(Executor, StopBeforeRunReturnsAtOnceAndRunsWhatWasPosted) {
  auto executor = make_executor();
  int ran = 0;
  executor->post([&] { ++ran; });
  executor->stop();

  executor->run();

  EXPECT_EQ(ran, 1);
}

TEST(Executor, RunsAgainAfterStop) {
  auto executor = make_executor();
  executor->stop();
  executor->run();
  int ran = 0;
  executor->post([&] {
    ++ran;
    executor->stop();
  });

  executor->run();

  EXPECT_EQ(ran, 1);
}

TEST(Executor, PostsFromManyThreadsAllRun) {
  auto executor = make_executor();
  constexpr int kThreads = 4;
  constexpr int kPosts = 5'000;
  int ran = 0;
  std::vector<std::thread> posters;
  for (int i = 0; i < kThreads; ++i) {
    posters.emplace_back([&] {
      for (int j = 0; j < kPosts; ++j) {
        executor->post([&] {
          if (++ran == kThreads * kPosts) executor->stop();
        });
      }
    });
  }

  executor->run();
  for (std::thread& poster : posters) poster.join();

  EXPECT_EQ(ran, kThreads * kPosts);
}

TEST(Executor, ReportsReadableDescriptor) {
  auto executor = make_executor();
  Pipe pipe = make_pipe();
  uint32_t seen = 0;
  executor->watch(pipe.in.get(), EPOLLIN, [&](uint32_t events) {
    seen = events;
    drain(pipe.in.get());
  });
  executor->run_once(0);
  EXPECT_EQ(seen, 0u);

  put(pipe.out);
  executor->run_once(Clock::kNever);

  EXPECT_EQ(seen, static_cast<uint32_t>(EPOLLIN));
  executor->unwatch(pipe.in.get());
}

TEST(Executor, UnwatchedDescriptorIsNotReported) {
  auto executor = make_executor();
  Pipe pipe = make_pipe();
  int calls = 0;
  executor->watch(pipe.in.get(), EPOLLIN, [&](uint32_t) { ++calls; });
  put(pipe.out);

  executor->unwatch(pipe.in.get());
  executor->run_once(0);

  EXPECT_EQ(calls, 0);
}

TEST(Executor, CallbackMayUnwatchAnotherReadyDescriptor) {
  auto executor = make_executor();
  Pipe a = make_pipe();
  Pipe b = make_pipe();
  int calls = 0;
  const auto once = [&](uint32_t) {
    ++calls;
    executor->unwatch(a.in.get());
    executor->unwatch(b.in.get());
  };
  executor->watch(a.in.get(), EPOLLIN, once);
  executor->watch(b.in.get(), EPOLLIN, once);
  put(a.out);
  put(b.out);

  executor->run_once(0);
  executor->run_once(0);

  EXPECT_EQ(calls, 1);
}

TEST(Executor, LateEventOfAnEarlierWatchDoesNotReachItsSuccessor) {
  auto executor = make_executor();
  Pipe a = make_pipe();
  Pipe b = make_pipe();
  Pipe fresh = make_pipe();
  int stale = 0;
  const auto replace_other = [&](int other) {
    return [&, other](uint32_t) {
      executor->unwatch(other);
      ::dup2(fresh.in.get(), other);
      executor->watch(other, EPOLLIN, [&](uint32_t) { ++stale; });
    };
  };
  executor->watch(a.in.get(), EPOLLIN, replace_other(b.in.get()));
  executor->watch(b.in.get(), EPOLLIN, replace_other(a.in.get()));
  put(a.out);
  put(b.out);

  executor->run_once(0);

  EXPECT_EQ(stale, 0);
}

TEST(Executor, NoInterestMeansNotEvenHangup) {
  auto executor = make_executor();
  Pipe pipe = make_pipe();
  uint32_t seen = 0;
  executor->watch(pipe.in.get(), 0, [&](uint32_t events) { seen = events; });
  pipe.out.reset();
  executor->run_once(0);
  EXPECT_EQ(seen, 0u);

  executor->modify(pipe.in.get(), EPOLLIN);
  executor->run_once(0);

  EXPECT_NE(seen & EPOLLHUP, 0u);
  executor->unwatch(pipe.in.get());
}

TEST(Executor, RegularFileIsAlwaysReady) {
  auto executor = make_executor();
  const Fd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  int calls = 0;
  executor->watch(file.get(), EPOLLIN, [&](uint32_t events) {
    EXPECT_EQ(events, static_cast<uint32_t>(EPOLLIN));
    ++calls;
  });

  executor->run_once(Clock::kNever);
  executor->run_once(Clock::kNever);
  EXPECT_EQ(calls, 2);
  executor->modify(file.get(), 0);
  executor->run_once(0);
  EXPECT_EQ(calls, 2);
  executor->modify(file.get(), EPOLLIN);
  executor->run_once(Clock::kNever);

  EXPECT_EQ(calls, 3);
  executor->unwatch(file.get());
  executor->run_once(0);
  EXPECT_EQ(calls, 3);
}

TEST(Executor, WatchFromAnotherThreadReachesASleepingLoop) {
  auto executor = make_executor();
  Pipe pipe = make_pipe();
  std::thread thread([&] { executor->run(); });
  int calls = 0;

  executor->watch(pipe.in.get(), EPOLLIN, [&](uint32_t) {
    ++calls;
    executor->unwatch(pipe.in.get());
    executor->stop();
  });
  put(pipe.out);
  thread.join();

  EXPECT_EQ(calls, 1);
}

TEST(Executor, FiresTimersOfAttachedClocks) {
  HostClock clock(HostClock::Kind::kMonotonic);
  auto executor = make_executor();
  executor->attach(clock);
  const int64_t deadline = clock.now() + 2'000'000;
  int64_t fired_at = 0;
  Timer timer(clock, [&] { fired_at = clock.now(); });
  timer.arm_at(deadline);

  while (fired_at == 0) executor->run_once(Clock::kNever);

  EXPECT_GE(fired_at, deadline);
}

TEST(Executor, ArmingFromAnotherThreadWakesASleepingLoop) {
  VirtualClock clock;
  clock.resume();
  auto executor = make_executor();
  executor->attach(clock);
  std::thread thread([&] { executor->run(); });
  Timer timer(clock, [&] { executor->stop(); });

  timer.arm_at(clock.now());
  thread.join();

  EXPECT_FALSE(timer.armed());
}

TEST(Executor, PausedClockFiresNothingUntilItIsResumed) {
  VirtualClock clock;
  auto executor = make_executor();
  executor->attach(clock);
  int fired = 0;
  Timer timer(clock, [&] { ++fired; });
  timer.arm_at(0);
  executor->run_once(0);
  EXPECT_EQ(fired, 0);

  clock.resume();
  executor->run_once(Clock::kNever);

  EXPECT_EQ(fired, 1);
}

TEST(Executor, DetachedClockFiresNothing) {
  HostClock clock(HostClock::Kind::kMonotonic);
  auto executor = make_executor();
  executor->attach(clock);
  int fired = 0;
  Timer timer(clock, [&] { ++fired; });
  timer.arm_at(0);

  executor->detach(clock);
  executor->run_once(0);

  EXPECT_EQ(fired, 0);
}

TEST(Executor, ClockMayOutliveItsExecutor) {
  HostClock clock(HostClock::Kind::kMonotonic);
  {
    auto executor = make_executor();
    executor->attach(clock);
  }
  Timer timer(clock, [] {});

  timer.arm_at(0);

  EXPECT_TRUE(timer.armed());
}

Task<> record_threads(Executor& executor, std::thread::id& before, std::thread::id& after) {
  before = std::this_thread::get_id();
  co_await executor.schedule();
  after = std::this_thread::get_id();
}

TEST(Executor, ScheduleContinuesOnItsThread) {
  auto executor = make_executor();
  std::thread thread([&] { executor->run(); });
  const std::thread::id loop = thread.get_id();
  TaskScope scope;
  std::thread::id before, after;

  scope.spawn(record_threads(*executor, before, after));
  scope.wait_idle();
  executor->stop();
  thread.join();

  EXPECT_EQ(before, std::this_thread::get_id());
  EXPECT_EQ(after, loop);
}

}  // namespace
}  // namespace kite

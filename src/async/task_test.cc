#include "async/task.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>

#include "async/executor.h"

namespace kite {
namespace {

// Suspends its awaiter until open() resumes it.
struct Gate {
  std::coroutine_handle<> waiting;
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) { waiting = handle; }
  void await_resume() const noexcept {}
  void open() { std::exchange(waiting, nullptr).resume(); }
};

Task<int> answer(int value) { co_return value; }
Task<std::unique_ptr<int>> boxed(int value) { co_return std::make_unique<int>(value); }

Task<int> sum_to(int count) {
  int sum = 0;
  for (int i = 1; i <= count; ++i) sum += co_await answer(i);
  co_return sum;
}

Task<> store_sum(int count, int& out) { out = co_await sum_to(count); }
Task<> store_box(int& out) { out = *co_await boxed(7); }
Task<> pass(Gate& gate, std::string text, std::string& out) {
  co_await gate;
  out = text;
}

struct SetOnDestruction {
  bool* flag;
  explicit SetOnDestruction(bool* set) : flag(set) {}
  SetOnDestruction(SetOnDestruction&& other) noexcept : flag(std::exchange(other.flag, nullptr)) {}
  SetOnDestruction& operator=(SetOnDestruction&&) = delete;
  ~SetOnDestruction() {
    if (flag != nullptr) *flag = true;
  }
};
Task<> hold(Gate& gate, SetOnDestruction held) {
  co_await gate;
  (void)held;
}
Task<> observe_after_join(TaskScope& scope, const bool& flag, bool& seen, bool& done) {
  co_await scope.join();
  seen = flag;
  done = true;
}

TEST(Task, IsLazy) {
  int out = 0;
  const auto task = store_sum(3, out);

  EXPECT_EQ(out, 0);
}

TEST(Task, AwaitsChildrenAndAnswersTheirValues) {
  TaskScope scope;
  int out = 0;

  scope.spawn(store_sum(100, out));

  EXPECT_EQ(out, 5050);
  EXPECT_TRUE(scope.idle());
}

TEST(Task, LongChainsOfReadyChildrenDoNotGrowTheStack) {
  TaskScope scope;
  int out = 0;

  scope.spawn(store_sum(20'000, out));

  EXPECT_EQ(out, 200'010'000);
}

TEST(Task, MovesMoveOnlyValues) {
  TaskScope scope;
  int out = 0;

  scope.spawn(store_box(out));

  EXPECT_EQ(out, 7);
}

TEST(Task, ParametersLiveAcrossSuspension) {
  TaskScope scope;
  Gate gate;
  std::string out;
  scope.spawn(pass(gate, std::string(100, 'k'), out));
  EXPECT_EQ(out, "");

  gate.open();

  EXPECT_EQ(out, std::string(100, 'k'));
}

TEST(TaskScope, IsBusyUntilItsTasksEnd) {
  TaskScope scope;
  Gate first, second;
  std::string out;
  scope.spawn(pass(first, "1", out));
  scope.spawn(pass(second, "2", out));

  first.open();
  EXPECT_FALSE(scope.idle());
  second.open();

  EXPECT_TRUE(scope.idle());
}

TEST(TaskScope, JoinResumesAfterTheLastFrameIsGone) {
  TaskScope scope;
  TaskScope joiners;
  Gate gate;
  bool destroyed = false, seen = false, done = false;
  scope.spawn(hold(gate, SetOnDestruction(&destroyed)));
  joiners.spawn(observe_after_join(scope, destroyed, seen, done));
  EXPECT_FALSE(done);

  gate.open();

  EXPECT_TRUE(done);
  EXPECT_TRUE(seen);
}

TEST(TaskScope, JoinOfAnIdleScopeGoesOnAtOnce) {
  TaskScope scope;
  TaskScope joiners;
  bool flag = true, seen = false, done = false;

  joiners.spawn(observe_after_join(scope, flag, seen, done));

  EXPECT_TRUE(done);
}

Task<> hop(Executor& executor, std::atomic<int>& count) {
  co_await executor.schedule();
  ++count;
}

TEST(TaskScope, WaitIdleWaitsForOtherThreads) {
  auto executor = std::move(*Executor::create("hops"));
  std::thread thread([&] { executor->run(); });
  std::atomic<int> count{0};

  for (int round = 0; round < 500; ++round) {
    TaskScope scope;
    scope.spawn(hop(*executor, count));
    scope.spawn(hop(*executor, count));
    scope.wait_idle();
  }
  executor->stop();
  thread.join();

  EXPECT_EQ(count, 1000);
}

TEST(TaskScopeDeathTest, DestroyingABusyScopeEndsTheProcess) {
  EXPECT_DEATH(
      {
        Gate gate;
        std::string out;
        TaskScope scope;
        scope.spawn(pass(gate, "", out));
      },
      "");
}

}  // namespace
}  // namespace kite

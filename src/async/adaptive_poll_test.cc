#include "async/adaptive_poll.h"

#include <gtest/gtest.h>

namespace kite {
namespace {

TEST(AdaptivePollTest, StartsBySleepingAtOnce) {
  AdaptivePoll poll(100'000);
  const AdaptivePoll::Wait wait(poll);
  EXPECT_FALSE(wait.look_again());
}

TEST(AdaptivePollTest, ShortWaitsMakeItLookLonger) {
  AdaptivePoll poll(50'000);
  poll.waited(40'000);
  EXPECT_EQ(poll.window_ns(), AdaptivePoll::kLeastNs);
  poll.waited(40'000);
  EXPECT_EQ(poll.window_ns(), 2 * AdaptivePoll::kLeastNs);
  poll.waited(40'000);
  poll.waited(45'000);
  EXPECT_EQ(poll.window_ns(), 50'000) << "the most";
}

TEST(AdaptivePollTest, AWaitThatWasCaughtChangesNothing) {
  AdaptivePoll poll(50'000);
  poll.waited(40'000);
  poll.waited(AdaptivePoll::kLeastNs);
  EXPECT_EQ(poll.window_ns(), AdaptivePoll::kLeastNs);
}

TEST(AdaptivePollTest, ALongWaitEndsTheLooking) {
  AdaptivePoll poll(50'000);
  poll.waited(40'000);
  poll.waited(50'001);
  EXPECT_EQ(poll.window_ns(), 0);
}

TEST(AdaptivePollTest, WithoutAMostItNeverLooks) {
  AdaptivePoll poll;
  poll.waited(1);
  EXPECT_EQ(poll.window_ns(), 0);
}

TEST(AdaptivePollTest, LookingEndsWithItsWindow) {
  AdaptivePoll poll(1'000'000'000);
  poll.waited(1000);
  {
    const AdaptivePoll::Wait wait(poll);
    while (wait.look_again()) {
    }
    EXPECT_GE(wait.elapsed_ns(), AdaptivePoll::kLeastNs);
  }
  EXPECT_EQ(poll.window_ns(), 2 * AdaptivePoll::kLeastNs) << "the wait itself was counted";
}

}  // namespace
}  // namespace kite

#include "machine/event_limiter.h"

#include <gtest/gtest.h>

#include <vector>

namespace kite::machine {
namespace {

struct EventLimiterTest : ::testing::Test {
  void offer(const std::string& name, int value) {
    limiter.offer(name, [this, value] { announced.push_back(value); });
  }
  std::vector<int> take() { return std::exchange(announced, {}); }

  ManualClock clock;
  EventLimiter limiter{clock};
  std::vector<int> announced;
};

TEST_F(EventLimiterTest, TheFirstComesAtOnceAndTheLastAtTheEnd) {
  for (int value = 1; value <= 5; ++value) offer("a", value);
  EXPECT_EQ(take(), std::vector{1});
  clock.advance(EventLimiter::kInterval - 1);
  EXPECT_EQ(take(), std::vector<int>{});
  clock.advance(1);
  EXPECT_EQ(take(), std::vector{5});
}

TEST_F(EventLimiterTest, WhatCameLateBeginsAnIntervalOfItsOwn) {
  offer("a", 1);
  offer("a", 2);
  clock.advance(EventLimiter::kInterval);
  offer("a", 3);
  EXPECT_EQ(take(), (std::vector{1, 2}));
  clock.advance(EventLimiter::kInterval);
  EXPECT_EQ(take(), std::vector{3});
  clock.advance(EventLimiter::kInterval);
  offer("a", 4);
  EXPECT_EQ(take(), std::vector{4});
}

TEST_F(EventLimiterTest, NamesAreLimitedEachForItself) {
  offer("a", 1);
  offer("b", 2);
  offer("a", 3);
  EXPECT_EQ(take(), (std::vector{1, 2}));
}

}  // namespace
}  // namespace kite::machine

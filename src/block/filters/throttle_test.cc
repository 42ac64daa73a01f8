#include <gtest/gtest.h>

#include "block/filters/filters.h"

namespace kite::block {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

TEST(LeakyBucket, WithoutARateNothingWaits) {
  LeakyBucket bucket;
  EXPECT_EQ(bucket.take(1u << 30, 0), 0);
  EXPECT_EQ(bucket.take(1u << 30, 0), 0);
}

TEST(LeakyBucket, LetsTheRatePass) {
  LeakyBucket bucket;
  bucket.configure({.rate = 1000});
  int64_t now = kSecond;
  uint64_t passed = 0;
  while (now < 11 * kSecond) {
    const int64_t wait = bucket.take(10, now);
    if (wait == 0) passed += 10;
    now += wait;
  }
  EXPECT_NEAR(static_cast<double>(passed), 10'000, 200);
}

TEST(LeakyBucket, ABurstComesAtOnce) {
  LeakyBucket bucket;
  bucket.configure({.rate = 100, .burst = 1000});
  uint64_t passed = 0;
  while (bucket.take(50, kSecond) == 0) passed += 50;
  EXPECT_GE(passed, 1000u);
  EXPECT_LE(passed, 1100u);
}

TEST(LeakyBucket, ALargeRequestPassesAndThoseBehindItPay) {
  LeakyBucket bucket;
  bucket.configure({.rate = 100});
  EXPECT_EQ(bucket.take(1000, kSecond), 0);
  EXPECT_NEAR(static_cast<double>(bucket.take(1, kSecond)), 9.9e9, 1e8);
}

}  // namespace
}  // namespace kite::block

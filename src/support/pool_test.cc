#include "support/pool.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <set>

namespace kite {
namespace {

struct Counted {
  explicit Counted(int* alive) : alive(alive) { ++*alive; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --*alive; }
  int* alive;
  uint64_t rest[40] = {};
};

constexpr int kMany = 20'000;  // several chunks of them

TEST(Pool, ObjectsStayWhereTheyAre) {
  Slabs slabs;
  Pool<uint64_t> pool(slabs);
  uint64_t& first = pool.add(7u);
  for (uint64_t i = 0; i < uint64_t{100} * kMany; ++i) pool.add(i);
  EXPECT_EQ(first, 7u);
}

TEST(Pool, EachIsMetOnce) {
  int alive = 0;  // outlives the pool
  Slabs slabs;
  Pool<Counted> pool(slabs);
  std::set<const Counted*> made, met;
  for (int i = 0; i < kMany; ++i) made.insert(&pool.add(&alive));
  pool.for_each([&](const Counted& object) { met.insert(&object); });
  EXPECT_EQ(made.size(), size_t{kMany});
  EXPECT_EQ(met, made);
}

TEST(Pool, ClearDestroysAllAndItBeginsAnew) {
  int alive = 0, met = 0;
  Slabs slabs;
  Pool<Counted> pool(slabs);
  for (int i = 0; i < kMany; ++i) pool.add(&alive);
  pool.clear();
  EXPECT_EQ(alive, 0);
  pool.add(&alive);
  pool.for_each([&](const Counted&) { ++met; });
  EXPECT_EQ(met, 1);
}

TEST(Pool, AnEmptyOneHasNothing) {
  Slabs slabs;
  const Pool<Counted> pool(slabs);
  pool.for_each([](const Counted&) { FAIL(); });
}

TEST(Pool, WhatIsLeftGoesWithIt) {
  int alive = 0;
  {
    Slabs slabs;
    Pool<Counted> pool(slabs);
    pool.add(&alive);
  }
  EXPECT_EQ(alive, 0);
}

TEST(Pool, ObjectsHaveNumbersInTheOrderOfTheirMaking) {
  Slabs slabs;
  Pool<std::array<uint64_t, 3>> pool(slabs);
  EXPECT_EQ(pool.size(), 0u);
  for (uint64_t i = 0; i < uint64_t{20} * kMany; ++i) {
    pool.add(std::array<uint64_t, 3>{i});
    ASSERT_EQ(pool.size(), i + 1);
  }
  for (uint64_t i = 0; i < pool.size(); ++i) ASSERT_EQ(pool[i][0], i);
  pool.clear();
  EXPECT_EQ(pool.size(), 0u);
  pool.add();
  EXPECT_EQ(pool.size(), 1u);
}

TEST(Pool, SlabsOfOneServeAnother) {
  Slabs slabs;
  {
    Pool<uint64_t> pool(slabs);
    for (uint64_t i = 0; i < uint64_t{100} * kMany; ++i) pool.add(i);
  }
  const size_t bytes = slabs.bytes();
  Pool<uint64_t> first(slabs), second(slabs);
  for (uint64_t i = 0; i < uint64_t{50} * kMany; ++i) {
    first.add(i);
    second.add(~i);
  }
  EXPECT_EQ(slabs.bytes(), bytes);
  for (uint64_t i = 0; i < first.size(); ++i) ASSERT_EQ(first[i], ~second[i]);
}

}  // namespace
}  // namespace kite

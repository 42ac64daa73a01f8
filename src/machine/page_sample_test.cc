#include "machine/page_sample.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>

namespace kite::machine {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20, kPerGib = 16384;
constexpr size_t kAll = SIZE_MAX / 2;

std::shared_ptr<RamBlock> make_block(uint64_t bytes) {
  auto block = RamBlock::create("test", bytes);
  EXPECT_TRUE(block) << block.error().message;
  return *block;
}

void fill(RamBlock& block, uint8_t value) { std::fill_n(block.host(), block.size(), value); }

TEST(PageSample, HasPagesInProportionToAllBlocks) {
  EXPECT_EQ(PageSample({make_block(48 * kMib), make_block(16 * kMib)}, kPerGib, 1).size(), kPerGib / 16);
  EXPECT_EQ(PageSample({make_block(kPageSize)}, 128, 1).size(), 1u);
  EXPECT_EQ(PageSample({}, kPerGib, 1).size(), 0u);
}

TEST(PageSample, FindsNothingWhereNothingChanges) {
  const auto block = make_block(8 * kMib);
  fill(*block, 7);
  PageSample sample({block}, kPerGib, 1);
  EXPECT_FALSE(sample.remember(kAll));
  EXPECT_FALSE(sample.compare(kAll));
  EXPECT_EQ(sample.changed(), 0u);
}

TEST(PageSample, FindsEveryPageThatChanged) {
  const auto block = make_block(8 * kMib);
  fill(*block, 7);
  PageSample sample({block}, kPerGib, 1);
  sample.remember(kAll);
  for (uint64_t last = kPageSize - 1; last < block->size(); last += kPageSize) block->host()[last] = 8;
  sample.compare(kAll);
  EXPECT_EQ(sample.changed(), sample.size());
}

TEST(PageSample, TellsTheShareOfEachBlock) {
  const auto changed = make_block(48 * kMib), still = make_block(16 * kMib);
  PageSample sample({still, changed}, kPerGib, 1);
  sample.remember(kAll);
  fill(*changed, 1);
  sample.compare(kAll);
  EXPECT_NEAR(static_cast<double>(sample.changed()) / static_cast<double>(sample.size()), 0.75, 0.1);
}

TEST(PageSample, GoesThroughThePagesInPieces) {
  const auto block = make_block(8 * kMib);
  PageSample sample({block}, kPerGib, 1);
  ASSERT_EQ(sample.size(), 128u);
  EXPECT_TRUE(sample.remember(100));
  EXPECT_FALSE(sample.remember(100));
  fill(*block, 1);
  EXPECT_TRUE(sample.compare(100));
  EXPECT_EQ(sample.changed(), 100u);
  EXPECT_FALSE(sample.compare(100));
  EXPECT_EQ(sample.changed(), 128u);
}

TEST(PageSample, WhatWasNeverWrittenIsZero) {
  const auto block = make_block(8 * kMib);
  PageSample sample({block}, kPerGib, 1);
  sample.remember(kAll);
  fill(*block, 0);
  sample.compare(kAll);
  EXPECT_EQ(sample.changed(), 0u);
}

TEST(PageSample, TouchesNoMemoryThatTheGuestHasNotTouched) {
  const auto block = make_block(8 * kMib);
  block->host()[0] = 1;
  std::vector<unsigned char> before(block->size() / kPageSize), after(before.size());
  ASSERT_EQ(::mincore(block->host(), block->size(), before.data()), 0);
  PageSample sample({block}, kPerGib, 1);
  sample.remember(kAll);
  sample.compare(kAll);
  ASSERT_EQ(::mincore(block->host(), block->size(), after.data()), 0);
  EXPECT_EQ(before, after);
}

}  // namespace
}  // namespace kite::machine

#include "boot/boot_map.h"

#include <gtest/gtest.h>

namespace kite::boot {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;

TEST(BootMap, AdjacentRamIsOnePiece) {
  const std::vector<E820Entry> e820 = {{kMib, kMib, E820Type::kRam}, {2 * kMib, kMib, E820Type::kRam}};
  BootMap map(e820, 3 * kMib);
  EXPECT_TRUE(map.claim(kMib + 0x1000, kMib, "it"));
}

TEST(BootMap, WhatIsReservedTooIsNotRam) {
  const std::vector<E820Entry> e820 = {{0, 4 * kMib, E820Type::kRam}, {kMib, kMib, E820Type::kReserved}};
  const BootMap map(e820, 4 * kMib);
  EXPECT_TRUE(map.is_free(0, kMib));
  EXPECT_FALSE(map.is_free(kMib - 1, 2));
  EXPECT_TRUE(map.is_free(2 * kMib, 2 * kMib));
}

TEST(BootMap, NothingIsTakenTwice) {
  const std::vector<E820Entry> e820 = {{0, 4 * kMib, E820Type::kRam}};
  BootMap map(e820, 4 * kMib);
  EXPECT_TRUE(map.claim(kMib, 0x1000, "first"));
  EXPECT_FALSE(map.claim(kMib + 0xfff, 1, "second"));
  EXPECT_TRUE(map.claim(kMib + 0x1000, 1, "third"));
}

TEST(BootMap, HighAndLowPlacesRespectTheirBounds) {
  const std::vector<E820Entry> e820 = {{0, 4 * kMib, E820Type::kRam}};
  BootMap map(e820, 4 * kMib);
  EXPECT_EQ(map.claim_low({.size = 10}, "a").value(), 0x1000U);
  EXPECT_EQ(map.claim_low({.size = 10}, "b").value(), 0x1010U);
  EXPECT_EQ(map.claim_high({.size = 10, .alignment = 0x1000, .limit = 2 * kMib}, "c").value(), 2 * kMib - 0x1000);
  EXPECT_EQ(map.claim_low({.size = 10, .alignment = 2 * kMib, .lowest = 1}, "d").value(), 2 * kMib);
  EXPECT_FALSE(map.claim_high({.size = 0x1000, .lowest = kMib, .limit = kMib + 0xfff}, "e"));
}

TEST(BootMap, SizesNearTheEndOfTheNumbersAreRefused) {
  const std::vector<E820Entry> e820 = {{0, UINT64_MAX, E820Type::kRam}, {UINT64_MAX, 5, E820Type::kRam}};
  BootMap map(e820, 4 * kMib);
  EXPECT_FALSE(map.claim(UINT64_MAX, 2, "it"));
  EXPECT_FALSE(map.claim(2, UINT64_MAX, "it"));
  EXPECT_FALSE(map.claim_high({.size = UINT64_MAX}, "it"));
  EXPECT_TRUE(map.claim(BootMap::kEnd - 1, 1, "it"));
}

}  // namespace
}  // namespace kite::boot

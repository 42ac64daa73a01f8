#include "support/low_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>

#include "support/huge_pages.h"

namespace kite {
namespace {

constexpr uint64_t kReach = uint64_t{2} << 30;

uint64_t number(const void* place) { return reinterpret_cast<uintptr_t>(place); }

TEST(LowMemory, IsBelowTwoGib) {
  void* const memory = allocate_low(1);
  EXPECT_LT(number(memory), kReach);
  EXPECT_EQ(number(memory) % kHugePageSize, 0u);
  *static_cast<volatile char*>(memory) = 1;
  free_low(memory, 1);
}

TEST(LowMemory, WhatIsMappedNearIsInReach) {
  constexpr size_t kHere = 1 << 20, kThere = 8 << 20;
  void* const memory = allocate_low(kHere);
  void* const near = map_near(kThere, memory, kHere);
  ASSERT_NE(near, nullptr);
  const uint64_t first = std::min(number(memory), number(near));
  const uint64_t end = std::max(number(memory) + kHere, number(near) + kThere);
  EXPECT_LE(end - first, kReach);
  static_cast<volatile char*>(near)[kThere - 1] = 1;
  ::munmap(near, kThere);
  free_low(memory, kHere);
}

TEST(LowMemory, NearWhatIsNotLowIsAnywhere) {
  int place = 0;
  void* const near = map_near(kHugePageSize, &place, sizeof place);
  ASSERT_NE(near, nullptr);
  ::munmap(near, kHugePageSize);
}

}  // namespace
}  // namespace kite

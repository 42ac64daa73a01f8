#include "machine/coalesced_ring.h"

#include <gtest/gtest.h>

namespace kite::machine {
namespace {

class Recorder final : public IoHandler {
 public:
  uint64_t io_read(uint64_t, unsigned) override { return 0; }
  void io_write(uint64_t offset, unsigned, uint64_t value) override { writes.emplace_back(offset, value); }
  std::vector<std::pair<uint64_t, uint64_t>> writes;
};

class CoalescedRingTest : public ::testing::Test {
 protected:
  CoalescedRingTest() {
    memory_.root().add(0x1000, Region::coalesced("stream", 0x100, stream_));
    memory_.root().add(0x2000, Region::io("plain", 0x100, plain_));
    memory_.commit();
  }
  Recorder stream_, plain_;
  AddressSpace memory_{"memory", 1 << 20};
  ManualClock clock_;
  int drained_ = 0;
  CoalescedRing ring_{clock_, [this] { ++drained_; }};
};

TEST_F(CoalescedRingTest, WritesWaitUntilDrainedAndKeepTheirOrder) {
  EXPECT_TRUE(ring_.post(memory_, 0x1004, 4, 1));
  EXPECT_TRUE(ring_.post(memory_, 0x1000, 4, 2));
  EXPECT_TRUE(stream_.writes.empty());
  ring_.drain();
  EXPECT_EQ(stream_.writes, (std::vector<std::pair<uint64_t, uint64_t>>{{4, 1}, {0, 2}}));
}

TEST_F(CoalescedRingTest, OtherRegionsAreNotTaken) {
  EXPECT_FALSE(ring_.post(memory_, 0x2000, 4, 1));
  EXPECT_FALSE(ring_.post(memory_, 0x8000, 4, 1));
  EXPECT_FALSE(ring_.post(memory_, 0x10fe, 4, 1));  // runs out of the region
}

TEST_F(CoalescedRingTest, AFullRingMakesRoom) {
  for (uint64_t i = 0; i <= CoalescedRing::kCapacity; ++i) EXPECT_TRUE(ring_.post(memory_, 0x1000, 4, i));
  EXPECT_EQ(stream_.writes.size(), CoalescedRing::kCapacity);
  ring_.drain();
  EXPECT_EQ(stream_.writes.back().second, CoalescedRing::kCapacity);
}

TEST_F(CoalescedRingTest, TheTimerDrainsWhatNobodyAsksFor) {
  ring_.post(memory_, 0x1000, 4, 7);
  clock_.advance(CoalescedRing::kDelayNs);
  EXPECT_EQ(stream_.writes.size(), 1u);
  EXPECT_EQ(drained_, 1);
  ring_.post(memory_, 0x1000, 4, 8);
  clock_.advance(CoalescedRing::kDelayNs);
  EXPECT_EQ(stream_.writes.size(), 2u);
}

}  // namespace
}  // namespace kite::machine

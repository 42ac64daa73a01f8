#include "bus/doorbell.h"

#include <gtest/gtest.h>

#include "memory/address_space.h"
#include "memory/test_io.h"

namespace kite::bus {
namespace {

class DoorbellTest : public ::testing::Test {
 protected:
  void SetUp() override {
    space_.root().add(0x1000, region_);
    space_.commit();
  }
  Doorbell ring_at(uint64_t offset, unsigned size, std::optional<uint64_t> value = std::nullopt) {
    auto made = Doorbell::create(region_, offset, size, value);
    EXPECT_TRUE(made) << made.error().message;
    space_.commit();
    return *std::move(made);
  }

  kite::testing::RecordingIo io_;
  std::shared_ptr<Region> region_ = Region::io("device", 0x100, io_);
  AddressSpace space_{"memory", 0x10000};
};

TEST_F(DoorbellTest, AWriteOfItsSizeRingsAndDoesNotReachTheDevice) {
  Doorbell bell = ring_at(0x10, 2);
  space_.write(0x1010, 2, 0x55);
  EXPECT_EQ(bell.take(), 1u);
  EXPECT_TRUE(io_.take().empty());
}

TEST_F(DoorbellTest, OtherSizesAndPlacesReachTheDevice) {
  Doorbell bell = ring_at(0x10, 2);
  space_.write(0x1010, 1, 1);
  space_.write(0x1010, 4, 1);
  space_.write(0x1012, 2, 1);
  EXPECT_EQ(bell.take(), 0u);
  EXPECT_EQ(io_.take().size(), 3u);
}

TEST_F(DoorbellTest, OnlyItsValueRings) {
  Doorbell three = ring_at(0x10, 4, 3);
  Doorbell four = ring_at(0x10, 4, 4);
  space_.write(0x1010, 4, 4);
  space_.write(0x1010, 4, 5);
  EXPECT_EQ(three.take(), 0u);
  EXPECT_EQ(four.take(), 1u);
  EXPECT_EQ(io_.take(), std::vector<std::string>{"w4@10=5"});
}

TEST_F(DoorbellTest, SizeZeroTakesEveryWrite) {
  Doorbell bell = ring_at(0x10, 0);
  for (const unsigned size : {1u, 2u, 4u}) space_.write(0x1010, size, size);
  EXPECT_EQ(bell.take(), 3u);
}

TEST_F(DoorbellTest, ReadsStillReachTheDevice) {
  Doorbell bell = ring_at(0x10, 4);
  uint64_t value = 0;
  space_.read(0x1010, 4, value);
  EXPECT_EQ(value, 0x13121110u);
}

TEST_F(DoorbellTest, ADestroyedDoorbellGivesTheDeviceItsWritesBack) {
  {
    Doorbell bell = ring_at(0x10, 4);
  }
  EXPECT_TRUE(space_.stale());
  space_.commit();
  space_.write(0x1010, 4, 7);
  EXPECT_EQ(io_.take(), std::vector<std::string>{"w4@10=7"});
}

TEST_F(DoorbellTest, RingsThroughAnAlias) {
  Doorbell bell = ring_at(0x10, 4);
  space_.root().add(0x4000, Region::alias("window", region_, 0x8, 0x20));
  space_.commit();
  space_.write(0x4008, 4, 1);
  EXPECT_EQ(bell.take(), 1u);
}

TEST_F(DoorbellTest, RefusesPlacesAndSizesThatAreNone) {
  EXPECT_FALSE(Doorbell::create(region_, 0x100, 1));
  EXPECT_FALSE(Doorbell::create(region_, 0xfe, 4));
  EXPECT_FALSE(Doorbell::create(region_, 0, 3));
  EXPECT_FALSE(Doorbell::create(region_, 0, 0, 5));
  EXPECT_FALSE(Doorbell::create(Region::container("bus", 0x100), 0, 1));
}

}  // namespace
}  // namespace kite::bus

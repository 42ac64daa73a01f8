#include "devices/scsi/scsi_bus.h"

#include "devices/scsi/test_scsi.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using Bytes = std::vector<uint8_t>;

constexpr uint64_t kBytes = 1 << 20;

TEST(ScsiBus, WithoutNumbersTheNextFreeTargetIsTaken) {
  ScsiWorld world;

  EXPECT_EQ(world.add("scsi-hd", {}, &world.add_drive(kBytes)).address(), (ScsiAddress{0, 0, 0}));
  EXPECT_EQ(world.add("scsi-cd", {}, nullptr).address(), (ScsiAddress{0, 1, 0}));
}

TEST(ScsiBus, WithATargetTheNextFreeUnitIsTaken) {
  ScsiWorld world;
  world.add("scsi-cd", {{"scsi-id", "3"}}, nullptr);

  EXPECT_EQ(world.add("scsi-cd", {{"scsi-id", "3"}}, nullptr).address(), (ScsiAddress{0, 3, 1}));
}

TEST(ScsiBus, TheControllersOwnNumberIsNobodys) {
  ScsiWorld world({.channels = 1, .targets = 8, .luns = 8, .initiator = 0});

  EXPECT_EQ(world.add("scsi-cd", {}, nullptr).address().id, 1u);
  EXPECT_FALSE(world.try_add("scsi-cd", {{"scsi-id", "0"}}, nullptr));
}

TEST(ScsiBus, WhatIsTakenOrOutsideIsRefusedByName) {
  ScsiWorld world({.channels = 1, .targets = 8, .luns = 8});
  world.add("scsi-cd", {{"scsi-id", "1"}, {"lun", "2"}}, nullptr);

  const auto taken = world.try_add("scsi-cd", {{"scsi-id", "1"}, {"lun", "2"}}, nullptr);
  const auto target = world.try_add("scsi-cd", {{"scsi-id", "8"}}, nullptr);
  const auto channel = world.try_add("scsi-cd", {{"channel", "1"}}, nullptr);

  ASSERT_FALSE(taken);
  EXPECT_NE(taken.error().message.find("taken"), std::string::npos);
  ASSERT_FALSE(target);
  EXPECT_NE(target.error().message.find("scsi-id=8"), std::string::npos);
  ASSERT_FALSE(channel);
  EXPECT_NE(channel.error().message.find("channel=1"), std::string::npos);
}

TEST(ScsiBus, ADiskNeedsADrive) {
  ScsiWorld world;

  const auto refused = world.try_add("scsi-hd", {}, nullptr);

  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("drive="), std::string::npos);
}

TEST(ScsiBus, UnitsAreReportedWithUnitZero) {
  ScsiWorld world;
  ScsiDevice& unit = world.add("scsi-cd", {{"scsi-id", "2"}, {"lun", "5"}}, nullptr);
  world.add("scsi-cd", {{"scsi-id", "2"}, {"lun", "300"}}, nullptr);

  const Bytes data = world.run(unit, {0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}).data;

  ASSERT_EQ(data.size(), 8u + 24);
  EXPECT_EQ(load_be32(data.data()), 24u);
  EXPECT_EQ(load_be16(&data[8]), 0);
  EXPECT_EQ(load_be16(&data[16]), 5);
  EXPECT_EQ(load_be16(&data[24]), 0x4000 | 300);
}

TEST(ScsiBus, AnAbsentUnitSaysSo) {
  ScsiWorld world;
  world.add("scsi-cd", {{"scsi-id", "2"}, {"lun", "5"}}, nullptr);
  Bytes data(36);
  ScsiCommand command = ScsiWorld::make({0x12, 0, 0, 0, 36});
  command.data_in = block::IoSlice(std::span(data));

  EXPECT_EQ(world.bus.absent_unit({0, 2, 0}, command).moved, 36u);

  EXPECT_EQ(data[0], 0x7f);
  EXPECT_EQ(world.bus.absent_unit({0, 2, 0}, ScsiWorld::make({0x00})).sense, sense::kNoSuchLun);
  EXPECT_FALSE(world.bus.has_target(0, 1));
}

TEST(ScsiBus, TheOthersOfATargetTellOfANewUnit) {
  ScsiWorld world;
  ScsiDevice& first = world.add("scsi-cd", {{"scsi-id", "2"}, {"lun", "0"}}, nullptr);

  world.add("scsi-cd", {{"scsi-id", "2"}, {"lun", "1"}}, nullptr);

  EXPECT_EQ(world.run(first, {0x00}).sense(), sense::kLunsChanged);
}

TEST(ScsiBus, ADetachedUnitCannotBeReached) {
  ScsiWorld world;
  world.add("scsi-cd", {}, nullptr);
  EXPECT_TRUE(world.bus.acquire({0, 0, 0}));

  world.bus.detach(*world.units[0]);

  EXPECT_FALSE(world.bus.acquire({0, 0, 0}));
}

TEST(ScsiBus, FirmwareFindsAUnitByItsNumbers) {
  ScsiWorld world;
  ScsiDevice& unit = world.add("scsi-cd", {{"scsi-id", "10"}, {"lun", "1"}}, nullptr);

  EXPECT_EQ(world.bus.boot_path(unit), "channel@0/disk@a,1");
}

}  // namespace
}  // namespace kite::devices

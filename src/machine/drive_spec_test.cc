#include "machine/drive_spec.h"

#include <gtest/gtest.h>

namespace kite::machine {
namespace {

using Settings = std::vector<std::pair<std::string, std::string>>;

class DriveSpecTest : public ::testing::Test {
 protected:
  // As the command line does: later drives see the earlier ones.
  Result<DriveSpec> parse(const Settings& settings) {
    return parse_drive(settings, {.drives = drives_, .ide_units = ide_units_});
  }
  void add(const Settings& settings) {
    auto spec = parse(settings);
    ASSERT_TRUE(spec) << spec.error().message;
    drives_.push_back(std::move(*spec));
  }
  std::string error_of(const Settings& settings) {
    const auto spec = parse(settings);
    return spec ? "" : spec.error().message;
  }
  std::vector<DriveSpec> drives_;
  unsigned ide_units_ = 2;
};

TEST_F(DriveSpecTest, DrivesAreNamedByTheirPlace) {
  add({{"file", "a.qcow2"}});
  add({{"file", "b.iso"}, {"media", "cdrom"}});
  add({{"if", "virtio"}, {"file", "c"}});
  add({{"if", "virtio"}, {"file", "d"}});
  add({{"if", "floppy"}, {"file", "e"}});
  add({{"if", "scsi"}, {"file", "f"}, {"bus", "1"}, {"unit", "3"}});
  add({{"if", "none"}, {"file", "g"}});

  std::vector<std::string> ids;
  for (const DriveSpec& drive : drives_) ids.push_back(drive.id);
  EXPECT_EQ(ids,
            (std::vector<std::string>{"ide0-hd0", "ide0-cd1", "virtio0", "virtio1", "floppy0", "scsi1-hd3", "none0"}));
}

TEST_F(DriveSpecTest, AnIndexCountsThroughTheBuses) {
  add({{"index", "2"}});
  EXPECT_EQ(drives_[0].bus, 1u);
  EXPECT_EQ(drives_[0].unit, 0u);
}

TEST_F(DriveSpecTest, AnAhciPortHasOneUnit) {
  ide_units_ = 1;
  add({{"index", "2"}, {"media", "cdrom"}});
  EXPECT_EQ(drives_[0].id, "ide2-cd0");
}

TEST_F(DriveSpecTest, TheNextFreeUnitIsTaken) {
  add({{"index", "0"}});
  add({{"index", "1"}});
  add({});
  EXPECT_EQ(drives_[2].bus, 1u);
  EXPECT_EQ(drives_[2].unit, 0u);
}

TEST_F(DriveSpecTest, APlaceIsTakenOnce) {
  add({{"index", "1"}});
  EXPECT_NE(error_of({{"index", "1"}}).find("bus=0, unit=1 (index=1) exists"), std::string::npos);
}

TEST_F(DriveSpecTest, IndexExcludesBusAndUnit) { EXPECT_NE(error_of({{"index", "1"}, {"unit", "1"}}), ""); }

TEST_F(DriveSpecTest, ACdromIsReadOnly) {
  add({{"media", "cdrom"}, {"file", "x.iso"}});
  EXPECT_TRUE(drives_[0].request.read_only);
  EXPECT_NE(error_of({{"media", "cdrom"}, {"readonly", "off"}}), "");
}

TEST_F(DriveSpecTest, CacheModesComeApart) {
  add({{"file", "a"}, {"cache", "directsync"}});
  EXPECT_TRUE(drives_[0].request.cache.direct);
  EXPECT_FALSE(drives_[0].write_cache);
}

TEST_F(DriveSpecTest, SingleCacheSettingsWinOverTheMode) {
  add({{"file", "a"}, {"cache", "none"}, {"cache.no-flush", "on"}, {"cache.direct", "off"}});
  EXPECT_FALSE(drives_[0].request.cache.direct);
  EXPECT_TRUE(drives_[0].request.cache.no_flush);
}

TEST_F(DriveSpecTest, NativeAioWantsDirectAccess) {
  EXPECT_NE(error_of({{"file", "a"}, {"aio", "native"}}).find("cache.direct=on"), std::string::npos);
}

TEST_F(DriveSpecTest, AFormatIsKnownOrRefusedWithTheNearest) {
  EXPECT_NE(error_of({{"file", "a"}, {"format", "qcow3"}}).find("qcow2"), std::string::npos);
}

TEST_F(DriveSpecTest, AnInterfaceIsKnownOrRefusedWithTheNearest) {
  EXPECT_NE(error_of({{"if", "virtoi"}}).find("virtio"), std::string::npos);
  EXPECT_NE(error_of({{"if", "sd"}}).find("no such interface"), std::string::npos);
}

TEST_F(DriveSpecTest, WhatIsNotTheDrivesGoesToTheFormat) {
  add({{"file", "a"}, {"format", "qcow2"}, {"lazy-refcounts", "on"}, {"file.locking", "off"}});
  EXPECT_EQ(*drives_[0].request.options.find("lazy-refcounts"), "on");
  EXPECT_EQ(*drives_[0].request.options.find("file.locking"), "off");
}

TEST_F(DriveSpecTest, OldNamesOfLimitsAreUnderstood) {
  add({{"file", "a"}, {"bps_rd", "1000"}, {"iops", "5"}, {"iops_max", "50"}});
  const block::ThrottleLimits& limits = drives_[0].throttle;
  EXPECT_EQ(limits.bytes[block::ThrottleLimits::kRead].rate, 1000u);
  EXPECT_EQ(limits.operations[block::ThrottleLimits::kTotal].rate, 5u);
  EXPECT_EQ(limits.operations[block::ThrottleLimits::kTotal].burst, 50u);
}

TEST_F(DriveSpecTest, ATotalLimitExcludesItsParts) {
  EXPECT_NE(error_of({{"throttling.bps-total", "10"}, {"throttling.bps-read", "5"}}), "");
}

TEST_F(DriveSpecTest, AnAliasAndItsNameAreNotBothGiven) {
  EXPECT_NE(error_of({{"throttling.bps-total", "10"}, {"bps", "5"}}).find("alias"), std::string::npos);
}

TEST_F(DriveSpecTest, AFloppyTakesNoErrorPolicy) { EXPECT_NE(error_of({{"if", "floppy"}, {"werror", "stop"}}), ""); }

TEST_F(DriveSpecTest, PoliciesComeFromTheOption) {
  add({{"file", "a"}, {"werror", "stop"}, {"rerror", "ignore"}});
  EXPECT_EQ(drives_[0].write_error, block::OnError::kStop);
  EXPECT_EQ(drives_[0].read_error, block::OnError::kIgnore);
}

TEST_F(DriveSpecTest, ADriveWithoutAFileIsEmpty) {
  add({{"media", "cdrom"}});
  EXPECT_FALSE(drives_[0].has_image);
}

TEST_F(DriveSpecTest, ADriverThatNeedsNoFileIsAnImage) {
  add({{"if", "none"}, {"driver", "null-co"}, {"size", "1M"}});
  EXPECT_TRUE(drives_[0].has_image);
}

}  // namespace
}  // namespace kite::machine

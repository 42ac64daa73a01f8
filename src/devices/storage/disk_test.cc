#include "devices/storage/disk.h"

#include <gtest/gtest.h>

#include <array>

namespace kite::devices {
namespace {

Result<PropertyMap> resolved(std::vector<std::pair<std::string, std::string>> values) {
  TypeRegistry registry;
  registry.add({.name = "disk", .parent = "", .description = "", .bus = "", .properties = disk_properties()});
  return registry.resolve({.type = "disk", .id = "", .values = std::move(values)}, "-device");
}

TEST(DiskConfig, WithoutPropertiesItIsAPlainDisk) {
  auto properties = resolved({});
  ASSERT_TRUE(properties);

  auto disk = make_disk_config("disk", "d0", *properties, nullptr);

  ASSERT_TRUE(disk);
  EXPECT_EQ(disk->logical_block_bytes, 512u);
  EXPECT_EQ(disk->discard_granularity, -1);
}

TEST(DiskConfig, ABlockSizeThatIsNoneIsRefusedByName) {
  auto properties = resolved({{"logical_block_size", "1000"}});
  ASSERT_TRUE(properties);

  auto disk = make_disk_config("disk", "d0", *properties, nullptr);

  ASSERT_FALSE(disk);
  EXPECT_NE(disk.error().message.find("logical_block_size=1000"), std::string::npos);
}

TEST(DiskConfig, ThePhysicalBlockIsAtLeastTheLogicalOne) {
  auto properties = resolved({{"logical_block_size", "4096"}});
  ASSERT_TRUE(properties);

  auto disk = make_disk_config("disk", "d0", *properties, nullptr);

  ASSERT_TRUE(disk);
  EXPECT_EQ(disk->physical_block_bytes, 4096u);
}

TEST(DiskGeometry, ABlankDiskHasSixteenHeads) {
  const DiskGeometry geometry = guess_geometry(uint64_t{512} * 100 * 16 * 63, {});

  EXPECT_EQ(geometry.cylinders, 100u);
  EXPECT_EQ(geometry.heads, 16u);
  EXPECT_EQ(geometry.sectors, 63u);
  EXPECT_EQ(geometry.translation, DiskGeometry::Translation::kNone);
}

TEST(DiskGeometry, ALargeDiskEndsAtTheLastCylinderThatATAKnows) {
  EXPECT_EQ(guess_geometry(uint64_t{1} << 40, {}).cylinders, 16383u);
}

TEST(DiskGeometry, APartitionTellsHeadsAndSectors) {
  std::array<uint8_t, 512> sector{};
  sector[510] = 0x55;
  sector[511] = 0xaa;
  sector[0x1be + 5] = 3;   // last head
  sector[0x1be + 6] = 17;  // last sector
  sector[0x1be + 12] = 200;

  const DiskGeometry geometry = guess_geometry(uint64_t{512} * 615 * 4 * 17, sector);

  EXPECT_EQ(geometry.heads, 4u);
  EXPECT_EQ(geometry.sectors, 17u);
  EXPECT_EQ(geometry.cylinders, 615u);
}

}  // namespace
}  // namespace kite::devices

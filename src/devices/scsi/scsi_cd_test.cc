#include "devices/scsi/scsi_cd.h"

#include "devices/scsi/test_scsi.h"
#include "devices/storage/removable.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using Bytes = std::vector<uint8_t>;

constexpr uint64_t kSectors = 500;

class ScsiCdTest : public ::testing::Test {
 protected:
  ScsiWorld world_;
  block::Drive& drive_ = world_.add_drive(kSectors * 2048, true);
  ScsiDevice& cd_ = world_.add("scsi-cd", {}, &drive_);
  Removable& tray_ = dynamic_cast<Removable&>(cd_);

  ScsiWorld::Answer run(const Bytes& cdb, Bytes out = {}) { return world_.run(cd_, cdb, std::move(out)); }
  Bytes event() { return run({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0}).data; }
};

TEST_F(ScsiCdTest, ItIsARemovableDrive) {
  const Bytes data = run({0x12, 0, 0, 0, 36}).data;

  EXPECT_EQ(data[0], 5);
  EXPECT_EQ(data[1], 0x80);
}

TEST_F(ScsiCdTest, CapacityCountsSectorsOf2048) {
  const Bytes data = run({0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}).data;

  EXPECT_EQ(load_be32(data.data()), kSectors - 1);
  EXPECT_EQ(load_be32(data.data() + 4), 2048u);
}

TEST_F(ScsiCdTest, ItReadsSectors) {
  EXPECT_EQ(run({0x28, 0, 0, 0, 0, 1, 0, 0, 2, 0}).data.size(), 4096u);
  EXPECT_EQ(run({0x28, 0, 0, 0, 1, 0xf4, 0, 0, 1, 0}).sense(), sense::kOutOfRange);
}

TEST_F(ScsiCdTest, ItCannotBeWritten) {
  EXPECT_EQ(run({0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}, Bytes(2048)).sense(), sense::kWriteProtected);
}

TEST_F(ScsiCdTest, TheTableOfContentsIsThere) {
  const Bytes data = run({0x43, 0, 0, 0, 0, 0, 0, 0, 0xff, 0}).data;

  ASSERT_EQ(data.size(), 20u);
  EXPECT_EQ(load_be32(&data[16]), kSectors);
}

TEST_F(ScsiCdTest, RawSectorsAreFramed) {
  const Bytes data = run({0xbe, 0, 0, 0, 0, 0, 0, 0, 2, 0xf8, 0, 0}).data;

  ASSERT_EQ(data.size(), 2u * 2352);
  EXPECT_EQ(load_be32(&data[12]), 0x00020001u);
  EXPECT_EQ(load_be32(&data[2352 + 12]), 0x00020101u);
}

TEST_F(ScsiCdTest, EjectOpensTheTrayAndTellsTheMonitor) {
  std::vector<bool> moves;
  tray_.set_tray_hook([&](bool open) { moves.push_back(open); });

  ASSERT_TRUE(run({0x1b, 0, 0, 0, 2, 0}).good());

  EXPECT_TRUE(tray_.tray_open());
  EXPECT_EQ(moves, std::vector<bool>{true});
  EXPECT_EQ(run({0x00}).sense(), sense::kNoMediumTrayOpen);
  EXPECT_EQ(event(), (Bytes{0, 6, 4, 0x10, 3, 1, 0, 0}));
}

TEST_F(ScsiCdTest, ALockedTrayStaysShut) {
  ASSERT_TRUE(run({0x1e, 0, 0, 0, 1, 0}).good());

  EXPECT_EQ(run({0x1b, 0, 0, 0, 2, 0}).sense(), sense::kRemovalPrevented);
  EXPECT_TRUE(tray_.locked());
}

TEST_F(ScsiCdTest, TheMonitorAsksForALockedDisc) {
  ASSERT_TRUE(run({0x1e, 0, 0, 0, 1, 0}).good());

  tray_.request_eject();

  EXPECT_EQ(event()[4], 1);
  EXPECT_EQ(event()[4], 0);
  EXPECT_EQ(run({0x00}).sense(), sense::kEjectRequested);
}

TEST_F(ScsiCdTest, AnotherDiscIsAnnounced) {
  tray_.set_tray(true);
  ASSERT_TRUE(block::run_until_done(*world_.executor, drive_.change_medium(world_.make_node(100 * 2048), true)));
  tray_.medium_changed();
  EXPECT_EQ(run({0x00}).sense(), sense::kNoMediumTrayOpen);

  tray_.set_tray(false);

  EXPECT_EQ(event(), (Bytes{0, 6, 4, 0x10, 2, 2, 0, 0}));
  EXPECT_EQ(run({0x00}).sense(), sense::kMediumChanged);
  EXPECT_TRUE(run({0x00}).good());
  EXPECT_EQ(load_be32(run({0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}).data.data()), 99u);
}

TEST_F(ScsiCdTest, ModeSenseHasNoBlockDescriptor) {
  const Bytes data = run({0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 0xff, 0}).data;

  ASSERT_EQ(data.size(), 8u + 22);
  EXPECT_EQ(load_be16(&data[6]), 0);
  EXPECT_EQ(data[2], 0x01);
}

TEST(ScsiCd, ADriveMayBeEmpty) {
  ScsiWorld world;
  ScsiDevice& cd = world.add("scsi-cd", {}, nullptr);

  EXPECT_EQ(world.run(cd, {0x00}).sense(), sense::kNoMediumTrayClosed);
  EXPECT_EQ(world.run(cd, {0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}).sense(), sense::kNoMediumTrayClosed);
  EXPECT_TRUE(world.run(cd, {0x46, 0, 0, 0, 0, 0, 0, 0, 0xff, 0}).good());
}

TEST(ScsiCd, OtherBlockSizesAreRefused) {
  ScsiWorld world;

  const auto refused = world.try_add("scsi-cd", {{"logical_block_size", "512"}}, nullptr);

  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("logical_block_size=512"), std::string::npos);
}

}  // namespace
}  // namespace kite::devices

#include "devices/scsi/scsi_hd.h"

#include <numeric>

#include "devices/scsi/test_scsi.h"
#include "devices/storage/removable.h"
#include "devices/test_device.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using Bytes = std::vector<uint8_t>;

constexpr uint64_t kBytes = 1 << 20;  // 2048 blocks

class ScsiHdTest : public ::testing::Test {
 protected:
  ScsiWorld world_;
  block::Drive& drive_ = world_.add_drive(kBytes);
  ScsiDevice& disk_ = world_.add("scsi-hd", {{"serial", "S123"}, {"device_id", "drive-scsi0"}}, &drive_);

  ScsiWorld::Answer run(const Bytes& cdb, Bytes out = {}) { return world_.run(disk_, cdb, std::move(out)); }
  static Bytes pattern(size_t size, uint8_t first = 1) {
    Bytes data(size);
    std::iota(data.begin(), data.end(), first);
    return data;
  }
};

TEST_F(ScsiHdTest, InquiryTellsWhatItIs) {
  const auto answer = run({0x12, 0, 0, 0, 96});

  ASSERT_TRUE(answer.good());
  ASSERT_EQ(answer.data.size(), 36u);
  EXPECT_EQ(answer.data[0], 0);
  EXPECT_EQ(std::string(answer.data.begin() + 8, answer.data.end()), "QEMU    QEMU HARDDISK   2.5+");
}

TEST_F(ScsiHdTest, InquiryIsCutToItsAllocation) { EXPECT_EQ(run({0x12, 0, 0, 0, 5}).data.size(), 5u); }

TEST_F(ScsiHdTest, VitalPagesAreListed) {
  EXPECT_EQ(run({0x12, 1, 0, 0, 255}).data, (Bytes{0, 0, 0, 6, 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2}));
  EXPECT_EQ(run({0x12, 1, 0x80, 0, 255}).data, (Bytes{0, 0x80, 0, 4, 'S', '1', '2', '3'}));
  EXPECT_EQ(run({0x12, 1, 0x77, 0, 255}).sense(), sense::kInvalidField);
}

TEST_F(ScsiHdTest, TheDesignatorIsTheGivenId) {
  const auto answer = run({0x12, 1, 0x83, 0, 255});

  ASSERT_EQ(answer.data.size(), 8u + 11);
  EXPECT_EQ(answer.data[4], 2);
  EXPECT_EQ(std::string(answer.data.begin() + 8, answer.data.end()), "drive-scsi0");
}

TEST_F(ScsiHdTest, CapacityIsTheLastBlock) {
  const auto ten = run({0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  const auto sixteen = run({0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32});

  EXPECT_EQ(load_be32(ten.data.data()), 2047u);
  EXPECT_EQ(load_be32(ten.data.data() + 4), 512u);
  EXPECT_EQ(load_be64(sixteen.data.data()), 2047u);
  EXPECT_EQ(sixteen.data[14], 0x80);
}

TEST_F(ScsiHdTest, WhatIsWrittenIsRead) {
  const Bytes data = pattern(1024);

  ASSERT_TRUE(run({0x2a, 0, 0, 0, 0, 5, 0, 0, 2, 0}, data).good());

  EXPECT_EQ(run({0x28, 0, 0, 0, 0, 5, 0, 0, 2, 0}).data, data);
  EXPECT_EQ(run({0x08, 0, 0, 5, 2, 0}).data, data);
  EXPECT_EQ(run({0xa8, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0}).data, data);
  EXPECT_EQ(run({0x88, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0}).data, data);
}

TEST_F(ScsiHdTest, ASixByteReadOfZeroBlocksIsOf256) { EXPECT_EQ(run({0x08, 0, 0, 0, 0, 0}).data.size(), 256u * 512); }

TEST_F(ScsiHdTest, BlocksPastTheEndAreRefused) {
  EXPECT_EQ(run({0x28, 0, 0, 0, 0x07, 0xff, 0, 0, 2, 0}).sense(), sense::kOutOfRange);
  EXPECT_EQ(run({0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, 0, 0}).sense(),
            sense::kOutOfRange);
  EXPECT_TRUE(run({0x28, 0, 0, 0, 0x08, 0x00, 0, 0, 0, 0}).good());
}

TEST_F(ScsiHdTest, ProtectionInformationIsRefused) {
  EXPECT_EQ(run({0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0}).sense(), sense::kInvalidField);
}

TEST_F(ScsiHdTest, AnUnknownCommandIsRefused) { EXPECT_EQ(run({0xc1}).sense(), sense::kInvalidOpcode); }

TEST_F(ScsiHdTest, AnAutocontingentAllegianceIsRefused) {
  EXPECT_EQ(run({0x00, 0, 0, 0, 0, 4}).sense(), sense::kInvalidField);
}

TEST_F(ScsiHdTest, VerifyFindsWhatDiffers) {
  const Bytes data = pattern(512);
  ASSERT_TRUE(run({0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}, data).good());

  EXPECT_TRUE(run({0x2f, 0x02, 0, 0, 0, 0, 0, 0, 1, 0}, data).good());
  EXPECT_EQ(run({0x2f, 0x02, 0, 0, 0, 0, 0, 0, 1, 0}, pattern(512, 2)).sense(), sense::kMiscompare);
  EXPECT_TRUE(run({0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0}).good());
}

TEST_F(ScsiHdTest, VerifyComparesOneBlockWithMany) {
  EXPECT_TRUE(run({0x2f, 0x06, 0, 0, 0, 0, 0, 8, 0, 0}, Bytes(512)).good());
  EXPECT_EQ(run({0x2f, 0x06, 0, 0, 0, 0, 0, 8, 0, 0}, pattern(512)).sense(), sense::kMiscompare);
}

TEST_F(ScsiHdTest, WriteAndVerifyWrites) {
  const Bytes data = pattern(512);

  ASSERT_TRUE(run({0x2e, 0x02, 0, 0, 0, 1, 0, 0, 1, 0}, data).good());

  EXPECT_EQ(world_.content(drive_, 512, 512), data);
}

TEST_F(ScsiHdTest, WriteSameRepeatsTheBlock) {
  const Bytes data = pattern(512);

  ASSERT_TRUE(run({0x93, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0x03, 0xff, 0, 0}, data).good());

  EXPECT_EQ(world_.content(drive_, 512, 512), data);
  EXPECT_EQ(world_.content(drive_, 1023 * 512, 512), data);
  EXPECT_EQ(world_.content(drive_, 1024 * 512, 512), Bytes(512));
}

TEST_F(ScsiHdTest, WriteSameOfNothingGoesToTheEnd) {
  ASSERT_TRUE(run({0x2a, 0, 0, 0, 0x07, 0xff, 0, 0, 1, 0}, pattern(512)).good());

  ASSERT_TRUE(run({0x41, 0x08, 0, 0, 0, 1, 0, 0, 0, 0}, Bytes(512)).good());

  EXPECT_EQ(world_.content(drive_, 2047 * 512, 512), Bytes(512));
}

TEST_F(ScsiHdTest, WriteSameWithoutDataZeroes) {
  ASSERT_TRUE(run({0x2a, 0, 0, 0, 0, 3, 0, 0, 1, 0}, pattern(512)).good());

  ASSERT_TRUE(run({0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0}).good());

  EXPECT_EQ(world_.content(drive_, 3 * 512, 512), Bytes(512));
}

Bytes unmap_list(uint64_t first, uint32_t blocks) {
  Bytes list(24);
  store_be16(&list[0], 22);
  store_be16(&list[2], 16);
  store_be64(&list[8], first);
  store_be32(&list[16], blocks);
  return list;
}

TEST_F(ScsiHdTest, UnmapDiscards) {
  ASSERT_TRUE(run({0x41, 0, 0, 0, 0, 0, 0, 0, 0x80, 0}, pattern(512)).good());

  ASSERT_TRUE(run({0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, unmap_list(0, 128)).good());

  EXPECT_EQ(world_.content(drive_, 0, 512), Bytes(512));  // what this node makes of it
}

TEST_F(ScsiHdTest, UnmapJudgesItsListFirst) {
  Bytes crooked = unmap_list(0, 1);
  crooked[3] = 15;
  EXPECT_EQ(run({0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, unmap_list(2048, 1)).sense(), sense::kOutOfRange);
  EXPECT_EQ(run({0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, crooked).sense(), sense::kParameterListLength);
  EXPECT_EQ(run({0x42, 0, 0, 0, 0, 0, 0, 0, 7, 0}, Bytes(7)).sense(), sense::kParameterListLength);
  EXPECT_TRUE(run({0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0}).good());
}

TEST_F(ScsiHdTest, ModeSenseTellsTheCache) {
  const auto answer = run({0x1a, 0x08, 0x08, 0, 255, 0});

  ASSERT_EQ(answer.data.size(), 4u + 20);
  EXPECT_EQ(answer.data[0], 23);
  EXPECT_EQ(answer.data[4 + 2], 0x04);
}

TEST_F(ScsiHdTest, ModeSenseOfAllHasEveryPageInOrder) {
  const auto answer = run({0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0, 0});

  ASSERT_EQ(load_be16(answer.data.data()) + 2u, answer.data.size());
  ASSERT_EQ(load_be16(&answer.data[6]), 8);
  EXPECT_EQ(load_be32(&answer.data[8]), 2048u);
  EXPECT_EQ(load_be32(&answer.data[12]), 512u);
  Bytes codes;
  for (size_t at = 16; at < answer.data.size(); at += 2u + answer.data[at + 1]) codes.push_back(answer.data[at]);
  EXPECT_EQ(codes, (Bytes{0x01, 0x04, 0x08, 0x0a, 0x1c}));
}

TEST_F(ScsiHdTest, ModeSelectSwitchesTheCache) {
  Bytes list(4);
  const Bytes page = run({0x1a, 0x08, 0x08, 0, 255, 0}).data;
  list.insert(list.end(), page.begin() + 4, page.end());
  list[6] = 0;

  ASSERT_TRUE(run({0x15, 0x10, 0, 0, 24, 0}, list).good());

  EXPECT_FALSE(drive_.write_cache());
  EXPECT_EQ(run({0x1a, 0x08, 0x08, 0, 255, 0}).data[6], 0);
}

TEST_F(ScsiHdTest, ModeSelectChangesNothingThatCannotBe) {
  Bytes list(4);
  const Bytes page = run({0x1a, 0x08, 0x08, 0, 255, 0}).data;
  list.insert(list.end(), page.begin() + 4, page.end());
  list[6] = 0;
  list[7] = 1;

  EXPECT_EQ(run({0x15, 0x10, 0, 0, 24, 0}, list).sense(), sense::kInvalidParameter);
  EXPECT_TRUE(drive_.write_cache());
}

TEST_F(ScsiHdTest, TheControlPageChoosesTheSenseFormat) {
  const Bytes list{0, 0, 0, 0, 0x0a, 0x0a, 0x04, 0x10, 0, 0, 0, 0, 0, 0, 0, 0};

  ASSERT_TRUE(run({0x15, 0x10, 0, 0, 16, 0}, list).good());

  EXPECT_TRUE(run({0xc1}).reply.descriptor);
  EXPECT_EQ(sense_bytes(sense::kInvalidOpcode, true), (Bytes{0x72, 5, 0x20, 0, 0, 0, 0, 0}));
}

TEST_F(ScsiHdTest, AnAttentionIsToldOnceAndNotByInquiry) {
  disk_.post_attention(sense::kCapacityChanged);
  disk_.post_attention(sense::kCapacityChanged);

  EXPECT_TRUE(run({0x12, 0, 0, 0, 36}).good());
  EXPECT_EQ(run({0x00}).sense(), sense::kCapacityChanged);
  EXPECT_TRUE(run({0x00}).good());
}

TEST_F(ScsiHdTest, RequestSenseTakesTheAttention) {
  disk_.post_attention(sense::kBusReset);

  const auto answer = run({0x03, 0, 0, 0, 252});

  ASSERT_EQ(answer.data.size(), 18u);
  EXPECT_EQ(answer.data[2], 6);
  EXPECT_EQ(answer.data[12], 0x29);
  EXPECT_EQ(answer.data[13], 0x02);
  EXPECT_TRUE(run({0x00}).good());
}

TEST_F(ScsiHdTest, HeldSenseIsForTheNextCommandOnly) {
  disk_.hold_sense(sense::kOutOfRange);
  EXPECT_EQ(run({0x03, 0, 0, 0, 252}).data[12], 0x21);

  disk_.hold_sense(sense::kOutOfRange);
  ASSERT_TRUE(run({0x00}).good());
  EXPECT_EQ(run({0x03, 0, 0, 0, 252}).data[12], 0);
}

TEST_F(ScsiHdTest, AStoppedDiskWantsToBeStarted) {
  ASSERT_TRUE(run({0x1b, 0, 0, 0, 0, 0}).good());
  EXPECT_EQ(run({0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}).sense(), sense::kNeedsStart);
  ASSERT_TRUE(run({0x1b, 0, 0, 0, 1, 0}).good());
  EXPECT_TRUE(run({0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}).good());
}

TEST_F(ScsiHdTest, SupportedCommandsAreTold) {
  const auto all = run({0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0});
  const auto one = run({0xa3, 0x0c, 1, 0x28, 0, 0, 0, 0, 0x10, 0, 0, 0});
  const auto with_action = run({0xa3, 0x0c, 2, 0x9e, 0, 0x10, 0, 0, 0x10, 0, 0, 0});
  const auto none = run({0xa3, 0x0c, 1, 0xc1, 0, 0, 0, 0, 0x10, 0, 0, 0});

  EXPECT_EQ(load_be32(all.data.data()) + 4, all.data.size());
  EXPECT_EQ(all.data.size() % 8, 4u);
  EXPECT_EQ(one.data, (Bytes{0, 3, 0, 10, 0x28, 0xf8, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0}));
  EXPECT_EQ(with_action.data[1], 3);
  EXPECT_EQ(none.data[1], 1);
  EXPECT_EQ(run({0xa3, 0x0c, 1, 0x9e, 0, 0, 0, 0, 0x10, 0, 0, 0}).sense(), sense::kInvalidField);
}

TEST_F(ScsiHdTest, FormatUnitIsRefused) { EXPECT_EQ(run({0x04}).sense(), sense::kInvalidOpcode); }

TEST_F(ScsiHdTest, AResetBringsTheCacheBack) {
  drive_.set_write_cache(false);

  disk_.reset();

  EXPECT_TRUE(drive_.write_cache());
  EXPECT_EQ(run({0x00}).sense(), sense::kPowerOn);
}

struct Outcome {
  bool done = false;
  ScsiReply reply;
};
Task<void> keep(Task<ScsiReply> task, Outcome* to) {
  to->reply = co_await std::move(task);
  to->done = true;
}

TEST_F(ScsiHdTest, AnAbortEndsTheTaskThatWaitsAndNoOther) {
  Bytes first(512), second(512);
  drive_.hold();
  TaskScope scope;
  Outcome aborted, other;
  ScsiCommand command = ScsiWorld::make({0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 7);
  command.data_in = block::IoSlice(std::span(first));
  scope.spawn(keep(disk_.execute(command), &aborted));
  command.tag = 8;
  command.data_in = block::IoSlice(std::span(second));
  scope.spawn(keep(disk_.execute(command), &other));
  world_.settle();

  EXPECT_TRUE(disk_.abort(7));
  EXPECT_FALSE(disk_.abort(9));
  world_.settle();

  EXPECT_TRUE(aborted.done);
  EXPECT_TRUE(aborted.reply.aborted);
  EXPECT_FALSE(other.done);
  EXPECT_TRUE(disk_.has_task(8));
  drive_.release();
  world_.settle();
  EXPECT_TRUE(other.done);
  EXPECT_EQ(other.reply.status, ScsiStatus::kGood);
}

TEST_F(ScsiHdTest, TheMachinesCancelIsNotTriedAgain) {
  Bytes data(512);
  drive_.hold();
  TaskScope scope;
  Outcome outcome;
  ScsiCommand command = ScsiWorld::make({0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0});
  command.data_in = block::IoSlice(std::span(data));
  scope.spawn(keep(disk_.execute(command), &outcome));
  world_.settle();

  drive_.cancel();
  world_.settle();

  EXPECT_TRUE(outcome.done);
  EXPECT_EQ(outcome.reply.sense, sense::kAborted);
  drive_.release();
}

TEST_F(ScsiHdTest, StateTravels) {
  ASSERT_TRUE(run({0x1b, 0, 0, 0, 0, 0}).good());
  disk_.post_attention(sense::kBusReset);
  const Bytes state = saved_state(disk_);
  ScsiWorld other;
  ScsiDevice& copy = other.add("scsi-hd", {}, &other.add_drive(kBytes));

  ASSERT_TRUE(restore_state(copy, state));

  EXPECT_EQ(other.run(copy, {0x00}).sense(), sense::kBusReset);
  EXPECT_EQ(other.run(copy, {0x00}).sense(), sense::kNeedsStart);
}

TEST_F(ScsiHdTest, ADiskWithoutATrayCannotBeRestoredWithAnOpenOne) {
  const Bytes state = with_patched_field(saved_state(disk_), 6, 0, 1, 1);

  EXPECT_FALSE(restore_state(disk_, state));
}

TEST(ScsiHd, AReadOnlyDiskIsWriteProtected) {
  ScsiWorld world;
  ScsiDevice& disk = world.add("scsi-hd", {}, &world.add_drive(kBytes, true));

  EXPECT_EQ(world.run(disk, {0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}, Bytes(512)).sense(), sense::kWriteProtected);
  EXPECT_EQ(world.run(disk, {0x1a, 0x08, 0x08, 0, 255, 0}).data[2], 0x80);
}

TEST(ScsiHd, BlocksOf4096Bytes) {
  ScsiWorld world;
  ScsiDevice& disk =
      world.add("scsi-hd", {{"logical_block_size", "4096"}, {"physical_block_size", "4096"}}, &world.add_drive(kBytes));

  EXPECT_EQ(load_be32(world.run(disk, {0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}).data.data()), 255u);
  EXPECT_EQ(world.run(disk, {0x28, 0, 0, 0, 0, 255, 0, 0, 1, 0}).data.size(), 4096u);
}

TEST(ScsiHd, WithoutDiscardNothingIsUnmapped) {
  ScsiWorld world;
  ScsiDevice& disk = world.add("scsi-hd", {{"discard_granularity", "0"}}, &world.add_drive(kBytes));

  EXPECT_EQ(world.run(disk, {0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, unmap_list(0, 1)).sense(), sense::kInvalidOpcode);
  EXPECT_EQ(world.run(disk, {0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32}).data[14], 0);
}

TEST(ScsiHd, ARemovableDiskCanBeTakenOut) {
  ScsiWorld world;
  ScsiDevice& disk = world.add("scsi-hd", {{"removable", "on"}}, &world.add_drive(kBytes));
  ASSERT_NE(dynamic_cast<Removable*>(&disk), nullptr);

  ASSERT_TRUE(world.run(disk, {0x1b, 0, 0, 0, 2, 0}).good());

  EXPECT_EQ(world.run(disk, {0x00}).sense(), sense::kNoMediumTrayOpen);
}

}  // namespace
}  // namespace kite::devices

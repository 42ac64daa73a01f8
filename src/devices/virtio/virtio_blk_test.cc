#include "devices/virtio/virtio_blk.h"

#include "devices/virtio/test_virtio_blk.h"
#include "devices/virtio/virtio_blk_regs.h"

namespace kite::devices {
namespace {

using namespace virtio_blk;
using namespace virtio;
using namespace testing;  // NOLINT: the machine, the driver and the places in memory

class VirtioBlkRings : public ::testing::TestWithParam<Choice> {};
INSTANTIATE_TEST_SUITE_P(Rings, VirtioBlkRings,
                         ::testing::Values(Choice{false, false}, Choice{false, true}, Choice{true, false},
                                           Choice{true, true}),
                         [](const auto& info) {
                           return std::string(info.param.packed ? "Packed" : "Split") +
                                  (info.param.event_index ? "EventIndex" : "Flags");
                         });

TEST_P(VirtioBlkRings, WhatIsWrittenIsReadBack) {
  BlkMachine machine;
  machine.set_up(GetParam());
  machine.fill(kData, 1024, 0x5a);
  machine.fill(kData + 1024, 512, 0xa5);
  EXPECT_EQ(machine.request(kOut, 2, {{kData, 1024}, {kData + 1024, 512}}), kOk);
  EXPECT_EQ(machine.request(kIn, 2, {{kData + 4096, 1536, true}}), kOk);
  EXPECT_EQ(std::memcmp(machine.host(kData), machine.host(kData + 4096), 1536), 0);
  EXPECT_EQ(machine.disk->data[1024 + 1024], 0xa5);
}

TEST_P(VirtioBlkRings, IndirectTablesAreFollowed) {
  BlkMachine machine;
  machine.set_up(GetParam());
  std::vector<TestBuffer> parts;
  for (unsigned i = 0; i < 20; ++i) parts.push_back({kData + i * 1024, 512});
  for (unsigned i = 0; i < 20; ++i) machine.fill(kData + i * 1024, 512, static_cast<uint8_t>(i + 1));
  EXPECT_EQ(machine.request(kOut, 100, parts, kTables), kOk);
  EXPECT_EQ(machine.disk->data[100 * 512 + 19 * 512], 20);
}

TEST_P(VirtioBlkRings, RingsGoRoundForThousandsOfRequests) {
  BlkMachine machine;
  machine.set_up(GetParam());
  for (unsigned i = 0; i < 3000; ++i) {
    const unsigned parts = 1 + i % 3;
    std::vector<TestBuffer> data;
    for (unsigned part = 0; part < parts; ++part) data.push_back({kData + part * 512, 512});
    machine.fill(kData, 1536, static_cast<uint8_t>(i));
    machine.add(0, kOut, i % 2000, data, i % 5 == 0 ? kTables : 0);
    machine.driver.kick();
    for (int pass = 0; pass < 4; ++pass) machine.executor->run_once(0);
    const auto used = machine.ring->take();
    ASSERT_TRUE(used) << i;
    ASSERT_EQ(used->written, 1U);
    ASSERT_EQ(machine.request_status(), kOk);
    ASSERT_EQ(machine.disk->data[(i % 2000) * 512], static_cast<uint8_t>(i));
  }
}

TEST_P(VirtioBlkRings, RequestsOfOneKickAllEnd) {
  BlkMachine machine;
  machine.set_up(GetParam());
  machine.disk->late = 3;
  for (unsigned i = 0; i < kRingSize; ++i) machine.add(i, kIn, i, {{kData + i * 512, 512, true}}, kTables + i * 256);
  for (unsigned i = 0; i < kRingSize; ++i) machine.disk->data[i * 512] = static_cast<uint8_t>(i + 1);
  machine.driver.kick();
  machine.settle();
  for (unsigned i = 0; i < kRingSize; ++i) {
    const auto used = machine.ring->take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->written, 513U);
    EXPECT_EQ(machine.get<uint8_t>(kData + i * 512), i + 1);
  }
  EXPECT_FALSE(machine.ring->take());
}

TEST_P(VirtioBlkRings, AnInterruptTellsOfMany) {
  BlkMachine machine;
  machine.driver.use_msix(*machine.function, 3);
  machine.set_up(GetParam());
  machine.disk->late = 2;
  for (unsigned i = 0; i < 4; ++i) machine.add(i, kIn, i, {{kData + i * 512, 512, true}}, kTables + i * 256);
  machine.driver.kick();
  machine.settle();
  EXPECT_EQ(machine.messages.sent[2], 1);
  EXPECT_EQ(machine.driver.isr(), 0);
}

TEST_P(VirtioBlkRings, WaitingRequestsTravelInTheState) {
  BlkMachine source;
  source.set_up(GetParam());
  EXPECT_EQ(source.request(kOut, 7, {{kData, 512}}), kOk);
  source.drive->set_error_policy(block::OnError::kStop, block::OnError::kStop);
  source.disk->error = EIO;
  source.fill(kData, 512, 0x77);
  source.add(0, kOut, 3, {{kData, 512}}, kTables);
  source.add(1, kOut, 4, {{kData, 512}});
  source.driver.kick();
  source.settle();
  ASSERT_EQ(source.drive->stopped_requests(), 2U);
  BlkMachine target;
  move_state(source, target);
  EXPECT_EQ(target.disk->data[3 * 512], 0x77);
  EXPECT_EQ(target.disk->data[4 * 512 + 511], 0x77);
  EXPECT_EQ(target.request_status(0), kOk);
  EXPECT_EQ(target.request_status(1), kOk);
}

TEST_P(VirtioBlkRings, AResetWaitsForItsRequests) {
  BlkMachine machine;
  machine.set_up(GetParam());
  machine.drive->hold();
  machine.fill(kData, 512, 0x11);
  machine.disk->data[0] = 0x99;
  machine.add(0, kIn, 0, {{kData, 512, true}});
  machine.driver.kick();
  machine.settle();
  machine.driver.set_status(0);
  EXPECT_NE(machine.driver.status(), 0);
  machine.settle();  // the drive cancels what waits
  EXPECT_EQ(machine.driver.status(), 0);
  EXPECT_EQ(machine.request_status(), 0xee);
  machine.drive->release();
  machine.settle();
  EXPECT_EQ(machine.get<uint8_t>(kData), 0x11);
  machine.set_up(GetParam());
  EXPECT_EQ(machine.request(kIn, 0, {{kData, 512, true}}), kOk);
  EXPECT_EQ(machine.get<uint8_t>(kData), 0x99);
}

TEST_P(VirtioBlkRings, AQueueCanBeResetAlone) {
  BlkMachine machine;
  machine.set_up(GetParam(), kFlush | kRingReset);
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kOk);
  machine.disk->late = 60;
  machine.add(0, kOut, 0, {{kData, 512}});
  machine.driver.kick();
  machine.settle();
  machine.driver.write(0x3a, 1, 2);
  EXPECT_EQ(machine.driver.read(0x3a, 2), 1U);
  machine.settle();
  EXPECT_EQ(machine.driver.read(0x3a, 2), 0U);
  EXPECT_EQ(machine.driver.read(0x1c, 2), 0U);
  machine.disk->late = 0;
  machine.ring.emplace(machine, kRing, kRingSize, GetParam().packed);
  machine.driver.set_queue(0, *machine.ring, 1);
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kOk);
}

// --- requests

TEST(VirtioBlkTest, SerialNumberIsPadded) {
  BlkMachine machine;
  machine.set_up({});
  machine.fill(kData, 20, 0xff);
  EXPECT_EQ(machine.request(kGetId, 0, {{kData, 20, true}}), kOk);
  EXPECT_EQ(std::memcmp(machine.host(kData), "serial-number\0\0\0\0\0\0", 20), 0);
}

TEST(VirtioBlkTest, FlushReachesTheDisk) {
  BlkMachine machine;
  machine.set_up({});
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kOk);
  EXPECT_EQ(machine.disk->flushes, 1U);
}

TEST(VirtioBlkTest, WithoutFlushEveryWriteIsDurable) {
  BlkMachine machine;
  machine.set_up({}, 0);
  EXPECT_EQ(machine.request(kOut, 0, {{kData, 512}}), kOk);
  EXPECT_EQ(machine.disk->fua_writes, 1U);
}

TEST(VirtioBlkTest, TheGuestSwitchesTheWriteCache) {
  BlkMachine machine;
  machine.set_up({}, kFlush | kConfigWce);
  EXPECT_EQ(machine.driver.config(kWriteback, 1), 1U);
  machine.store(VirtioMachine::kModern + 0x2000 + kWriteback, 0, 1);
  EXPECT_FALSE(machine.drive->write_cache());
  machine.driver.set_status(0);
  EXPECT_TRUE(machine.drive->write_cache());
}

TEST(VirtioBlkTest, ZeroesAndDiscards) {
  BlkMachine machine;
  machine.set_up({});
  std::ranges::fill(machine.disk->data, uint8_t{0xff});
  machine.put(kData, uint64_t{8});
  machine.put(kData + 8, uint32_t{4});
  machine.put(kData + 12, kUnmap);
  machine.put(kData + 16, uint64_t{100});
  machine.put(kData + 24, uint32_t{1});
  machine.put(kData + 28, uint32_t{0});
  EXPECT_EQ(machine.request(kWriteZeroesRequest, 0, {{kData, 32}}), kOk);
  EXPECT_EQ(machine.disk->data[8 * 512], 0);
  EXPECT_EQ(machine.disk->data[12 * 512], 0xff);
  EXPECT_EQ(machine.disk->data[100 * 512 + 511], 0);
  EXPECT_EQ(machine.disk->unmaps, 1U);
  EXPECT_EQ(machine.request(kDiscardRequest, 0, {{kData, 32}}), kUnsupported);  // the unmap flag
  machine.put(kData + 12, uint32_t{0});
  EXPECT_EQ(machine.request(kDiscardRequest, 0, {{kData, 32}}), kOk);
  machine.put(kData + 8, uint32_t{0x400000});
  EXPECT_EQ(machine.request(kDiscardRequest, 0, {{kData, 32}}), kIoError);
  EXPECT_EQ(machine.request(kDiscardRequest, 0, {{kData, 20}}), kIoError);
}

TEST(VirtioBlkTest, DiscardThatWasNotNegotiatedIsUnsupported) {
  BlkMachine machine;
  machine.set_up({}, kFlush);
  EXPECT_EQ(machine.request(kDiscardRequest, 0, {{kData, 16}}), kUnsupported);
}

TEST(VirtioBlkTest, UnknownRequestsAreUnsupported) {
  BlkMachine machine;
  machine.set_up({});
  EXPECT_EQ(machine.request(2, 0, {{kData, 512}}), kUnsupported);
  EXPECT_EQ(machine.request(0x7fffffff, 0, {}), kUnsupported);
}

TEST(VirtioBlkTest, RequestsOutsideTheDiskFailWithoutStoppingTheMachine) {
  BlkMachine machine;
  machine.drive->set_error_policy(block::OnError::kStop, block::OnError::kStop);
  machine.set_up({});
  EXPECT_EQ(machine.request(kIn, kDiskBytes / 512, {{kData, 512, true}}), kIoError);
  EXPECT_EQ(machine.request(kOut, kDiskBytes / 512 - 1, {{kData, 1024}}), kIoError);
  EXPECT_EQ(machine.request(kIn, ~uint64_t{0} / 512, {{kData, 512, true}}), kIoError);
  EXPECT_EQ(machine.request(kIn, 0, {{kData, 100, true}}), kIoError);
}

TEST(VirtioBlkTest, HostErrorsAreReported) {
  BlkMachine machine;
  machine.set_up({});
  machine.disk->error = EIO;
  EXPECT_EQ(machine.request(kIn, 0, {{kData, 512, true}}), kIoError);
  EXPECT_EQ(machine.request(kOut, 0, {{kData, 512}}), kIoError);
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kIoError);
}

TEST(VirtioBlkTest, AStoppedRequestEndsWhenItIsTriedAgain) {
  BlkMachine machine;
  machine.drive->set_error_policy(block::OnError::kStop, block::OnError::kStop);
  machine.set_up({});
  machine.disk->error = ENOSPC;
  machine.fill(kData, 512, 0x42);
  machine.add(0, kOut, 5, {{kData, 512}});
  machine.driver.kick();
  machine.settle();
  EXPECT_FALSE(machine.ring->take());
  machine.disk->error = 0;
  machine.drive->resume();
  machine.settle();
  EXPECT_TRUE(machine.ring->take());
  EXPECT_EQ(machine.disk->data[5 * 512], 0x42);
}

TEST(VirtioBlkTest, ReadOnlyDisksRefuseWrites) {
  block::DriveConfig config;
  config.read_only = true;
  BlkMachine machine({}, {}, {}, config);
  EXPECT_NE(machine.driver.features() & kReadOnly, 0U);
  machine.set_up({}, kReadOnly | kFlush);
  EXPECT_EQ(machine.request(kOut, 0, {{kData, 512}}), kIoError);
  EXPECT_EQ(machine.request(kIn, 0, {{kData, 512, true}}), kOk);
}

TEST(VirtioBlkTest, ConfigurationTellsOfTheDisk) {
  VirtioBlk::Config config;
  config.disk.physical_block_bytes = 4096;
  config.disk.min_io_bytes = 4096;
  config.disk.opt_io_bytes = 65536;
  config.queues = 3;
  config.queue_size = 64;
  BlkMachine machine(config);
  EXPECT_EQ(machine.driver.config(kCapacity, 4), kDiskBytes / 512);
  EXPECT_EQ(machine.driver.config(kSegMaxAt, 4), 62U);
  EXPECT_EQ(machine.driver.config(kBlkSize, 4), 512U);
  EXPECT_EQ(machine.driver.config(kPhysicalExponent, 1), 3U);
  EXPECT_EQ(machine.driver.config(kMinIo, 2), 8U);
  EXPECT_EQ(machine.driver.config(kOptIo, 4), 128U);
  EXPECT_EQ(machine.driver.config(kNumQueues, 2), 3U);
  EXPECT_NE(machine.driver.features() & kMultiQueue, 0U);
}

TEST(VirtioBlkTest, AnotherSizeInterruptsTheDriver) {
  BlkMachine machine;
  machine.driver.use_msix(*machine.function, 3);
  machine.set_up({});
  machine.driver.write(0x10, 2, 2);
  const uint8_t before = static_cast<uint8_t>(machine.driver.read(0x15, 1));
  machine.disk->data.resize(2 * kDiskBytes);
  machine.drive->refresh();
  machine.drive->resized();
  EXPECT_EQ(machine.messages.sent[3], 1);
  EXPECT_NE(machine.driver.read(0x15, 1), before);
  EXPECT_EQ(machine.driver.isr(), 2);
  EXPECT_EQ(machine.driver.config(kCapacity, 4), 2 * kDiskBytes / 512);
}

TEST(VirtioBlkTest, EveryQueueIsServed) {
  VirtioBlk::Config config;
  config.queues = 2;
  BlkMachine machine(config);
  machine.driver.use_msix(*machine.function, 3);
  machine.set_up({}, kFlush | kMultiQueue);
  TestRing second(machine, 0x20000, kRingSize, false);
  machine.driver.set_queue(1, second, 2);
  const uint64_t at = machine.header(1, kFlushRequest, 0);
  second.add({{at, 16}, {at + 16, 1, true}});
  machine.driver.kick(1);
  machine.settle();
  EXPECT_TRUE(second.take());
  EXPECT_EQ(machine.messages.sent[3], 1);
}

}  // namespace
}  // namespace kite::devices

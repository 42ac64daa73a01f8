#include "devices/usb/usb_storage.h"

#include <gtest/gtest.h>

#include <random>

#include "devices/test_device.h"
#include "devices/usb/test_usb.h"
#include "devices/usb/usb_storage_regs.h"
#include "devices/virtio/test_virtio.h"
#include "support/bytes.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace usb_storage;
using usb::Speed;
using Bytes = std::vector<uint8_t>;

constexpr uint64_t kDiskBytes = 1 << 20;
constexpr uint8_t kIn = 1, kOut = 2;  // numbers of the endpoints
const UsbAnswer kNotNow{.outcome = UsbOutcome::kNak}, kHalted{.outcome = UsbOutcome::kStall};

// A stick in a port, configured, past its power-on attention unless told otherwise.
struct Stick {
  explicit Stick(UsbStorage::Config config = {}, Speed speed = Speed::kHigh) : bus("usb", {{"1", {speed}}}, host) {
    auto made = Executor::create("block");
    EXPECT_TRUE(made);
    executor = std::move(*made);
    disk = std::make_shared<TestDisk>(*executor, kDiskBytes);
    auto opened = block::Drive::create(*executor, {.id = "disk"}, disk);
    EXPECT_TRUE(opened);
    drive = std::move(*opened);
    config.disk.drive = drive.get();
    if (config.cdrom || config.removable)
      device = std::make_unique<UsbStorageWithTray>("stick", config, clock);
    else
      device = std::make_unique<UsbStorage>("stick", config, clock);
    device->reset();
    EXPECT_TRUE(bus.attach(*device, ""));
    device->start();
    EXPECT_TRUE(usb_configure(*device));
  }
  ~Stick() {
    bus.detach(*device);
    drive->cancel();
    settle();
    device.reset();
    EXPECT_TRUE(block::run_until_done(*executor, drive->close()));
  }
  // What waits on either executor has happened.
  void settle() {
    for (int turn = 0; turn < 100; ++turn) executor->run_once(0);
    clock.advance(1);
  }
  static Bytes wrapper(uint32_t length, bool to_host, const Bytes& cdb, uint32_t tag = 0x1234) {
    Bytes bytes(kCbwBytes);
    store(&bytes[0], kCbwSignature);
    store(&bytes[kCbwTag], tag);
    store(&bytes[kCbwLength], length);
    bytes[kCbwFlags] = to_host ? kToHost : 0;
    bytes[kCbwBlockLength] = static_cast<uint8_t>(cdb.size());
    std::copy(cdb.begin(), cdb.end(), bytes.begin() + kCbwBlock);
    return bytes;
  }
  UsbAnswer send(const Bytes& bytes) { return device->out(kOut, bytes); }
  UsbAnswer command(uint32_t length, bool to_host, const Bytes& cdb) { return send(wrapper(length, to_host, cdb)); }
  UsbAnswer receive(Bytes& bytes, size_t most) {
    bytes.assign(most, 0xee);
    const UsbAnswer answer = device->in(kIn, bytes);
    bytes.resize(answer.moved);
    return answer;
  }
  struct Status {
    uint8_t status;
    uint32_t residue;
    bool operator==(const Status&) const = default;
  };
  std::optional<Status> status() {
    Bytes bytes;
    if (receive(bytes, kCswBytes) != UsbAnswer{.moved = kCswBytes}) return {};
    EXPECT_EQ(load<uint32_t>(&bytes[0]), kCswSignature);
    EXPECT_EQ(load<uint32_t>(&bytes[kCswTag]), 0x1234u);
    return Status{bytes[kCswStatus], load<uint32_t>(&bytes[kCswResidue])};
  }
  // A whole command, as fast as the device lets it.
  struct Outcome {
    std::optional<Status> status;
    Bytes data;
  };
  Outcome run(uint32_t length, const Bytes& cdb, std::optional<Bytes> out = {}) {
    EXPECT_EQ(command(length, !out, cdb), UsbAnswer{.moved = kCbwBytes});
    if (out && length != 0) EXPECT_EQ(send(*out), UsbAnswer{.moved = out->size()});
    settle();
    Outcome outcome;
    if (!out && length != 0) EXPECT_EQ(receive(outcome.data, length), UsbAnswer{.moved = length});
    outcome.status = status();
    return outcome;
  }
  void ready() { EXPECT_EQ(run(0, {0x00}).status, (Status{kFailed, 0})); }  // takes the power-on attention
  Bytes sense() { return run(18, {0x03, 0, 0, 0, 18}).data; }
  bool request(uint8_t type, uint8_t number, uint16_t value = 0, uint16_t index = 0) {
    return usb_control(*device, usb_setup(type, number, value, index, 0)).has_value();
  }
  bool clear_halt(uint8_t endpoint) { return request(0x02, 1, 0, endpoint); }
  void recover() {
    EXPECT_TRUE(request(0x21, kReset));
    EXPECT_TRUE(clear_halt(kInEndpoint));
    EXPECT_TRUE(clear_halt(kOutEndpoint));
    settle();
  }
  Bytes content(uint64_t offset, uint64_t bytes) {
    Bytes data(bytes);
    EXPECT_TRUE(block::run_until_done(*executor, drive->read(offset, block::IoSlice(std::span(data)))));
    return data;
  }

  std::unique_ptr<Executor> executor;
  std::shared_ptr<TestDisk> disk;
  std::unique_ptr<block::Drive> drive;
  ManualClock clock;
  FakeUsbHost host;
  UsbBus bus;
  std::unique_ptr<UsbStorage> device;
};

Bytes read10(uint32_t first, uint16_t blocks) {
  Bytes cdb(10);
  cdb[0] = 0x28;
  store_be32(&cdb[2], first);
  store_be16(&cdb[7], blocks);
  return cdb;
}
Bytes write10(uint32_t first, uint16_t blocks) {
  Bytes cdb = read10(first, blocks);
  cdb[0] = 0x2a;
  return cdb;
}

class UsbStorageTest : public ::testing::Test {
 protected:
  UsbStorageTest() {
    stick_.ready();
    stick_.host.ready.clear();
  }
  using Status = Stick::Status;
  Stick stick_;
};

TEST(UsbStorageDescriptors, AreThoseOfItsSpeed) {
  for (const auto& [speed, packet, size] :
       {std::tuple(Speed::kFull, 64, 32u), std::tuple(Speed::kHigh, 512, 32u), std::tuple(Speed::kSuper, 1024, 44u)}) {
    Stick stick({}, speed);
    const auto bytes = usb_control(*stick.device, usb_setup(0x80, 6, 0x200, 0, 255));
    ASSERT_TRUE(bytes);
    EXPECT_EQ(bytes->size(), size);
    EXPECT_EQ(Bytes(bytes->begin() + 14, bytes->begin() + 17), (Bytes{8, 6, 0x50}));
    EXPECT_EQ(load<uint16_t>(&(*bytes)[22]), packet);
  }
}

TEST(UsbStorageDescriptors, ASerialNumberIsGivenOrMadeUp) {
  const auto serial = [](Stick& stick) { return usb_control(*stick.device, usb_setup(0x80, 6, 0x303, 0x409, 255)); };
  UsbStorage::Config config;
  config.disk.serial = "AB";
  Stick plain, named(config);
  EXPECT_EQ(serial(plain)->size(), 2u + 2 * 16);
  EXPECT_EQ(*serial(named), (Bytes{6, 3, 'A', 0, 'B', 0}));
}

TEST_F(UsbStorageTest, HasOneUnit) {
  EXPECT_EQ(*usb_control(*stick_.device, usb_setup(0xa1, kGetMaxLun, 0, 0, 1)), Bytes{0});
  EXPECT_FALSE(usb_control(*stick_.device, usb_setup(0xa1, kGetMaxLun, 1, 0, 1)));
  EXPECT_FALSE(usb_control(*stick_.device, usb_setup(0xa1, kGetMaxLun, 0, 0, 2)));
}

TEST_F(UsbStorageTest, WritesAndReads) {
  Bytes data(4 * 512);
  for (size_t at = 0; at < data.size(); ++at) data[at] = static_cast<uint8_t>(at * 7);

  EXPECT_EQ(stick_.run(2048, write10(3, 4), data).status, (Status{kPassed, 0}));

  EXPECT_EQ(stick_.content(3 * 512, 2048), data);
  const auto read = stick_.run(2048, read10(3, 4));
  EXPECT_EQ(read.data, data);
  EXPECT_EQ(read.status, (Status{kPassed, 0}));
}

TEST_F(UsbStorageTest, MovesDataInPackets) {
  ASSERT_EQ(stick_.command(1024, false, write10(0, 2)), UsbAnswer{.moved = 31});
  for (int packet = 0; packet < 16; ++packet) ASSERT_EQ(stick_.send(Bytes(64, 0x5a)), UsbAnswer{.moved = 64});
  stick_.settle();
  EXPECT_EQ(stick_.status(), (Status{kPassed, 0}));
  ASSERT_EQ(stick_.command(1024, true, read10(0, 2)), UsbAnswer{.moved = 31});
  stick_.settle();
  Bytes packet;
  for (int count = 0; count < 16; ++count) {
    ASSERT_EQ(stick_.receive(packet, 64), UsbAnswer{.moved = 64});
    EXPECT_EQ(packet, Bytes(64, 0x5a));
  }
  EXPECT_EQ(stick_.status(), (Status{kPassed, 0}));
}

TEST_F(UsbStorageTest, AFailureKeepsItsSense) {
  const auto read = stick_.run(512, read10(0xffffff, 1));
  EXPECT_EQ(read.status, (Status{kFailed, 512}));
  EXPECT_EQ(read.data, Bytes(512));
  const Bytes sense = stick_.sense();
  EXPECT_EQ(sense[2], 5);
  EXPECT_EQ(sense[12], 0x21);
}

// [BOT] 6.7, the thirteen cases.
struct Case {
  int number;
  uint32_t length;
  bool to_host;
  Bytes cdb;
  Stick::Status status;
};
class UsbStorageCases : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(
    All, UsbStorageCases,
    ::testing::Values(Case{1, 0, false, {0x00}, {kPassed, 0}}, Case{2, 0, true, {0x12, 0, 0, 0, 36}, {kPhaseError, 0}},
                      Case{3, 0, false, write10(0, 1), {kPhaseError, 0}}, Case{4, 64, true, {0x00}, {kPassed, 64}},
                      Case{5, 1024, true, read10(0, 1), {kPassed, 512}}, Case{6, 512, true, read10(0, 1), {kPassed, 0}},
                      Case{7, 512, true, read10(0, 2), {kPhaseError, 0}},
                      Case{8, 512, true, write10(0, 1), {kPhaseError, 512}}, Case{9, 64, false, {0x00}, {kPassed, 64}},
                      Case{10, 512, false, read10(0, 1), {kPhaseError, 512}},
                      Case{11, 1024, false, write10(0, 1), {kPassed, 512}},
                      Case{12, 512, false, write10(0, 1), {kPassed, 0}},
                      Case{13, 512, false, write10(0, 2), {kPhaseError, 512}}),
    [](const auto& each) { return std::to_string(each.param.number); });

TEST_P(UsbStorageCases, EndWithTheStatusOfTheSpecification) {
  const Case& now = GetParam();
  Stick stick;
  stick.ready();
  const Bytes before = stick.content(0, 1024);

  const auto outcome = stick.run(now.length, now.cdb, now.to_host ? std::nullopt : std::optional(Bytes(now.length, 9)));

  EXPECT_EQ(outcome.status, now.status);
  if (now.status.status == kPhaseError) EXPECT_EQ(stick.content(0, 1024), before);
  EXPECT_EQ(stick.run(0, {0x00}).status, (Stick::Status{kPassed, 0}));
}

TEST_F(UsbStorageTest, AnAllocationLengthIsNoDisagreement) {
  const auto inquiry = stick_.run(36, {0x12, 0, 0, 0, 255});
  EXPECT_EQ(inquiry.status, (Status{kPassed, 0}));
  EXPECT_EQ(inquiry.data[1] & 0x80, 0);
}

TEST_F(UsbStorageTest, NothingMovesUntilTheDiskHasAnswered) {
  stick_.drive->hold();
  ASSERT_EQ(stick_.command(512, true, read10(0, 1)), UsbAnswer{.moved = 31});
  stick_.settle();
  Bytes data;
  EXPECT_EQ(stick_.receive(data, 512), kNotNow);
  EXPECT_EQ(stick_.send(Bytes(31)), kNotNow);
  stick_.settle();
  EXPECT_TRUE(stick_.host.ready.empty());

  stick_.drive->release();
  stick_.settle();

  EXPECT_EQ(stick_.host.ready, (std::vector<std::pair<unsigned, uint8_t>>{{0, kInEndpoint}}));
  EXPECT_EQ(stick_.receive(data, 512), UsbAnswer{.moved = 512});
  EXPECT_EQ(stick_.status(), (Status{kPassed, 0}));
  stick_.settle();
  EXPECT_EQ(stick_.host.ready.back().second, kOutEndpoint);
}

TEST_F(UsbStorageTest, TheHostMayAskTooEarly) {
  Bytes data;
  EXPECT_EQ(stick_.receive(data, 13), kNotNow);
  ASSERT_EQ(stick_.command(512, false, write10(0, 1)), UsbAnswer{.moved = 31});
  EXPECT_EQ(stick_.receive(data, 13), kNotNow);
  stick_.send(Bytes(512));
  stick_.settle();
  EXPECT_EQ(stick_.host.ready.back().second, kInEndpoint);
  EXPECT_EQ(stick_.receive(data, 12).outcome, UsbOutcome::kBabble);
  EXPECT_EQ(stick_.status(), (Status{kPassed, 0}));
}

class UsbStorageNonsense : public ::testing::TestWithParam<Bytes> {};
Bytes changed(size_t at, uint8_t value) {
  Bytes bytes = Stick::wrapper(0, true, {0, 0, 0, 0, 0, 0});
  bytes[at] = value;
  return bytes;
}
INSTANTIATE_TEST_SUITE_P(All, UsbStorageNonsense,
                         ::testing::Values(Bytes{}, Bytes(30), Bytes(31), Bytes(512), changed(0, 0),
                                           changed(kCbwLun, 1), changed(kCbwFlags, 0x40), changed(kCbwFlags, 1),
                                           changed(kCbwBlockLength, 0), changed(kCbwBlockLength, 17)));

TEST_P(UsbStorageNonsense, HaltsUntilTheHostRecovers) {
  Stick stick;
  stick.ready();
  Bytes data;
  ASSERT_EQ(stick.receive(data, 13), kNotNow);

  EXPECT_EQ(stick.send(GetParam()), kHalted);

  stick.settle();
  EXPECT_EQ(stick.host.ready.back().second, kInEndpoint);  // who waits hears of the halt
  EXPECT_EQ(stick.receive(data, 13), kHalted);
  // [BOT] 6.6.1: a halt that is cleared without a reset comes back.
  EXPECT_TRUE(stick.clear_halt(kInEndpoint));
  EXPECT_TRUE(stick.clear_halt(kOutEndpoint));
  EXPECT_EQ(stick.receive(data, 13), kHalted);
  EXPECT_EQ(stick.command(0, true, {0x00}), kHalted);
  stick.recover();
  EXPECT_EQ(stick.run(0, {0x00}).status, (Stick::Status{kPassed, 0}));
}

TEST_F(UsbStorageTest, MoreDataThanPromisedIsNoWrapper) {
  ASSERT_EQ(stick_.command(512, false, write10(0, 1)), UsbAnswer{.moved = 31});
  EXPECT_EQ(stick_.send(Bytes(513, 1)), kHalted);
  stick_.recover();
  EXPECT_EQ(stick_.content(0, 512), Bytes(512));
  EXPECT_EQ(stick_.run(0, {0x00}).status, (Status{kPassed, 0}));
}

TEST_F(UsbStorageTest, AHugePromiseCostsNothing) {
  // WRITE(16) of 2^31 blocks, into 4 GiB less one byte: nothing is there before it is sent.
  Bytes cdb{0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x7f, 0xff, 0xff, 0, 0};
  ASSERT_EQ(stick_.command(UINT32_MAX, false, cdb), UsbAnswer{.moved = 31});
  EXPECT_EQ(stick_.send(Bytes(512)), UsbAnswer{.moved = 512});
  stick_.recover();
  // READ CAPACITY(16) with an allocation length of 4 GiB.
  const auto capacity = stick_.run(32, {0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0});
  EXPECT_EQ(capacity.status, (Status{kPassed, 0}));
  EXPECT_EQ(load_be64(capacity.data.data()), kDiskBytes / 512 - 1);
}

TEST_F(UsbStorageTest, ACommandLongerThanItsLimitIsRefused) {
  constexpr uint32_t kBlocks = (32 << 20) / 512 + 1;
  Bytes cdb(16);
  cdb[0] = 0x8a;
  store_be32(&cdb[10], kBlocks);
  EXPECT_EQ(stick_.command(kBlocks * 512, false, cdb), UsbAnswer{.moved = 31});
  const Bytes part(1 << 20, 1);
  for (uint32_t left = kBlocks * 512; left != 0;) {
    const auto count = std::min<uint32_t>(left, 1 << 20);
    ASSERT_EQ(stick_.send(Bytes(part.begin(), part.begin() + count)), UsbAnswer{.moved = count});
    left -= count;
  }
  stick_.settle();
  EXPECT_EQ(stick_.status(), (Status{kFailed, kBlocks * 512}));
  EXPECT_EQ(stick_.sense()[12], 0x24);
}

TEST_F(UsbStorageTest, AResetGivesACommandUp) {
  stick_.drive->hold();
  stick_.command(512, false, write10(0, 1));
  stick_.send(Bytes(512, 7));
  stick_.settle();

  EXPECT_TRUE(stick_.request(0x21, kReset));
  stick_.settle();

  // What was given up is over before the next wrapper is taken.
  stick_.drive->release();
  stick_.settle();
  EXPECT_EQ(stick_.content(0, 512), Bytes(512));
  EXPECT_EQ(stick_.run(0, {0x00}).status, (Status{kPassed, 0}));
}

TEST_F(UsbStorageTest, TheNextWrapperWaitsForWhatWasGivenUp) {
  stick_.command(512, true, read10(0, 1));
  EXPECT_TRUE(stick_.request(0x21, kReset));
  EXPECT_EQ(stick_.command(0, true, {0x00}), kNotNow);
  stick_.settle();
  EXPECT_EQ(stick_.host.ready.back().second, kOutEndpoint);
  EXPECT_EQ(stick_.run(0, {0x00}).status, (Status{kPassed, 0}));
}

TEST_F(UsbStorageTest, AResetOfTheBusGivesACommandUp) {
  stick_.command(512, true, read10(0, 1));
  stick_.device->bus_reset();
  stick_.settle();
  ASSERT_TRUE(usb_configure(*stick_.device));
  Bytes data;
  EXPECT_EQ(stick_.receive(data, 512), kNotNow);
  EXPECT_EQ(stick_.run(512, read10(0, 1)).status, (Status{kPassed, 0}));
}

TEST_F(UsbStorageTest, GoesWithACommandUnderWay) {
  stick_.drive->hold();
  stick_.command(512, true, read10(0, 1));
  stick_.settle();
  // ~Stick pulls it out.
}

TEST_F(UsbStorageTest, ASavedCommandBeginsAnew) {
  stick_.drive->hold();
  stick_.command(1024, false, write10(1, 2));
  stick_.send(Bytes(1024, 0x77));
  stick_.settle();
  const Bytes state = saved_state(*stick_.device);
  Stick other;

  ASSERT_TRUE(restore_state(*other.device, state));
  EXPECT_EQ(saved_state(*other.device), state);
  other.device->start();
  other.settle();

  EXPECT_EQ(other.status(), (Status{kPassed, 0}));
  EXPECT_EQ(other.content(512, 1024), Bytes(1024, 0x77));
  EXPECT_EQ(other.run(0, {0x00}).status, (Status{kPassed, 0}));  // the unit's section: no attention is due
}

TEST_F(UsbStorageTest, ErrorsOfTheHostAreReported) {
  stick_.disk->error = EIO;
  EXPECT_EQ(stick_.run(512, read10(0, 1)).status, (Status{kFailed, 512}));
  EXPECT_EQ(stick_.sense()[2], 3);
  EXPECT_EQ(stick_.run(512, write10(0, 1), Bytes(512)).status, (Status{kFailed, 512}));
  stick_.disk->error = 0;
  EXPECT_EQ(stick_.run(512, write10(0, 1), Bytes(512)).status, (Status{kPassed, 0}));
}

TEST_F(UsbStorageTest, AStoppedCommandEndsWhenItIsTriedAgain) {
  stick_.drive->set_error_policy(block::OnError::kStop, block::OnError::kStop);
  stick_.disk->error = ENOSPC;
  stick_.command(512, false, write10(5, 1));
  stick_.send(Bytes(512, 0x42));
  stick_.settle();
  Bytes data;
  EXPECT_EQ(stick_.receive(data, kCswBytes), kNotNow);
  EXPECT_EQ(stick_.drive->stopped_requests(), 1u);

  stick_.disk->error = 0;
  stick_.drive->resume();
  stick_.settle();

  EXPECT_EQ(stick_.status(), (Status{kPassed, 0}));
  EXPECT_EQ(stick_.disk->data[5 * 512], 0x42);
}

TEST_F(UsbStorageTest, NothingIsToldWhileTheMachineStandsStill) {
  stick_.drive->hold();
  stick_.command(512, true, read10(0, 1));
  stick_.settle();
  Bytes data;
  EXPECT_EQ(stick_.receive(data, 512), kNotNow);
  stick_.drive->release();
  for (int turn = 0; turn < 100; ++turn) stick_.executor->run_once(0);  // the clock stands
  stick_.device->stop();
  stick_.settle();
  EXPECT_TRUE(stick_.host.ready.empty());

  stick_.device->start();
  stick_.settle();

  EXPECT_EQ(stick_.host.ready.front().second, kInEndpoint);
}

TEST_F(UsbStorageTest, DataGoesOnWhereItWasSaved) {
  stick_.run(512, write10(0, 1), Bytes(512, 0x31));
  stick_.command(512, true, read10(0, 1));
  stick_.settle();
  Bytes data;
  stick_.receive(data, 64);
  Stick other;

  ASSERT_TRUE(restore_state(*other.device, saved_state(*stick_.device)));
  other.device->start();

  EXPECT_EQ(other.receive(data, 448), UsbAnswer{.moved = 448});
  EXPECT_EQ(data, Bytes(448, 0x31));
  EXPECT_EQ(other.status(), (Status{kPassed, 0}));
}

TEST_F(UsbStorageTest, ImpossibleStateIsRefused) {
  stick_.command(512, true, read10(0, 1));
  stick_.settle();
  const Bytes good = saved_state(*stick_.device);
  unsigned refused = 0;
  for (size_t at = 0; at < good.size(); ++at) {
    Bytes bad = good;
    bad[at] ^= 0xff;
    Stick other;
    const Bytes before = saved_state(*other.device);
    if (restore_state(*other.device, bad)) {
      other.device->start();
      other.settle();
    } else {
      ++refused;
    }
  }
  EXPECT_GT(refused, 20u);
}

// Whatever the host does, in whatever order: it ends, and after a recovery the device works.
TEST(UsbStorage, SurvivesAHostThatMakesNoSense) {
  std::mt19937 random(4711);
  const auto below = [&random](uint32_t limit) { return static_cast<uint32_t>(random() % limit); };
  Stick stick({.disk = {}, .removable = true});
  constexpr uint8_t kCommands[] = {0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1e, 0x23, 0x25, 0x28, 0x2a, 0x2e,
                                   0x2f, 0x35, 0x41, 0x42, 0x55, 0x5a, 0x88, 0x8a, 0x93, 0x9e, 0xa0, 0xa3, 0xc1};
  const auto wrapper = [&] {
    Bytes cdb(1 + below(16));
    for (uint8_t& byte : cdb) byte = static_cast<uint8_t>(below(4) == 0 ? random() : 0);
    cdb[0] = kCommands[below(std::size(kCommands))];
    Bytes bytes = Stick::wrapper(below(3) == 0 ? 0 : below(4096), below(2) == 0, cdb);
    if (below(8) == 0) bytes[below(kCbwBytes)] = static_cast<uint8_t>(random());
    return bytes;
  };
  Bytes data;
  for (int step = 0; step < 20'000; ++step) {
    switch (below(12)) {
      case 0:
      case 1: stick.send(wrapper()); break;
      case 2: stick.send(Bytes(below(600), 1)); break;
      case 3:
      case 4:
      case 5: stick.receive(data, below(4) == 0 ? below(4096) : 512); break;
      case 6: stick.receive(data, kCswBytes); break;
      case 7: stick.settle(); break;
      case 8: stick.clear_halt(below(2) == 0 ? kInEndpoint : kOutEndpoint); break;
      case 9:
        if (below(4) == 0) stick.recover();
        break;
      case 10:
        if (below(16) == 0) stick.device->bus_reset(), usb_configure(*stick.device);
        break;
      default:
        if (below(16) == 0) EXPECT_TRUE(restore_state(*stick.device, saved_state(*stick.device)));
        stick.device->start();
    }
  }
  stick.settle();
  stick.recover();
  stick.device->reset();
  ASSERT_TRUE(usb_configure(*stick.device));
  stick.settle();
  stick.ready();
  EXPECT_EQ(stick.run(36, {0x12, 0, 0, 0, 36}).status, (Stick::Status{kPassed, 0}));
}

TEST(UsbStorage, ARemovableDiskSaysSo) {
  Stick stick({.disk = {}, .removable = true});
  stick.ready();
  EXPECT_EQ(stick.run(36, {0x12, 0, 0, 0, 36}).data[1], 0x80);
  auto* const tray = dynamic_cast<Removable*>(stick.device.get());
  ASSERT_NE(tray, nullptr);
  std::vector<bool> moves;
  tray->set_tray_hook([&](bool open) { moves.push_back(open); });
  tray->set_tray(true);
  EXPECT_EQ(moves, std::vector<bool>{true});
  EXPECT_EQ(stick.run(512, read10(0, 1)).status, (Stick::Status{kFailed, 512}));
  EXPECT_EQ(stick.sense()[12], 0x3a);
}

TEST(UsbStorage, ADiscDriveHasSectorsOfItsOwn) {
  Stick stick({.disk = {}, .cdrom = true});
  stick.ready();
  EXPECT_EQ(stick.run(36, {0x12, 0, 0, 0, 36}).data[0], 5);
  EXPECT_EQ(stick.run(2048, read10(0, 1)).status, (Stick::Status{kPassed, 0}));
}

}  // namespace
}  // namespace kite::devices

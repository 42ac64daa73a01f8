#include "devices/uhci/uhci.h"

#include <gtest/gtest.h>

#include "devices/test_device.h"
#include "devices/test_ports.h"
#include "devices/usb/test_usb.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace uhci;
using Bytes = std::vector<uint8_t>;

class UhciTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kRam = 1 << 20, kBar = 0xc000;
  static constexpr uint32_t kList = 0x1000, kQh = 0x2000, kTd = 0x3000, kData = 0x4000;
  static constexpr int64_t kFrame = 1'000'000;
  static constexpr uint32_t kIn = kPidIn, kOut = kPidOut;

  UhciTest() {
    auto block = RamBlock::create("ram", kRam);
    EXPECT_TRUE(block);
    ram_ = *block;
    memory_.map(0, Region::ram("ram", ram_));
    memory_.commit();
    device_.reset();
    uhci_.reset();
    EXPECT_TRUE(pci_.attach(uhci_, 1, 2));
    uhci_.config_write(0x20, 4, kBar);
    uhci_.config_write(0x04, 2, 5);
    for (uint32_t entry = 0; entry < kFrameListEntries; ++entry) put(kList + entry * 4, kQh | kQueue);
    put(kQh, kTerminate);
    put(kQh + 4, kTerminate);
    out(FLBASEADD, kList, 4);
  }
  ~UhciTest() override { uhci_.usb().detach(device_); }

  uint32_t in(uint64_t reg, unsigned size = 2) { return ports_.in(kBar + reg, size); }
  void out(uint64_t reg, uint32_t value, unsigned size = 2) { ports_.out(kBar + reg, value, size); }
  void put(uint32_t address, uint32_t value) { std::memcpy(ram_->host() + address, &value, sizeof value); }
  uint32_t get(uint32_t address) { return load<uint32_t>(ram_->host() + address); }
  void plug_in() {
    ASSERT_TRUE(uhci_.usb().attach(device_, "1"));
    out(PORTSC1, kPortReset);
    out(PORTSC1, 0);
    out(PORTSC1, kEnabled | kConnectChange);
    ASSERT_TRUE(usb_configure(device_));
  }
  // A descriptor number `index`, active, with three tries.
  void make_td(unsigned index, uint32_t link, uint32_t pid, uint8_t endpoint, uint32_t length, uint32_t flags = 0) {
    const uint32_t at = kTd + index * 32;
    put(at, link);
    put(at + 4, kActive | 3u << kErrorShift | flags);
    put(at + 8, pid | uint32_t{endpoint} << 15 | (length - 1) << 21);
    put(at + 12, kData + index * 64);
  }
  uint32_t status_of(unsigned index) { return get(kTd + index * 32 + 4); }
  void run() { out(USBCMD, kRun); }

  TestSpace ports_, memory_{uint64_t{1} << 32};
  std::shared_ptr<RamBlock> ram_;
  GuestMemory guest_memory_{memory_.space()};
  ManualClock clock_;
  FakeLines lines_;
  bus::PciBus pci_{memory_.root(), ports_.root(), lines_};
  Uhci uhci_{
      "uhci", *Uhci::find_model("piix3-usb-uhci"), {.memory = guest_memory_, .clock = clock_, .bus_name = "usb"}};
  FakeUsbDevice device_{{usb::Speed::kFull}};
  [[nodiscard]] bool interrupts() { return lines_.level(bus::PciBus::pirq_of(1, 4)); }
};

TEST_F(UhciTest, FramesCountWhileItRuns) {
  EXPECT_EQ(in(USBSTS), kHalted);
  clock_.advance(5 * kFrame);
  EXPECT_EQ(in(FRNUM), 0u);
  run();
  EXPECT_EQ(in(USBSTS), 0u);
  clock_.advance(5 * kFrame);
  EXPECT_EQ(in(FRNUM), 5u);
  clock_.advance(2048 * kFrame);
  EXPECT_EQ(in(FRNUM), 5u);
  out(USBCMD, 0);
  clock_.advance(5 * kFrame);
  EXPECT_EQ(in(FRNUM), 5u);
  EXPECT_EQ(in(USBSTS), kHalted);
  EXPECT_EQ(clock_.next_deadline(), Clock::kNever);
}

TEST_F(UhciTest, PortsTellOfPlugs) {
  EXPECT_EQ(in(PORTSC1), kAlwaysOne);
  ASSERT_TRUE(uhci_.usb().attach(device_, "1"));
  EXPECT_EQ(in(PORTSC1), kAlwaysOne | kConnected | kConnectChange | kLinePlus);
  out(PORTSC1, kConnectChange | kPortReset);
  EXPECT_EQ(in(PORTSC1), kAlwaysOne | kConnected | kLinePlus | kPortReset);
  out(PORTSC1, kEnabled);
  EXPECT_EQ(in(PORTSC1), kAlwaysOne | kConnected | kLinePlus | kEnabled);
  uhci_.usb().detach(device_);
  EXPECT_EQ(in(PORTSC1), kAlwaysOne | kConnectChange | kEnableChange);
  out(PORTSC1 + 2, kEnabled | kSuspend);
  EXPECT_EQ(in(PORTSC1 + 2), kAlwaysOne);
  EXPECT_EQ(in(PORTSC1 + 4), 0u);
}

TEST_F(UhciTest, AQueueIsWorkedOff) {
  plug_in();
  device_.to_give = {1, 2, 3, 4, 5, 6, 7, 8};
  make_td(0, (kTd + 32) | kDepthFirst, kIn, 1, 8);
  make_td(1, kTerminate, kOut, 2, 4, kOnCompletion);
  std::memcpy(ram_->host() + kData + 64, "abcd", 4);
  put(kQh + 4, kTd);
  out(USBINTR, kOnComplete);
  run();
  clock_.advance(kFrame);
  EXPECT_EQ(status_of(0) & (kActive | kActualLength), 7u);
  EXPECT_EQ(status_of(1) & (kActive | kActualLength), 3u);
  EXPECT_EQ(get(kData), 0x04030201u);
  EXPECT_EQ(device_.taken, (Bytes{'a', 'b', 'c', 'd'}));
  EXPECT_EQ(get(kQh + 4), kTerminate);
  EXPECT_TRUE(interrupts());
  EXPECT_EQ(in(USBSTS), kInterrupt);
  out(USBSTS, kInterrupt);
  EXPECT_FALSE(interrupts());
}

TEST_F(UhciTest, NotNowIsAskedAgain) {
  plug_in();
  make_td(0, kTerminate, kIn, 1, 8, kOnCompletion);
  put(kQh + 4, kTd);
  run();
  clock_.advance(3 * kFrame);
  EXPECT_EQ(status_of(0) & (kActive | kNak), kActive | kNak);
  device_.to_give = {9};
  clock_.advance(kFrame);
  EXPECT_EQ(status_of(0) & (kActive | kActualLength | kNak), 0u);
  EXPECT_EQ(get(kData) & 0xff, 9u);
}

// A quiet schedule is looked at seldom, until the device says that it has something.
TEST_F(UhciTest, AnIdleDeviceCostsFewTimers) {
  plug_in();
  make_td(0, kTerminate, kIn, 1, 8, kOnCompletion);
  put(kQh + 4, kTd);
  run();
  clock_.advance(100 * kFrame);
  const int64_t next = clock_.next_deadline();
  EXPECT_GT(next - clock_.now(), kFrame);
  unsigned steps = 0;
  for (const int64_t end = clock_.now() + 1'000 * kFrame; clock_.now() < end && clock_.step(); ++steps) {
  }
  EXPECT_LE(steps, 110u);
  device_.to_give = {7};
  device_.endpoint_ready(0x81);
  clock_.advance(kFrame);
  EXPECT_EQ(status_of(0) & kActive, 0u);
}

TEST_F(UhciTest, AShortPacketStopsItsQueue) {
  plug_in();
  device_.to_give = {1, 2, 3};
  make_td(0, (kTd + 32) | kDepthFirst, kIn, 1, 8, kShortDetect);
  make_td(1, kTerminate, kIn, 1, 8);
  put(kQh + 4, kTd);
  out(USBINTR, kOnShort);
  run();
  clock_.advance(2 * kFrame);
  EXPECT_EQ(status_of(0) & (kActive | kActualLength), 2u);
  EXPECT_EQ(get(kQh + 4), kTd);
  EXPECT_NE(status_of(1) & kActive, 0u);
  EXPECT_TRUE(interrupts());
}

TEST_F(UhciTest, ErrorsAreCountedAndStallsEndAtOnce) {
  make_td(0, kTerminate, kIn, 1, 8);  // nobody is there
  put(kQh + 4, kTd);
  out(USBINTR, kOnError);
  run();
  clock_.advance(2 * kFrame);
  EXPECT_EQ(status_of(0) & (kActive | kTimeout | kErrorCount), kActive | kTimeout | 1u << kErrorShift);
  clock_.advance(kFrame);
  EXPECT_EQ(status_of(0) & (kActive | kStalled | kTimeout), kStalled | kTimeout);
  EXPECT_TRUE(interrupts());
  out(USBSTS, kError);
  plug_in();
  device_.outcome = UsbOutcome::kStall;
  make_td(0, kTerminate, kIn, 1, 8);
  clock_.advance(kFrame);
  EXPECT_EQ(status_of(0) & (kActive | kStalled | kTimeout), kStalled);
  EXPECT_EQ(in(USBSTS), kError);
}

TEST_F(UhciTest, EndlessSchedulesEnd) {
  plug_in();
  put(kQh, kQh | kQueue);  // a queue that leads to itself
  run();
  clock_.advance(3 * kFrame);
  EXPECT_EQ(in(FRNUM), 3u);
  make_td(0, kTd | kDepthFirst, kOut, 2, 1);  // a descriptor that leads to itself, done already
  put(kTd + 4, 0);
  put(kList, kTd);
  for (uint32_t entry = 0; entry < kFrameListEntries; ++entry) put(kList + entry * 4, kTd);
  clock_.advance(3 * kFrame);
  EXPECT_EQ(in(FRNUM), 6u);
}

// Bandwidth reclamation: queues in a ring go on until the frame is full.
TEST_F(UhciTest, AFrameHasItsLimit) {
  plug_in();
  put(kQh, kQh | kQueue);
  for (unsigned index = 0; index < 64; ++index) make_td(index, kTd + (index + 1) * 32, kOut, 2, 64);
  put(kQh + 4, kTd);
  run();
  clock_.advance(kFrame);
  EXPECT_EQ(device_.taken.size(), 20u * 64);
  clock_.advance(kFrame);
  EXPECT_EQ(device_.taken.size(), 40u * 64);
}

TEST_F(UhciTest, WhatIsInconsistentOrNowhereStopsIt) {
  plug_in();
  make_td(0, kTerminate, 0x42, 1, 8);
  put(kQh + 4, kTd);
  run();
  clock_.advance(kFrame);
  EXPECT_EQ(in(USBSTS), kHalted | kProcessError);
  EXPECT_TRUE(interrupts());
  out(USBCMD, kHcReset);
  EXPECT_FALSE(interrupts());
  out(FLBASEADD, 0xfffff000, 4);
  run();
  clock_.advance(kFrame);
  EXPECT_EQ(in(USBSTS), kHalted | kSystemError);
}

TEST_F(UhciTest, WithoutBusMasteringNothingIsRead) {
  plug_in();
  make_td(0, kTerminate, kOut, 2, 4);
  put(kQh + 4, kTd);
  uhci_.config_write(0x04, 2, 1);
  run();
  clock_.advance(2 * kFrame);
  EXPECT_EQ(in(FRNUM), 2u);
  EXPECT_TRUE(device_.taken.empty());
}

TEST_F(UhciTest, ASleepingDeviceWakesTheBus) {
  plug_in();
  ASSERT_FALSE(usb_control(device_, usb_setup(0, 3, 1, 0, 0)));  // this one cannot
  out(PORTSC1, kEnabled | kSuspend);
  out(USBINTR, kOnResume);
  device_.endpoint_ready(0x81);
  EXPECT_FALSE(interrupts());
}

// How Linux waits for a plug with the controller stopped.
TEST_F(UhciTest, APlugEndsAGlobalSuspend) {
  out(USBINTR, kOnResume);
  out(USBCMD, kGlobalSuspend);
  ASSERT_TRUE(uhci_.usb().attach(device_, "1"));
  EXPECT_TRUE(interrupts());
  EXPECT_EQ(in(USBCMD), kGlobalSuspend | kGlobalResume);
  EXPECT_EQ(in(USBSTS), kResumeDetect | kHalted);
}

TEST_F(UhciTest, StateTravels) {
  plug_in();
  make_td(0, kTerminate, kIn, 1, 8);
  put(kQh + 4, kTd);
  run();
  clock_.advance(7 * kFrame + kFrame / 2);
  const auto state = saved_state(uhci_);
  Uhci other("uhci", *Uhci::find_model("piix3-usb-uhci"),
             {.memory = guest_memory_, .clock = clock_, .bus_name = "usb"});
  FakeUsbDevice same{{usb::Speed::kFull}};
  ASSERT_TRUE(other.usb().attach(same, "1"));
  ASSERT_TRUE(restore_state(other, state));
  EXPECT_EQ(saved_state(other), state);
  EXPECT_EQ(other.bar_address(4), kBar);
  for (const auto& [field, value] : {std::pair<uint16_t, uint64_t>{1, 0xffff}, {2, 1}, {3, 0x80}, {7, 5'000}})
    EXPECT_FALSE(restore_state(other, with_patched_field(state, field, 0, value, field == 3 ? 1 : 2)));
  EXPECT_EQ(saved_state(other), state);
  other.usb().detach(same);
}

}  // namespace
}  // namespace kite::devices

#include "devices/usb/usb_device.h"

#include <gtest/gtest.h>

#include "devices/test_device.h"
#include "devices/usb/test_usb.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using usb::Speed;
using Bytes = std::vector<uint8_t>;

class UsbDeviceTest : public ::testing::Test {
 protected:
  UsbDeviceTest() : bus_("usb", {{"1", {Speed::kHigh, Speed::kFull}}, {"2", {Speed::kFull}}}, host_) {
    device_.reset();
    EXPECT_TRUE(bus_.attach(device_, "1"));
  }
  auto descriptor(uint8_t kind, uint8_t index = 0, uint16_t length = 255) {
    return usb_control(device_, usb_setup(0x80, 6, static_cast<uint16_t>(kind << 8 | index), 0, length));
  }
  FakeUsbHost host_;
  UsbBus bus_;
  FakeUsbDevice device_{{Speed::kFull, Speed::kHigh}};
};

TEST_F(UsbDeviceTest, DescribesItself) {
  const auto device = descriptor(1);
  ASSERT_TRUE(device);
  EXPECT_EQ(*device, (Bytes{18, 1, 0, 2, 0, 0, 0, 64, 0x34, 0x12, 0x78, 0x56, 0, 0, 1, 2, 0, 1}));
  EXPECT_EQ(descriptor(2)->size(), 9u + 9 + 7 + 7);
  EXPECT_EQ(descriptor(2, 0, 9)->size(), 9u);
  EXPECT_EQ(*descriptor(3, 0), (Bytes{4, 3, 9, 4}));
  EXPECT_EQ(*descriptor(3, 2), (Bytes{10, 3, 'F', 0, 'a', 0, 'k', 0, 'e', 0}));
  EXPECT_FALSE(descriptor(3, 9));
  EXPECT_EQ(descriptor(6)->size(), 10u);
  EXPECT_EQ((*descriptor(7))[1], 7);
  EXPECT_FALSE(descriptor(15));
}

TEST_F(UsbDeviceTest, TheAddressCountsFromTheStatusStageOn) {
  device_.setup(usb_setup(0, 5, 9, 0, 0));
  EXPECT_EQ(device_.address(), 0);
  EXPECT_EQ(device_.in(0, {}), (UsbAnswer{UsbOutcome::kDone, 0}));
  EXPECT_EQ(device_.address(), 9);
  EXPECT_FALSE(usb_control(device_, usb_setup(0, 5, 128, 0, 0)));
  device_.bus_reset();
  EXPECT_EQ(device_.address(), 0);
}

TEST_F(UsbDeviceTest, EndpointsAnswerOnceConfigured) {
  Bytes to(8);
  device_.to_give = {1, 2, 3};
  EXPECT_EQ(device_.in(1, to).outcome, UsbOutcome::kSilent);
  ASSERT_TRUE(usb_configure(device_));
  EXPECT_EQ(*usb_control(device_, usb_setup(0x80, 8, 0, 0, 1)), (Bytes{1}));
  EXPECT_EQ(device_.in(1, to), (UsbAnswer{UsbOutcome::kDone, 3}));
  EXPECT_EQ(device_.in(1, to).outcome, UsbOutcome::kNak);
  EXPECT_EQ(device_.in(5, to).outcome, UsbOutcome::kSilent);
  EXPECT_FALSE(usb_control(device_, usb_setup(0, 9, 2, 0, 0)));
}

TEST_F(UsbDeviceTest, HaltsAreSetSeenAndCleared) {
  ASSERT_TRUE(usb_configure(device_));
  Bytes to(8);
  ASSERT_TRUE(usb_control(device_, usb_setup(2, 3, 0, 0x81, 0)));
  EXPECT_EQ(*usb_control(device_, usb_setup(0x82, 0, 0, 0x81, 2)), (Bytes{1, 0}));
  EXPECT_EQ(device_.in(1, to).outcome, UsbOutcome::kStall);
  EXPECT_EQ(device_.out(2, to).outcome, UsbOutcome::kDone);
  ASSERT_TRUE(usb_control(device_, usb_setup(2, 1, 0, 0x81, 0)));
  EXPECT_EQ(device_.in(1, to).outcome, UsbOutcome::kNak);
}

TEST_F(UsbDeviceTest, UnknownRequestsStallUntilTheNext) {
  EXPECT_FALSE(usb_control(device_, usb_setup(0x80, 77, 0, 0, 4)));
  EXPECT_FALSE(usb_control(device_, usb_setup(0xc0, 1, 0, 0, 4)));
  EXPECT_FALSE(usb_control(device_, usb_setup(0x40, 1, 0, 0, 0)));
  EXPECT_EQ(device_.out(0, Bytes{1}).outcome, UsbOutcome::kStall);
  EXPECT_TRUE(descriptor(1));
}

TEST_F(UsbDeviceTest, AHostThatSendsMoreThanItSaidIsStalled) {
  device_.setup(usb_setup(0x21, 9, 0, 0, 2));
  EXPECT_EQ(device_.out(0, Bytes(3)).outcome, UsbOutcome::kStall);
  device_.setup(usb_setup(0x21, 9, 0, 0, 0xffff));
  EXPECT_EQ(device_.out(0, Bytes(8)).outcome, UsbOutcome::kStall);
}

TEST_F(UsbDeviceTest, StateTravels) {
  ASSERT_TRUE(usb_configure(device_));
  device_.setup(usb_setup(0x80, 6, 0x100, 0, 18));
  Bytes part(8);
  device_.in(0, part);
  const auto state = saved_state(device_);
  FakeUsbDevice other{{Speed::kFull}};
  ASSERT_TRUE(restore_state(other, state));
  EXPECT_EQ(saved_state(other), state);
  Bytes rest(64);
  EXPECT_EQ(other.in(0, rest), (UsbAnswer{UsbOutcome::kDone, 10}));
  EXPECT_EQ(rest[0], 0x34);
  EXPECT_FALSE(restore_state(other, with_patched_field(state, 1, 0, 128, 1)));
  EXPECT_FALSE(restore_state(other, with_patched_field(state, 4, 0, 9, 1)));
  EXPECT_FALSE(restore_state(other, with_patched_field(state, 7, 0, 19, 4)));
}

TEST_F(UsbDeviceTest, PortsAreFoundByNameAndSpeed) {
  EXPECT_EQ(device_.speed(), Speed::kHigh);
  FakeUsbDevice slow{{Speed::kFull}}, fast{{Speed::kHigh}};
  EXPECT_FALSE(bus_.attach(slow, "1"));
  EXPECT_FALSE(bus_.attach(slow, "7"));
  EXPECT_FALSE(bus_.has_room(fast));
  ASSERT_TRUE(bus_.attach(slow, ""));
  EXPECT_EQ(bus_.device(1), &slow);
  EXPECT_FALSE(bus_.has_free_port());
  bus_.detach(slow);
  EXPECT_EQ(host_.attached, (std::vector<unsigned>{0, 1}));
  EXPECT_EQ(host_.detached, (std::vector<unsigned>{1}));
  slow.endpoint_ready(0x81);  // of nobody
  EXPECT_TRUE(host_.ready.empty());
}

TEST(UsbBusTest, AConnectorTakesOneDeviceAtItsBestSpeed) {
  FakeUsbHost host;
  UsbBus bus("usb", {{"1", {Speed::kHigh, Speed::kFull}}, {"1", {Speed::kSuper}}}, host);
  FakeUsbDevice fast{{Speed::kHigh, Speed::kSuper}}, other{{Speed::kFull}};
  ASSERT_TRUE(bus.attach(fast, ""));
  EXPECT_EQ(fast.speed(), Speed::kSuper);
  EXPECT_EQ(bus.device(1), &fast);
  EXPECT_FALSE(bus.attach(other, ""));
  const auto device = usb_control(fast, usb_setup(0x80, 6, 0x100, 0, 18));
  ASSERT_TRUE(device);
  EXPECT_EQ((*device)[3], 3);
  EXPECT_EQ((*device)[7], 9);
  EXPECT_TRUE(usb_control(fast, usb_setup(0x80, 6, 0xf00, 0, 64)));
  bus.detach(fast);
}

}  // namespace
}  // namespace kite::devices

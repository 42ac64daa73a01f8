#include "devices/usb/usb_hid.h"

#include <gtest/gtest.h>

#include "devices/test_device.h"
#include "devices/usb/hid_keys.h"
#include "devices/usb/test_usb.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using usb::Speed;
using Bytes = std::vector<uint8_t>;

class UsbHidTest : public ::testing::Test {
 protected:
  UsbHidTest() : bus_("usb", {{"1", {Speed::kFull}}, {"2", {Speed::kFull}}, {"3", {Speed::kFull}}}, host_) {
    for (UsbHid* device : std::initializer_list<UsbHid*>{&keyboard_, &mouse_, &tablet_}) {
      device->reset();
      EXPECT_TRUE(bus_.attach(*device, ""));
      EXPECT_FALSE(device->in_use());
      EXPECT_TRUE(usb_configure(*device));
      EXPECT_TRUE(device->in_use());
    }
  }
  // The next report; empty when there is none.
  static Bytes report(UsbHid& device) {
    Bytes bytes(8);
    const UsbAnswer answer = device.in(1, bytes);
    bytes.resize(answer.outcome == UsbOutcome::kDone ? answer.moved : 0);
    return bytes;
  }
  ManualClock clock_;
  FakeUsbHost host_;
  UsbBus bus_;
  UsbKeyboard keyboard_{"keyboard", clock_};
  UsbPointer mouse_{"mouse", false, clock_};
  UsbPointer tablet_{"tablet", true, clock_};
};

TEST_F(UsbHidTest, KeysBecomeReports) {
  keyboard_.key(0x2a, true);  // Shift
  keyboard_.key(0x1e, true);  // A
  keyboard_.key(0x1e, false);
  keyboard_.key(0x2a, false);
  EXPECT_EQ(host_.ready.front(), (std::pair<unsigned, uint8_t>(0, 0x81)));
  EXPECT_EQ(report(keyboard_), (Bytes{2, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(report(keyboard_), (Bytes{2, 0, 4, 0, 0, 0, 0, 0}));
  EXPECT_EQ(report(keyboard_), (Bytes{2, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(report(keyboard_), (Bytes{0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_TRUE(report(keyboard_).empty());
}

TEST_F(UsbHidTest, MoreKeysThanAReportHoldsAreARollOver) {
  for (display::KeyNumber key = 0x10; key < 0x17; ++key) keyboard_.key(key, true);
  for (int i = 0; i < 6; ++i) report(keyboard_);
  EXPECT_EQ(report(keyboard_), (Bytes{0, 0, 1, 1, 1, 1, 1, 1}));
  keyboard_.key(0x10, false);
  EXPECT_EQ(report(keyboard_), (Bytes{0, 0, 0x1a, 0x08, 0x15, 0x17, 0x1c, 0x18}));
}

TEST_F(UsbHidTest, KeysHaveUsages) {
  EXPECT_EQ(hid_usage_of(0x01), 0x29);
  EXPECT_EQ(hid_usage_of(0x39), 0x2c);
  EXPECT_EQ(hid_usage_of(0x53), 0x63);
  EXPECT_EQ(hid_usage_of(0x58), 0x45);
  EXPECT_EQ(hid_usage_of(0xe01d), 0xe4);
  EXPECT_EQ(hid_usage_of(0xe04b), 0x50);
  EXPECT_EQ(hid_usage_of(0xe046), 0x48);
  EXPECT_EQ(hid_usage_of(0xffff), 0);
  EXPECT_EQ(hid_usage_of(0x7f), 0);
}

TEST_F(UsbHidTest, TheGuestSetsTheLamps) {
  EXPECT_TRUE(usb_control(keyboard_, usb_setup(0x21, 9, 0x200, 0, 1), {0x05}));
  EXPECT_EQ(keyboard_.leds(), display::kLedNum | display::kLedScroll);
  EXPECT_FALSE(usb_control(mouse_, usb_setup(0x21, 9, 0x200, 0, 1), {0x05}));
}

TEST_F(UsbHidTest, ATabletTellsWhereItIs) {
  tablet_.place(0x1234, 0x7fff, 0, 0);
  tablet_.place(0x2345, 0x0100, 0, 0);  // joins: nobody has asked yet
  tablet_.place(0x2345, 0x0100, -1, display::kButtonLeft);
  EXPECT_EQ(report(tablet_), (Bytes{0, 0x45, 0x23, 0x00, 0x01, 0}));
  EXPECT_EQ(report(tablet_), (Bytes{1, 0x45, 0x23, 0x00, 0x01, 0xff}));
  EXPECT_TRUE(report(tablet_).empty());
  tablet_.place(-5, 0x10000, 0, 0);
  EXPECT_EQ(report(tablet_), (Bytes{0, 0, 0, 0xff, 0x7f, 0}));
}

TEST_F(UsbHidTest, AMouseGoesAllTheWay) {
  mouse_.move(300, -5, 1, display::kButtonRight);
  EXPECT_EQ(report(mouse_), (Bytes{2, 127, 0xfb, 1}));
  EXPECT_EQ(report(mouse_), (Bytes{2, 127, 0, 0}));
  EXPECT_EQ(report(mouse_), (Bytes{2, 46, 0, 0}));
  EXPECT_TRUE(report(mouse_).empty());
  for (int i = 0; i < 100; ++i) mouse_.move(INT32_MAX, INT32_MIN, INT32_MAX, static_cast<uint8_t>(i));
  EXPECT_FALSE(report(mouse_).empty());
}

TEST_F(UsbHidTest, TheBootProtocolHasThreeBytes) {
  EXPECT_TRUE(usb_control(mouse_, usb_setup(0x21, 11, 0, 0, 0)));
  EXPECT_EQ(*usb_control(mouse_, usb_setup(0xa1, 3, 0, 0, 1)), (Bytes{0}));
  mouse_.move(1, 2, 3, 0);
  EXPECT_EQ(report(mouse_), (Bytes{0, 1, 2}));
  EXPECT_FALSE(usb_control(tablet_, usb_setup(0x21, 11, 0, 0, 0)));
}

TEST_F(UsbHidTest, IdleReportsComeWhenTheyWereAskedFor) {
  EXPECT_TRUE(usb_control(keyboard_, usb_setup(0x21, 10, 0x0500, 0, 0)));  // 20 ms
  EXPECT_EQ(*usb_control(keyboard_, usb_setup(0xa1, 2, 0, 0, 1)), (Bytes{5}));
  keyboard_.key(0x1e, true);
  EXPECT_EQ(report(keyboard_)[2], 4);
  EXPECT_TRUE(report(keyboard_).empty());
  host_.ready.clear();
  clock_.advance(20'000'000);
  EXPECT_EQ(host_.ready.size(), 1u);
  EXPECT_EQ(report(keyboard_)[2], 4);
  EXPECT_TRUE(report(keyboard_).empty());
}

TEST_F(UsbHidTest, ABufferThatIsTooShortIsABabble) {
  tablet_.place(1, 1, 0, 0);
  Bytes small(5);
  EXPECT_EQ(tablet_.in(1, small).outcome, UsbOutcome::kBabble);
}

TEST_F(UsbHidTest, ReportDescriptorsAreWhatTheHidDescriptorSays) {
  for (UsbHid* device : std::initializer_list<UsbHid*>{&keyboard_, &mouse_, &tablet_}) {
    const auto hid = usb_control(*device, usb_setup(0x81, 6, 0x2100, 0, 9));
    const auto report = usb_control(*device, usb_setup(0x81, 6, 0x2200, 0, 500));
    ASSERT_TRUE(hid && report);
    EXPECT_EQ((*hid)[7] | (*hid)[8] << 8, static_cast<int>(report->size()));
    EXPECT_EQ(report->back(), 0xc0);
  }
}

TEST_F(UsbHidTest, StateTravels) {
  EXPECT_TRUE(usb_control(keyboard_, usb_setup(0x21, 10, 0x0500, 0, 0)));
  keyboard_.key(0x1e, true);
  keyboard_.key(0x1f, true);
  report(keyboard_);
  mouse_.move(300, 4, 0, 1);
  report(mouse_);
  tablet_.place(5, 6, 7, 1);
  UsbKeyboard keyboard{"keyboard", clock_};
  UsbPointer mouse{"mouse", false, clock_}, tablet{"tablet", true, clock_};
  const auto travels = [](UsbHid& from, UsbHid& to) {
    const auto state = saved_state(from);
    ASSERT_TRUE(restore_state(to, state));
    EXPECT_EQ(saved_state(to), state);
    EXPECT_TRUE(to.in_use());
    EXPECT_EQ(report(from), report(to));
  };
  travels(keyboard_, keyboard);
  travels(mouse_, mouse);
  travels(tablet_, tablet);
  EXPECT_FALSE(restore_state(tablet, with_patched_field(saved_state(tablet_), 20, 12, 0x100, 4)));
}

TEST_F(UsbHidTest, NothingIsKeptForAGuestThatDoesNotUseIt) {
  keyboard_.bus_reset();
  EXPECT_FALSE(keyboard_.ready());
  keyboard_.key(0x1e, true);
  ASSERT_TRUE(usb_configure(keyboard_));
  EXPECT_TRUE(report(keyboard_).empty());
}

}  // namespace
}  // namespace kite::devices

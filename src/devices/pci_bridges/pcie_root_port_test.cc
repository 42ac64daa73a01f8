#include "devices/pci_bridges/pcie_root_port.h"

#include "devices/pci_testdev/pci_testdev.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace bus::pcie;

constexpr uint16_t kCapability = 0x90, kMsi = 0x60;
constexpr uint16_t kControl = kCapability + kSlotControl, kStatus = kCapability + kSlotStatus;
constexpr uint16_t kAllEvents = kButtonPressed | kPresenceChanged | kCommandCompleted | kInterruptEnable;

struct Messages final : bus::MsiSink {
  bool send_msi(uint64_t address, uint32_t data) override {
    sent.emplace_back(address, data);
    return true;
  }
  std::vector<std::pair<uint64_t, uint32_t>> sent;
};

class PcieRootPortTest : public ::testing::Test {
 protected:
  PcieRootPortTest() {
    EXPECT_TRUE(bus_.attach(port_, 2, 0));
    port_.reset();
    port_.config_write(bus::pci::kSecondaryBus, 1, 1);
    port_.config_write(bus::pci::kSubordinateBus, 1, 1);
    port_.config_write(bus::pci::kCommand, 2, 7);
  }
  uint16_t reg(uint16_t offset) { return static_cast<uint16_t>(port_.config_read(offset, 2)); }
  void plug() {
    ASSERT_TRUE(port_.secondary().attach(card_, 0, 0));
    port_.plugged();
  }
  void use_msi() {
    port_.config_write(kMsi + 4, 4, 0xfee00000);
    port_.config_write(kMsi + 12, 2, 0x41);
    port_.config_write(kMsi + 2, 2, 1);
  }
  bool card_answers() { return bus_.config_read(1, 0, 0, 4) == 0x00051b36U; }
  void unplug() {
    port_.secondary().detach(card_);
    port_.unplugged();
  }

  FakeLines lines_;
  TestSpace memory_{uint64_t{1} << 40}, ports_;
  Messages messages_;
  bus::PciBus bus_{memory_.root(), ports_.root(), lines_, {.name = "pcie.0", .express = true, .msi = &messages_}};
  int ejects_ = 0;
  PciTestdev card_{"card"};
  PcieRootPort port_{"port", {.bus_name = "port", .port = 5, .slot = 7}, {.eject = [this] { ++ejects_; }}};
};

TEST_F(PcieRootPortTest, SaysWhatItIs) {
  EXPECT_EQ(port_.config_read(0, 4), 0x000c1b36U);
  EXPECT_EQ(port_.find_capability(bus::pci::kCapabilityExpress), kCapability);
  EXPECT_EQ(reg(kCapability + kFlags), 2U | 4U << 4 | kSlotImplemented);
  EXPECT_EQ(port_.config_read(kCapability + kSlotCapabilities, 4) >> 19, 7U);
  EXPECT_EQ(port_.config_read(kCapability + kLinkCapabilities, 4) >> 24, 5U);
}

TEST_F(PcieRootPortTest, EmptySlotIsOffAndSilent) {
  EXPECT_EQ(reg(kControl) & kPowerOff, kPowerOff);
  EXPECT_EQ(reg(kStatus) & kPresence, 0U);
  EXPECT_FALSE(card_answers());
}

TEST_F(PcieRootPortTest, CardThatIsThereAtResetHasPower) {
  ASSERT_TRUE(port_.secondary().attach(card_, 0, 0));
  port_.reset();
  port_.config_write(bus::pci::kSecondaryBus, 1, 1);
  port_.config_write(bus::pci::kSubordinateBus, 1, 1);
  EXPECT_EQ(reg(kControl) & kPowerOff, 0U);
  EXPECT_TRUE(card_answers());
}

TEST_F(PcieRootPortTest, PluggingIsAnEventAndAMessage) {
  use_msi();
  port_.config_write(kControl, 2, kAllEvents | kPowerOff);
  port_.config_write(kStatus, 2, 0xffff);
  messages_.sent.clear();
  plug();
  EXPECT_EQ(reg(kStatus) & (kPresence | kPresenceChanged | kButtonPressed),
            kPresence | kPresenceChanged | kButtonPressed);
  ASSERT_EQ(messages_.sent.size(), 1U);
  EXPECT_EQ(messages_.sent[0], std::pair(uint64_t{0xfee00000}, 0x41U));
  EXPECT_FALSE(card_answers());  // until the guest switches the power on
}

TEST_F(PcieRootPortTest, NoMessageWithoutBusMastering) {
  use_msi();
  port_.config_write(kControl, 2, kAllEvents | kPowerOff);
  port_.config_write(kStatus, 2, 0xffff);
  messages_.sent.clear();
  port_.config_write(bus::pci::kCommand, 2, 3);
  plug();
  EXPECT_TRUE(messages_.sent.empty());
}

TEST_F(PcieRootPortTest, EventsDriveThePinWithoutMsi) {
  port_.config_write(kControl, 2, kPresenceChanged | kInterruptEnable | kPowerOff);
  plug();
  EXPECT_TRUE(lines_.level(bus::PciBus::pirq_of(2, 1)));
  port_.config_write(kStatus, 2, 0xffff);
  EXPECT_FALSE(lines_.level(bus::PciBus::pirq_of(2, 1)));
}

TEST_F(PcieRootPortTest, PowerBringsTheLinkUp) {
  port_.config_write(kControl, 2, kAllEvents | kPowerOff);
  plug();
  port_.config_write(kControl, 2, kAllEvents);
  EXPECT_EQ(reg(kCapability + kLinkStatus) & kLinkActive, kLinkActive);
  EXPECT_EQ(reg(kStatus) & (kCommandCompleted | kLinkStateChanged), kCommandCompleted | kLinkStateChanged);
  EXPECT_TRUE(card_answers());
}

TEST_F(PcieRootPortTest, WhereNobodyListensTheSlotPowersItself) {
  plug();
  EXPECT_EQ(reg(kControl) & kPowerOff, 0U);
  EXPECT_TRUE(card_answers());
}

TEST_F(PcieRootPortTest, UnplugWaitsForTheGuestToSwitchThePowerOff) {
  port_.config_write(kControl, 2, kAllEvents | kPowerOff);
  plug();
  port_.config_write(kControl, 2, kAllEvents);
  port_.config_write(kStatus, 2, 0xffff);
  ASSERT_TRUE(port_.request_unplug());
  EXPECT_EQ(reg(kStatus) & kButtonPressed, kButtonPressed);
  EXPECT_EQ(ejects_, 0);
  EXPECT_FALSE(port_.request_unplug());  // it is asked already
  port_.config_write(kControl, 2, kAllEvents | kPowerOff);
  EXPECT_EQ(ejects_, 1);
  unplug();
  EXPECT_EQ(reg(kStatus) & (kPresence | kPresenceChanged), kPresenceChanged);
}

TEST_F(PcieRootPortTest, PowerOffAloneEjectsNothing) {
  plug();
  port_.config_write(kControl, 2, kPowerOff);
  EXPECT_EQ(ejects_, 0);
  EXPECT_FALSE(card_answers());
  port_.config_write(kControl, 2, 0);
  EXPECT_TRUE(card_answers());
}

TEST_F(PcieRootPortTest, CardLosesItsRegistersWithItsPower) {
  plug();
  bus_.config_write(1, 0, 0x3c, 1, 0x55);
  port_.config_write(kControl, 2, kPowerOff);
  port_.config_write(kControl, 2, 0);
  EXPECT_EQ(bus_.config_read(1, 0, 0x3c, 1), 0U);
}

TEST_F(PcieRootPortTest, ResetForgetsTheGuestAndEjects) {
  plug();
  ASSERT_TRUE(port_.request_unplug());
  port_.reset();
  EXPECT_EQ(ejects_, 1);
}

TEST_F(PcieRootPortTest, EmptySlotHasNothingToUnplug) { EXPECT_FALSE(port_.request_unplug()); }

TEST_F(PcieRootPortTest, PortWithoutHotplugKeepsItsCard) {
  PcieRootPort fixed("fixed", {.bus_name = "fixed", .hotplug = false}, {.eject = [] {}});
  PciTestdev card("fixed-card");
  ASSERT_TRUE(bus_.attach(fixed, 3, 0));
  ASSERT_TRUE(fixed.secondary().attach(card, 0, 0));
  EXPECT_FALSE(fixed.request_unplug());
  EXPECT_EQ(fixed.config_read(kCapability + kSlotCapabilities, 4), 0U);
}

// Command lines that put it there are in use; configuration cycles find it.
TEST_F(PcieRootPortTest, ASlotThatALinkDoesNotHaveCanBeUsed) {
  PciTestdev other("other");
  EXPECT_TRUE(port_.secondary().attach(other, 1, 0));
  EXPECT_EQ(port_.secondary().find(1 << 3), &other);
}

TEST_F(PcieRootPortTest, StateTravels) {
  plug();
  use_msi();
  port_.config_write(kControl, 2, kAllEvents);
  ASSERT_TRUE(port_.request_unplug());
  const auto state = saved_state(port_);
  PcieRootPort other("port", {.bus_name = "port", .port = 5, .slot = 7}, {.eject = [] {}});
  PciTestdev card("card2");
  ASSERT_TRUE(other.secondary().attach(card, 0, 0));
  ASSERT_TRUE(restore_state(other, state));
  EXPECT_TRUE(other.unplug_requested());
  EXPECT_EQ(saved_state(other), state);
}

}  // namespace
}  // namespace kite::devices

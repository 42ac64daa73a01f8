#include "devices/acpi_pci_hotplug/acpi_pci_hotplug.h"

#include <utility>
#include <vector>

#include "devices/acpi_pci_hotplug/acpi_pci_hotplug_regs.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace acpi_pci_hotplug_regs;

class AcpiPciHotplugTest : public ::testing::Test {
 protected:
  AcpiPciHotplugTest() { ports_.map(kPort, device_.region()); }
  AcpiPciHotplug::Wiring wiring() {
    return {.notify = [this] { ++events_; },
            .removable = [](unsigned bus) { return bus == 1 ? 0x0fU : 0xf0U; },
            .eject = [this](unsigned bus, uint32_t slots) { ejected_.emplace_back(bus, slots); }};
  }
  uint32_t in(Reg reg) { return ports_.in(kPort + reg, 4); }
  void out(Reg reg, uint32_t value) { ports_.out(kPort + reg, value, 4); }

  TestSpace ports_;
  int events_ = 0;
  std::vector<std::pair<unsigned, uint32_t>> ejected_;
  AcpiPciHotplug device_{"hotplug", wiring()};
};

TEST_F(AcpiPciHotplugTest, AnArrivalIsToldOnce) {
  device_.plugged(0, 5);
  EXPECT_EQ(events_, 1);
  EXPECT_EQ(in(kUp), 1U << 5);
  EXPECT_EQ(in(kUp), 0U);
}

TEST_F(AcpiPciHotplugTest, ARemovalIsAskedForUntilTheSlotIsEjected) {
  device_.request_unplug(0, 31);
  EXPECT_EQ(events_, 1);
  EXPECT_EQ(in(kDown), 1U << 31);
  EXPECT_EQ(in(kDown), 1U << 31);
  out(kEject, 1U << 31);
  EXPECT_EQ(in(kDown), 0U);
  EXPECT_EQ(ejected_, (decltype(ejected_){{0, 1U << 31}}));
}

TEST_F(AcpiPciHotplugTest, ASecondRequestNotifiesAgain) {
  device_.request_unplug(0, 3);
  device_.request_unplug(0, 3);
  EXPECT_EQ(events_, 2);
  EXPECT_EQ(device_.unplug_requests(0), 1U << 3);
}

TEST_F(AcpiPciHotplugTest, AnEjectionThatNobodyAskedForIsPassedOn) {
  out(kEject, 0x50);
  EXPECT_EQ(ejected_, (decltype(ejected_){{0, 0x50}}));
}

TEST_F(AcpiPciHotplugTest, RegistersTellOfTheSelectedBus) {
  device_.plugged(1, 2);
  device_.request_unplug(255, 4);
  EXPECT_EQ(in(kUp), 0U);
  EXPECT_EQ(in(kRmv), 0xf0U);
  out(kBus, 1);
  EXPECT_EQ(in(kBus), 1U);
  EXPECT_EQ(in(kUp), 1U << 2);
  EXPECT_EQ(in(kRmv), 0x0fU);
  out(kBus, 255);
  EXPECT_EQ(in(kDown), 1U << 4);
}

TEST_F(AcpiPciHotplugTest, ABusThatCannotBeIsEmpty) {
  for (const uint32_t bus : {256U, 0xffffffffU}) {
    out(kBus, bus);
    EXPECT_EQ(in(kBus), bus);
    EXPECT_EQ(in(kUp) | in(kDown) | in(kRmv), 0U);
    out(kEject, 1);
  }
  EXPECT_TRUE(ejected_.empty());
}

TEST_F(AcpiPciHotplugTest, HasNoFurtherFeatures) { EXPECT_EQ(in(kEject), 0U); }

TEST_F(AcpiPciHotplugTest, AResetForgetsWhatWasAsked) {
  device_.plugged(0, 5);
  device_.request_unplug(0, 6);
  out(kBus, 1);
  device_.reset();
  EXPECT_EQ(in(kBus), 0U);
  EXPECT_EQ(in(kUp) | in(kDown), 0U);
}

TEST_F(AcpiPciHotplugTest, StateTravels) {
  device_.plugged(1, 5);
  device_.request_unplug(1, 6);
  out(kBus, 1);
  AcpiPciHotplug other("hotplug", wiring());
  ASSERT_TRUE(restore_state(other, saved_state(device_)));
  EXPECT_EQ(saved_state(other), saved_state(device_));
  EXPECT_EQ(read_reg(other.region(), kDown, 4), 1U << 6);
  EXPECT_EQ(events_, 2) << "the event's own state travels with the power management";
}

}  // namespace
}  // namespace kite::devices

#include "devices/pci_testdev/pci_testdev.h"

#include "devices/pci_testdev/pci_testdev_regs.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace pci_testdev_regs;

constexpr uint64_t kMmio = 0x100000, kPio = 0xc000;

class PciTestdevTest : public ::testing::Test {
 protected:
  PciTestdevTest() {
    EXPECT_TRUE(bus_.attach(device_, 4, 0));
    device_.config_write(0x10, 4, kMmio);
    device_.config_write(0x14, 4, kPio);
    device_.config_write(0x04, 2, 3);
  }
  // One test as the guest runs it: how many of `writes` the device counted.
  static uint32_t run(TestSpace& space, uint64_t base, uint8_t test, unsigned writes) {
    space.out(base + kTest, test);
    const uint32_t target = space.in(base + kOffset, 4);
    const uint32_t datum = space.in(base + kData, 4);
    for (unsigned i = 0; i < writes; ++i) space.out(base + target, datum);
    return space.in(base + kCount, 4);
  }
  static std::string name(TestSpace& space, uint64_t base) {
    std::string text;
    for (uint64_t at = base + kName; space.in(at) != 0; ++at) text += static_cast<char>(space.in(at));
    return text;
  }

  FakeLines lines_;
  TestSpace memory_{uint64_t{1} << 32};
  TestSpace ports_;
  bus::PciBus bus_{memory_.root(), ports_.root(), lines_};
  PciTestdev device_{"pci-testdev"};
};

TEST_F(PciTestdevTest, HasItsIds) { EXPECT_EQ(bus_.config_read(0, 4 << 3, 0, 4), 0x00051b36U); }

TEST_F(PciTestdevTest, MemoryTestCountsItsWrites) { EXPECT_EQ(run(memory_, kMmio, 0, 16), 16U); }

TEST_F(PciTestdevTest, PortTestCountsItsWrites) { EXPECT_EQ(run(ports_, kPio, 2, 16), 16U); }

TEST_F(PciTestdevTest, TestsHaveNames) {
  memory_.out(kMmio + kTest, 1);
  EXPECT_EQ(name(memory_, kMmio), "mmio-wildcard-eventfd");
  ports_.out(kPio + kTest, 2);
  EXPECT_EQ(name(ports_, kPio), "portio-datamatch-eventfd");
}

TEST_F(PciTestdevTest, WidthIsOneByte) {
  memory_.out(kMmio + kTest, 0);
  EXPECT_EQ(memory_.in(kMmio + kWidth), 1U);
}

TEST_F(PciTestdevTest, NumberPastTheLastTestHasNoWidth) {
  memory_.out(kMmio + kTest, 3);
  EXPECT_EQ(memory_.in(kMmio + kWidth), 0U);
}

TEST_F(PciTestdevTest, SelectingClearsTheCount) {
  run(memory_, kMmio, 0, 5);
  memory_.out(kMmio + kTest, 0);
  EXPECT_EQ(memory_.in(kMmio + kCount, 4), 0U);
}

TEST_F(PciTestdevTest, DatamatchIgnoresOtherValues) {
  memory_.out(kMmio + kTest, 2);
  memory_.out(kMmio + memory_.in(kMmio + kOffset, 4), 0x11);
  EXPECT_EQ(memory_.in(kMmio + kCount, 4), 0U);
}

TEST_F(PciTestdevTest, StateTravelsInTheMiddleOfATest) {
  run(memory_, kMmio, 1, 7);
  PciTestdev other("pci-testdev");
  TestSpace memory{uint64_t{1} << 32}, ports;
  bus::PciBus bus(memory.root(), ports.root(), lines_);
  ASSERT_TRUE(bus.attach(other, 4, 0));
  ASSERT_TRUE(restore_state(other, saved_state(device_)));
  memory.out(kMmio + memory.in(kMmio + kOffset, 4), memory.in(kMmio + kData, 4));
  EXPECT_EQ(memory.in(kMmio + kCount, 4), 8U);
}

TEST_F(PciTestdevTest, RefusesATestThatDoesNotExist) {
  run(memory_, kMmio, 1, 7);
  EXPECT_FALSE(restore_state(device_, with_patched_field(saved_state(device_), 2, 0, 3, 1)));
  EXPECT_EQ(memory_.in(kMmio + kCount, 4), 7U);
}

}  // namespace
}  // namespace kite::devices

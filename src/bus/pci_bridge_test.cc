#include "bus/pci_bridge.h"

#include <gtest/gtest.h>

#include "memory/address_space.h"

namespace kite::bus {
namespace {

struct Pattern final : IoHandler {
  uint64_t io_read(uint64_t offset, unsigned) override { return offset; }
  void io_write(uint64_t, unsigned, uint64_t) override {}
};

class TestDevice final : public PciDevice {
 public:
  explicit TestDevice(std::string path) : PciDevice(std::move(path), {.vendor = 0x1b36, .device = 5}) {
    declare_bar(0, Region::io("mem", 0x1000, handler), {});
    declare_bar(1, Region::io("ports", 0x20, handler), {.io = true});
    set_interrupt_pin(1);
  }
  void reset() override {
    ++resets;
    reset_config();
  }
  void save(StateWriter&) override {}
  void restore(StateReader&) override {}
  using PciDevice::set_intx;

  Pattern handler;
  int resets = 0;
};

class TestBridge final : public PciBridge {
 public:
  explicit TestBridge(std::string path)
      : PciBridge(path, {.vendor = 0x1b36, .device = 1, .class_code = 0x060400}, PciGeneration::kConventional,
                  {.name = path}) {
    set_interrupt_pin(1);
  }
  void reset() override { reset_bridge(); }
  void save(StateWriter& writer) override {
    writer.begin(path(), 1);
    save_config(writer);
    writer.end();
  }
  void restore(StateReader& reader) override {
    reader.begin(path());
    restore_config(reader);
    reader.end();
  }
  using PciBridge::set_link_up;
  using PciDevice::set_intx;
};

struct Lines final : IrqSink {
  void set_irq(uint32_t line, bool level) override { level_of.at(line) = level; }
  std::array<bool, 4> level_of{};
};

struct Messages final : MsiSink {
  bool send_msi(uint64_t, uint32_t data) override {
    sent.push_back(data);
    return true;
  }
  std::vector<uint32_t> sent;
};

// Root bus - outer (slot 1) - inner (slot 2) - device (slot 3).
class PciBridgeTest : public ::testing::Test {
 protected:
  PciBridgeTest() {
    EXPECT_TRUE(root.attach(outer, 1, 0));
    EXPECT_TRUE(outer.secondary().attach(inner, 2, 0));
    EXPECT_TRUE(inner.secondary().attach(device, 3, 0));
    number(outer, 0, 1, 2);
    number(inner, 1, 2, 2);
  }
  static void number(TestBridge& bridge, uint8_t primary, uint8_t secondary, uint8_t subordinate) {
    bridge.config_write(pci::kPrimaryBus, 1, primary);
    bridge.config_write(pci::kSecondaryBus, 1, secondary);
    bridge.config_write(pci::kSubordinateBus, 1, subordinate);
    bridge.config_write(pci::kCommand, 2, 7);
  }
  static void open_memory(TestBridge& bridge, uint32_t base, uint32_t limit) {
    bridge.config_write(pci::kMemoryBase, 2, base >> 16);
    bridge.config_write(pci::kMemoryLimit, 2, limit >> 16);
  }
  static void open_ports(TestBridge& bridge, uint16_t base, uint16_t limit) {
    bridge.config_write(pci::kIoBase, 1, base >> 8);
    bridge.config_write(pci::kIoLimit, 1, limit >> 8);
  }
  void place_device() {
    device.config_write(0x10, 4, 0xc0000000);
    device.config_write(0x14, 4, 0xc000);
    device.config_write(pci::kCommand, 2, 7);
  }
  static bool answers(AddressSpace& space, uint64_t address) {
    space.commit();
    uint64_t value = 0;
    return space.read(address, 1, value) == AccessResult::kOk;
  }

  AddressSpace memory{"memory", uint64_t{1} << 52};
  AddressSpace ports{"ports", 0x10000};
  Lines lines;
  Messages messages;
  TestDevice device{"device"};
  TestBridge inner{"inner"}, outer{"outer"};
  PciBus root{memory.root(), ports.root(), lines, {.msi = &messages}};
};

TEST_F(PciBridgeTest, HeaderIsType1) { EXPECT_EQ(root.config_read(0, 1 << 3, pci::kHeaderType, 1), 1U); }

TEST_F(PciBridgeTest, ConfigurationIsRoutedByBusNumber) {
  EXPECT_EQ(root.config_read(2, 3 << 3, 0, 4), 0x00051b36U);
  EXPECT_EQ(root.config_read(1, 2 << 3, 0, 4), 0x00011b36U);
  EXPECT_EQ(root.config_read(1, 3 << 3, 0, 4), 0xffffffffU);
  EXPECT_EQ(root.config_read(3, 3 << 3, 0, 4), 0xffffffffU);
}

TEST_F(PciBridgeTest, SilentLinkHidesWhatIsBehind) {
  outer.set_link_up(false);
  EXPECT_EQ(root.config_read(2, 3 << 3, 0, 4), 0xffffffffU);
  outer.set_link_up(true);
  EXPECT_EQ(root.config_read(2, 3 << 3, 0, 4), 0x00051b36U);
}

TEST_F(PciBridgeTest, MemoryPassesThroughBothWindowsOnly) {
  place_device();
  open_memory(inner, 0xc0000000, 0xc00fffff);
  open_memory(outer, 0xd0000000, 0xd00fffff);
  EXPECT_FALSE(answers(memory, 0xc0000000));
  open_memory(outer, 0xc0000000, 0xc01fffff);
  EXPECT_TRUE(answers(memory, 0xc0000000));
}

TEST_F(PciBridgeTest, BaseAboveTheLimitClosesAWindow) {
  place_device();
  open_memory(inner, 0xc0000000, 0xc00fffff);
  open_memory(outer, 0xc0000000, 0xc00fffff);
  EXPECT_TRUE(answers(memory, 0xc0000000));
  open_memory(outer, 0xfff00000, 0);
  EXPECT_FALSE(answers(memory, 0xc0000000));
}

TEST_F(PciBridgeTest, PrefetchableWindowReachesAbove4Gib) {
  inner.config_write(pci::kPrefetchableBase, 2, 0x0000);
  inner.config_write(pci::kPrefetchableBase32, 4, 0x10);
  inner.config_write(pci::kPrefetchableLimit, 2, 0xfff0);
  inner.config_write(pci::kPrefetchableLimit32, 4, 0x10);
  const auto window = inner.prefetchable_window();
  EXPECT_TRUE(window.enabled);
  EXPECT_EQ(window.base, 0x10'00000000U);
  EXPECT_EQ(window.limit, 0x10'ffffffffU);
}

TEST_F(PciBridgeTest, PortsPassWhileDecodingIsOn) {
  place_device();
  open_ports(inner, 0xc000, 0xcfff);
  open_ports(outer, 0xc000, 0xcfff);
  EXPECT_TRUE(answers(ports, 0xc000));
  outer.config_write(pci::kCommand, 2, 6);
  EXPECT_FALSE(answers(ports, 0xc000));
}

TEST_F(PciBridgeTest, IsaEnableStopsTheUpperPartOfEachKib) {
  place_device();
  device.config_write(0x14, 4, 0xc500);
  open_ports(inner, 0xc000, 0xcfff);
  open_ports(outer, 0xc000, 0xcfff);
  EXPECT_TRUE(answers(ports, 0xc500));
  outer.config_write(pci::kBridgeControl, 2, pci::kBridgeIsa);
  EXPECT_FALSE(answers(ports, 0xc500));
  device.config_write(0x14, 4, 0xc400);
  EXPECT_TRUE(answers(ports, 0xc400));
}

TEST_F(PciBridgeTest, VgaEnablePassesTheFrameBuffer) {
  device.config_write(0x10, 4, 0xa0000);
  device.config_write(pci::kCommand, 2, 2);
  for (TestBridge* bridge : {&inner, &outer}) {  // windows reach from 0 to 1 MiB after a reset
    open_memory(*bridge, 0xfff00000, 0);
    bridge->config_write(pci::kPrefetchableBase, 2, 0xfff0);
  }
  EXPECT_FALSE(answers(memory, 0xa0000));
  inner.config_write(pci::kBridgeControl, 2, pci::kBridgeVga);
  outer.config_write(pci::kBridgeControl, 2, pci::kBridgeVga);
  EXPECT_TRUE(answers(memory, 0xa0000));
}

TEST_F(PciBridgeTest, PinsTurnOnTheWayUp) {
  // INTA in slot 3 is pin 3 of the inner bridge (index), which in slot 2 is pin 1 of the outer, in slot 1 of the root.
  const unsigned inner_pin = PciBus::swizzled_pin(3, 1);
  const unsigned outer_pin = PciBus::swizzled_pin(2, static_cast<uint8_t>(inner_pin + 1));
  const unsigned line = PciBus::pirq_of(1, static_cast<uint8_t>(outer_pin + 1));
  device.set_intx(true);
  EXPECT_TRUE(lines.level_of[line]);
  device.set_intx(false);
  EXPECT_FALSE(lines.level_of[line]);
}

TEST_F(PciBridgeTest, OwnAndForwardedPinsShareALine) {
  TestDevice direct("direct");
  ASSERT_TRUE(outer.secondary().attach(direct, 4, 0));  // INTA of slot 4 is pin 0: the bridge's own
  outer.set_intx(true);
  direct.set_intx(true);
  outer.set_intx(false);
  EXPECT_TRUE(lines.level_of[PciBus::pirq_of(1, 1)]);
  direct.set_intx(false);
  EXPECT_FALSE(lines.level_of[PciBus::pirq_of(1, 1)]);
}

TEST_F(PciBridgeTest, MessagesPassWhileEveryBridgeMayMaster) {
  place_device();
  EXPECT_TRUE(device.send_msi(0xfee00000, 1));
  inner.config_write(pci::kCommand, 2, 3);
  EXPECT_FALSE(device.send_msi(0xfee00000, 2));
  EXPECT_EQ(messages.sent, std::vector<uint32_t>{1});
}

TEST_F(PciBridgeTest, SecondaryResetReachesEverythingBehind) {
  place_device();
  outer.config_write(pci::kBridgeControl, 2, pci::kBridgeReset);
  EXPECT_GE(device.resets, 1);
  EXPECT_EQ(inner.secondary_number(), 0);
  EXPECT_EQ(outer.secondary_number(), 1);
}

TEST_F(PciBridgeTest, DetachedDeviceLeavesNothingBehind) {
  place_device();
  open_memory(inner, 0xc0000000, 0xc00fffff);
  open_memory(outer, 0xc0000000, 0xc00fffff);
  device.set_intx(true);
  inner.secondary().detach(device);
  EXPECT_FALSE(answers(memory, 0xc0000000));
  EXPECT_EQ(lines.level_of, (std::array<bool, 4>{}));
  EXPECT_EQ(root.config_read(2, 3 << 3, 0, 4), 0xffffffffU);
}

TEST_F(PciBridgeTest, StateTravels) {
  place_device();
  open_memory(inner, 0xc0000000, 0xc00fffff);
  open_memory(outer, 0xc0000000, 0xc00fffff);
  StateWriter writer;
  outer.save(writer);
  outer.reset();
  EXPECT_FALSE(answers(memory, 0xc0000000));
  StateReader reader(writer.bytes());
  outer.restore(reader);
  ASSERT_TRUE(reader.finish());
  EXPECT_TRUE(answers(memory, 0xc0000000));
  EXPECT_EQ(root.config_read(2, 3 << 3, 0, 4), 0x00051b36U);
}

}  // namespace
}  // namespace kite::bus

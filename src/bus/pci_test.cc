#include "bus/pci.h"

#include <gtest/gtest.h>

#include <random>

#include "memory/address_space.h"

namespace kite::bus {
namespace {

struct Pattern final : IoHandler {
  uint64_t io_read(uint64_t offset, unsigned) override { return offset; }
  void io_write(uint64_t, unsigned, uint64_t) override {}
};

class TestDevice final : public PciDevice {
 public:
  explicit TestDevice(std::string path = "pci/test")
      : PciDevice(std::move(path), {.vendor = 0x1b36, .device = 5, .revision = 7, .class_code = 0x00ff00}) {
    declare_bar(0, Region::io("mem", 0x1000, handler), {});
    declare_bar(1, Region::io("ports", 0x20, handler), {.io = true});
    declare_bar(2, Region::io("wide", uint64_t{8} << 30, handler), {.prefetchable = true, .is_64 = true});
    set_interrupt_pin(1);
    config_.bytes[0x40] = 0x12;
    config_.writable[0x41] = 0x0f;
    config_.own[0x42] = 0xff;
  }
  void reset() override { reset_config(); }
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
  void config_written(uint16_t offset, unsigned size, uint32_t value) override {
    last_write = {offset, size, value};
    if (offset == 0x41) set_intx(true);  // allowed under the configuration lock
  }
  using PciDevice::config_;
  using PciDevice::declare_bar;
  using PciDevice::set_interrupt_pin;
  using PciDevice::set_intx;

  Pattern handler;
  std::tuple<uint16_t, unsigned, uint32_t> last_write{};
};

struct Lines final : IrqSink {
  void set_irq(uint32_t line, bool level) override {
    level_of.at(line) = level;
    ++changes;
  }
  std::array<bool, 4> level_of{};
  int changes = 0;
};

class PciTest : public ::testing::Test {
 protected:
  PciTest() { EXPECT_TRUE(bus.attach(device, 3, 0)); }
  uint32_t read(uint8_t offset, unsigned size) { return bus.config_read(0, kDevfn, offset, size); }
  void write(uint8_t offset, unsigned size, uint32_t value) { bus.config_write(0, kDevfn, offset, size, value); }
  // Name of what answers at `address`, and where it begins: "mem@e0000000".
  static std::string at(AddressSpace& space, uint64_t address) {
    space.commit();
    const EpochGuard guard;
    const FlatRange* const range = space.view(guard).find(address);
    return range == nullptr ? "-" : fmt::format("{}@{:x}", range->region->name(), range->start);
  }

  static constexpr uint8_t kDevfn = 3 << 3;
  AddressSpace memory{"memory", uint64_t{1} << 52};
  AddressSpace ports{"ports", 0x10000};
  Lines lines;
  TestDevice device;
  PciBus bus{memory.root(), ports.root(), lines};
};

TEST_F(PciTest, IdentityIsReadOnly) {
  write(0, 4, 0);
  write(8, 4, 0);
  EXPECT_EQ(read(0, 4), 0x00051b36U);
  EXPECT_EQ(read(8, 4), 0x00ff0007U);
  EXPECT_EQ(read(0x2c, 4), 0x11001af4U);
}

TEST_F(PciTest, AnySizeAtAnyOffset) {
  EXPECT_EQ(read(1, 1), 0x1bU);
  EXPECT_EQ(read(1, 2), 0x051bU);
  EXPECT_EQ(read(2, 4), 0x00000005U);
  write(0x3b, 2, 0x0bff);
  EXPECT_EQ(read(0x3c, 1), 0x0bU);
}

TEST_F(PciTest, NothingReachesBeyondTheLastByte) {
  EXPECT_EQ(read(253, 4), 0xffffffffU);
  EXPECT_EQ(read(255, 2), 0xffffU);
  write(255, 4, 0xffffffff);
  EXPECT_EQ(read(255, 1), 0U);
  EXPECT_EQ(read(0, 3), 0xffffffU);
}

TEST_F(PciTest, AbsentFunctionsReadAllOnes) {
  EXPECT_EQ(bus.config_read(0, 0, 0, 4), 0xffffffffU);
  EXPECT_EQ(bus.config_read(0, kDevfn + 1, 0, 2), 0xffffU);
  EXPECT_EQ(bus.config_read(1, kDevfn, 0, 1), 0xffU);
  bus.config_write(1, kDevfn, 4, 2, 7);
  EXPECT_EQ(read(4, 2), 0U);
}

TEST_F(PciTest, CommandHoldsOnlyWhatIsImplemented) {
  write(4, 2, 0xffff);
  EXPECT_EQ(read(4, 2), 0x0547U);
}

TEST_F(PciTest, StatusErrorsClearOnOne) {
  device.config_.set16(pci::kStatus, 0xf900 | pci::kStatusDevselMedium);
  write(6, 2, 0x8000);
  EXPECT_EQ(read(6, 2), 0x7b00U);
  write(6, 2, 0xffff);
  EXPECT_EQ(read(6, 2), 0x0200U);
}

TEST_F(PciTest, BarsAnswerTheSizingProbe) {
  for (uint8_t offset = 0x10; offset < 0x28; offset += 4) write(offset, 4, 0xffffffff);
  EXPECT_EQ(read(0x10, 4), 0xfffff000U);
  EXPECT_EQ(read(0x14, 4), 0xffffffe1U);
  EXPECT_EQ(read(0x18, 4), 0x0000000cU);
  EXPECT_EQ(read(0x1c, 4), 0xfffffffeU);
  EXPECT_EQ(read(0x20, 4), 0U) << "no such BAR";
}

TEST_F(PciTest, BarsAreMappedOnlyWhileDecoded) {
  write(0x10, 4, 0xe0000000);
  write(0x14, 4, 0xc000);
  EXPECT_EQ(at(memory, 0xe0000000), "-");
  write(4, 2, pci::kCommandMemory);
  EXPECT_EQ(at(memory, 0xe0000fff), "mem@e0000000");
  EXPECT_EQ(at(ports, 0xc000), "-");
  write(4, 2, pci::kCommandIo);
  EXPECT_EQ(at(memory, 0xe0000000), "-");
  EXPECT_EQ(at(ports, 0xc01f), "ports@c000");
}

TEST_F(PciTest, BarsMoveByteByByte) {
  write(4, 1, 3);
  write(0x10, 4, 0xe0000000);
  write(0x12, 1, 0x10);
  EXPECT_EQ(at(memory, 0xe0100000), "mem@e0100000");
  EXPECT_EQ(at(memory, 0xe0000000), "-");
}

TEST_F(PciTest, WideBarsLieAbove4GiB) {
  write(4, 1, 2);
  write(0x18, 4, 0);
  write(0x1c, 4, 0x10);
  EXPECT_EQ(at(memory, 0x1000000000), "wide@1000000000");
  EXPECT_EQ(read(0x18, 4), 0xcU);
}

TEST_F(PciTest, ProbesWithDecodingOnCoverNothing) {
  write(4, 1, 3);
  write(0x10, 4, 0xffffffff);
  write(0x14, 4, 0xffffffff);
  write(0x18, 4, 0xffffffff);
  write(0x1c, 4, 0xffffffff);
  EXPECT_EQ(at(memory, 0xfffff000), "-");
  EXPECT_EQ(at(memory, 0xfee00000), "-");
  EXPECT_EQ(at(ports, 0xffe0), "-");
}

TEST_F(PciTest, AddressZeroIsNoAddress) {
  write(4, 1, 3);
  EXPECT_EQ(at(memory, 0), "-");
  EXPECT_EQ(at(ports, 0), "-");
}

TEST_F(PciTest, PortsAbove64KiBAreNotDecoded) {
  write(4, 1, 1);
  write(0x14, 4, 0x10000);
  EXPECT_EQ(at(ports, 0), "-");
  EXPECT_EQ(at(ports, 0xffff), "-");
}

TEST_F(PciTest, BarChangesOnlyMakeTheSpaceStale) {
  memory.commit();
  write(0x10, 4, 0xe0000000);
  EXPECT_FALSE(memory.stale());
  write(4, 1, 2);
  EXPECT_TRUE(memory.stale());
  const EpochGuard guard;
  EXPECT_EQ(memory.view(guard).find(0xe0000000), nullptr);
}

TEST_F(PciTest, TheDeviceHearsOfWrites) {
  write(0x41, 2, 0xabcd);
  EXPECT_EQ(device.last_write, std::tuple(uint8_t{0x41}, 2U, 0xabcdU));
  EXPECT_EQ(read(0x40, 4), 0x00000d12U);
}

TEST_F(PciTest, PinsRotateFromSlotToSlot) {
  EXPECT_EQ(PciBus::pirq_of(1, 1), 0U);
  EXPECT_EQ(PciBus::pirq_of(1, 4), 3U);
  EXPECT_EQ(PciBus::pirq_of(2, 1), 1U);
  EXPECT_EQ(PciBus::pirq_of(0, 1), 3U);
  EXPECT_EQ(PciBus::pirq_of(31, 2), 3U);
}

TEST_F(PciTest, IntxReachesItsLine) {
  device.set_intx(true);
  EXPECT_TRUE(lines.level_of[2]);
  EXPECT_EQ(read(6, 2) & pci::kStatusInterrupt, pci::kStatusInterrupt);
  EXPECT_EQ(read(4, 4), uint32_t{pci::kStatusInterrupt} << 16);
  device.set_intx(false);
  EXPECT_FALSE(lines.level_of[2]);
  EXPECT_EQ(read(6, 2), 0U);
}

TEST_F(PciTest, RepeatedLevelsAreOneChange) {
  device.set_intx(true);
  device.set_intx(true);
  EXPECT_EQ(lines.changes, 1);
}

TEST_F(PciTest, DisabledIntxIsSilentButShown) {
  write(4, 2, pci::kCommandIntxDisable);
  device.set_intx(true);
  EXPECT_FALSE(lines.level_of[2]);
  EXPECT_EQ(read(6, 1), uint32_t{pci::kStatusInterrupt});
  write(4, 2, 0);
  EXPECT_TRUE(lines.level_of[2]);
  write(4, 2, pci::kCommandIntxDisable);
  EXPECT_FALSE(lines.level_of[2]);
}

TEST_F(PciTest, SharedLinesAreOred) {
  TestDevice second("pci/second");
  ASSERT_TRUE(bus.attach(second, 7, 5));
  device.set_intx(true);
  second.set_intx(true);
  device.set_intx(false);
  EXPECT_TRUE(lines.level_of[2]);
  second.set_intx(false);
  EXPECT_FALSE(lines.level_of[2]);
  EXPECT_EQ(lines.changes, 2);
}

TEST_F(PciTest, ConfigWrittenMayDriveIntx) {
  write(0x41, 1, 1);
  EXPECT_TRUE(lines.level_of[2]);
}

TEST_F(PciTest, AttachRefusesTakenAndImpossibleAddresses) {
  TestDevice other("pci/other");
  EXPECT_FALSE(bus.attach(other, 3, 0));
  EXPECT_FALSE(bus.attach(other, 32, 0));
  EXPECT_FALSE(bus.attach(other, 0, 8));
  EXPECT_TRUE(bus.attach(other, 4, 0));
  EXPECT_FALSE(bus.attach(other, 5, 0));
}

TEST_F(PciTest, Function0TellsOfTheOthersWhateverCameFirst) {
  EXPECT_EQ(read(0xe, 1), 0U);
  TestDevice third("pci/third"), zero("pci/zero");
  ASSERT_TRUE(bus.attach(third, 1, 3));
  ASSERT_TRUE(bus.attach(zero, 1, 0));
  EXPECT_EQ(bus.config_read(0, 1 << 3, 0xe, 1), 0x80U);
  zero.reset();
  EXPECT_EQ(bus.config_read(0, 1 << 3, 0xe, 1), 0x80U);
}

TEST_F(PciTest, FreeSlotIsTheLowest) {
  EXPECT_EQ(bus.free_slot().value(), 0);
  TestDevice other("pci/other");
  ASSERT_TRUE(bus.attach(other, 0, 5));
  EXPECT_EQ(bus.free_slot().value(), 1);
  EXPECT_EQ(bus.devices(), (std::vector<PciDevice*>{&other, &device}));
}

TEST_F(PciTest, ResetUnmapsAndLowers) {
  write(0x10, 4, 0xe0000000);
  write(4, 2, 0x0402);
  write(0x3c, 1, 11);
  device.set_intx(true);
  write(4, 2, 2);
  device.reset();
  EXPECT_EQ(at(memory, 0xe0000000), "-");
  EXPECT_FALSE(lines.level_of[2]);
  EXPECT_EQ(read(4, 4), 0U);
  EXPECT_EQ(read(0x10, 4), 0U);
  EXPECT_EQ(read(0x14, 4), 1U);
  EXPECT_EQ(read(0x3c, 2), 0x0100U);
  EXPECT_EQ(read(0, 4), 0x00051b36U);
}

TEST_F(PciTest, StateMovesToAFreshInstance) {
  write(0x10, 4, 0xe0000000);
  write(4, 2, 3);
  device.set_intx(true);
  device.config_.bytes[0x42] = 0x99;
  StateWriter writer;
  device.save(writer);

  AddressSpace memory2{"memory", uint64_t{1} << 52};
  AddressSpace ports2{"ports", 0x10000};
  Lines lines2;
  TestDevice fresh;
  PciBus bus2{memory2.root(), ports2.root(), lines2};
  ASSERT_TRUE(bus2.attach(fresh, 3, 0));
  StateReader reader(writer.bytes());
  fresh.restore(reader);
  ASSERT_TRUE(reader.finish()) << reader.finish().error().message;
  EXPECT_EQ(at(memory2, 0xe0000000), "mem@e0000000");
  EXPECT_TRUE(lines2.level_of[2]);
  for (unsigned offset = 0; offset < 256; offset += 4)
    EXPECT_EQ(bus2.config_read(0, kDevfn, static_cast<uint8_t>(offset), 4), read(static_cast<uint8_t>(offset), 4));
}

TEST_F(PciTest, RestoreRejectsReadOnlyBytesThatDiffer) {
  write(0x10, 4, 0xe0000000);
  write(4, 2, 2);
  StateWriter writer;
  device.config_.bytes[0x40] = 0x13;
  device.save(writer);
  device.config_.bytes[0x40] = 0x12;
  write(4, 2, 0);
  StateReader reader(writer.bytes());
  device.restore(reader);
  ASSERT_FALSE(reader.finish());
  EXPECT_NE(reader.finish().error().message.find("0x40"), std::string::npos) << reader.finish().error().message;
  EXPECT_EQ(read(4, 2), 0U) << "nothing was changed";
}

TEST_F(PciTest, DamagedStatesAreRefusedWholeOrTaken) {
  std::mt19937 random(5);
  write(0x10, 4, 0xe0000000);
  write(4, 2, 3);
  StateWriter writer;
  device.save(writer);
  for (int round = 0; round < 3000; ++round) {
    std::vector<uint8_t> bytes = writer.bytes();
    bytes[random() % bytes.size()] ^= static_cast<uint8_t>(1u << random() % 8);
    if (random() % 8 == 0) bytes.resize(random() % bytes.size());
    const auto before = device.config_.bytes;
    StateReader reader(bytes);
    device.restore(reader);
    if (!reader.finish()) EXPECT_EQ(device.config_.bytes, before);
    for (unsigned i = 0; i < 256; ++i)
      ASSERT_EQ((device.config_.bytes[i] ^ before[i]) &
                    ~(device.config_.writable[i] | device.config_.clear_on_one[i] | device.config_.own[i]),
                0);
  }
}

TEST_F(PciTest, RandomAccessesKeepReadOnlyBitsAndTheMapConsistent) {
  std::mt19937 random(1);
  const auto before = device.config_;
  for (int i = 0; i < 20'000; ++i) {
    const auto offset = static_cast<uint8_t>(random());
    const unsigned size = 1u << (random() % 3);
    if (random() % 2 != 0) write(offset, size, static_cast<uint32_t>(random()));
    (void)read(offset, size);
  }
  for (unsigned i = 0; i < 256; ++i)
    EXPECT_EQ(device.config_.bytes[i] & ~(before.writable[i] | before.clear_on_one[i]),
              before.bytes[i] & ~(before.writable[i] | before.clear_on_one[i]))
        << i;
  const uint32_t bar = read(0x10, 4);
  const bool decoded = (read(4, 2) & pci::kCommandMemory) != 0 && bar != 0 && bar != 0xfffff000;
  EXPECT_EQ(at(memory, bar) != "-", decoded);
}

}  // namespace
}  // namespace kite::bus

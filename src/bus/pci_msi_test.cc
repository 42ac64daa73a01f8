#include "bus/pci_msi.h"

#include <gtest/gtest.h>

#include "bus/pci_bus.h"
#include "memory/address_space.h"

namespace kite::bus {
namespace {

struct Messages final : MsiSink {
  bool send_msi(uint64_t address, uint32_t data) override {
    sent.emplace_back(address, data);
    return true;
  }
  std::vector<std::pair<uint64_t, uint32_t>> sent;
};

class TestDevice final : public PciDevice {
 public:
  TestDevice() : PciDevice("device", {.vendor = 1, .device = 2}) {
    auto bar = Region::container("msix", 0x1000);
    bar->add(0, msix.table_region());
    bar->add(0x800, msix.pending_region());
    declare_bar(0, bar, {});
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
  MsiCapability msi{*this, {.offset = 0x50, .vectors = 4}};
  MsixCapability msix{*this, {.offset = 0x70, .vectors = 3, .table = 0, .pending = 0x800}};
};

struct Lines final : IrqSink {
  void set_irq(uint32_t, bool) override {}
};

constexpr uint64_t kBar = 0xe0000000;
using Sent = std::vector<std::pair<uint64_t, uint32_t>>;

class PciMsiTest : public ::testing::Test {
 protected:
  PciMsiTest() {
    EXPECT_TRUE(bus.attach(device, 1, 0));
    device.config_write(0x10, 4, kBar);
    device.config_write(pci::kCommand, 2, 6);
  }
  void use_msi(unsigned log2) {
    device.config_write(0x54, 4, 0xfee01000);
    device.config_write(0x5c, 2, 0x40);
    device.config_write(0x52, 2, 1 | log2 << 4);
  }
  void write_entry(unsigned vector, uint32_t data, uint32_t control) {
    memory.commit();
    memory.write(kBar + vector * 16, 4, 0xfee02000);
    memory.write(kBar + vector * 16 + 8, 4, data);
    memory.write(kBar + vector * 16 + 12, 4, control);
  }
  uint64_t read(uint64_t address, unsigned size) {
    memory.commit();
    uint64_t value = 0;
    memory.read(address, size, value);
    return value;
  }

  AddressSpace memory{"memory", uint64_t{1} << 40}, ports{"ports", 0x10000};
  Lines lines;
  Messages messages;
  TestDevice device;
  PciBus bus{memory.root(), ports.root(), lines, {.msi = &messages}};
};

TEST_F(PciMsiTest, CapabilitiesAreLinked) {
  EXPECT_EQ(device.config_read(pci::kCapabilities, 1), 0x50U);
  EXPECT_EQ(device.config_read(0x50, 2), 0x7005U);
  EXPECT_EQ(device.config_read(0x70, 2), 0x0011U);
  EXPECT_EQ(device.config_read(pci::kStatus, 2) & pci::kStatusCapabilities, pci::kStatusCapabilities);
}

TEST_F(PciMsiTest, NothingIsSentWhileOff) {
  device.msi.notify(0);
  EXPECT_TRUE(messages.sent.empty());
}

TEST_F(PciMsiTest, GrantedVectorsAreTheLowBitsOfTheData) {
  use_msi(2);
  device.msi.notify(3);
  EXPECT_EQ(messages.sent, (Sent{{0xfee01000, 0x43}}));
}

TEST_F(PciMsiTest, VectorsBeyondTheGrantShare) {
  use_msi(0);
  device.msi.notify(3);
  EXPECT_EQ(messages.sent, (Sent{{0xfee01000, 0x40}}));
}

TEST_F(PciMsiTest, GrantsBeyondTheOfferAreCut) {
  use_msi(5);
  device.msi.notify(7);
  EXPECT_EQ(messages.sent, (Sent{{0xfee01000, 0x43}}));
}

TEST_F(PciMsiTest, MaskedVectorWaits) {
  use_msi(2);
  device.config_write(0x60, 4, 2);
  device.msi.notify(1);
  EXPECT_TRUE(messages.sent.empty());
  EXPECT_EQ(device.config_read(0x64, 4), 2U);
  device.config_write(0x60, 4, 0);
  EXPECT_EQ(messages.sent, (Sent{{0xfee01000, 0x41}}));
  EXPECT_EQ(device.config_read(0x64, 4), 0U);
}

TEST_F(PciMsiTest, ResetTurnsItOff) {
  use_msi(0);
  device.reset();
  device.config_write(pci::kCommand, 2, 6);
  device.msi.notify(0);
  EXPECT_FALSE(device.msi.enabled());
  EXPECT_TRUE(messages.sent.empty());
}

TEST_F(PciMsiTest, MsixSendsWhatTheTableSays) {
  device.config_write(0x72, 2, 0x8000);
  write_entry(2, 0x99, 0);
  device.msix.notify(2);
  EXPECT_EQ(messages.sent, (Sent{{0xfee02000, 0x99}}));
}

TEST_F(PciMsiTest, MsixEntriesAreMaskedAtFirst) {
  device.config_write(0x72, 2, 0x8000);
  device.msix.notify(1);
  EXPECT_TRUE(messages.sent.empty());
  EXPECT_EQ(read(kBar + 0x800, 4), 2U);
  write_entry(1, 0x77, 0);
  EXPECT_EQ(messages.sent, (Sent{{0xfee02000, 0x77}}));
  EXPECT_EQ(read(kBar + 0x800, 4), 0U);
}

TEST_F(PciMsiTest, MsixFunctionMaskHoldsEverything) {
  device.config_write(0x72, 2, 0xc000);
  write_entry(0, 0x55, 0);
  device.msix.notify(0);
  EXPECT_TRUE(messages.sent.empty());
  device.config_write(0x72, 2, 0x8000);
  EXPECT_EQ(messages.sent, (Sent{{0xfee02000, 0x55}}));
}

TEST_F(PciMsiTest, MsixVectorBeyondTheTableIsIgnored) {
  device.config_write(0x72, 2, 0x8000);
  device.msix.notify(3);
  device.msix.notify(4000);
  EXPECT_TRUE(messages.sent.empty());
}

TEST_F(PciMsiTest, MsixTableReadsBack) {
  write_entry(1, 0x1234, 1);
  EXPECT_EQ(read(kBar + 16, 8), 0xfee02000U);
  EXPECT_EQ(read(kBar + 24, 8), 0x1'00001234U);
}

TEST_F(PciMsiTest, StateTravelsWithWhatIsPending) {
  use_msi(2);
  device.config_write(0x60, 4, 1);
  device.msi.notify(0);
  write_entry(1, 0x77, 1);
  StateWriter writer;
  device.save(writer);
  device.reset();
  StateReader reader(writer.bytes());
  device.restore(reader);
  ASSERT_TRUE(reader.finish()) << reader.finish().error().message;
  EXPECT_EQ(device.config_read(0x64, 4), 1U);
  EXPECT_EQ(read(kBar + 24, 4), 0x77U);
  device.config_write(0x60, 4, 0);
  EXPECT_EQ(messages.sent, (Sent{{0xfee01000, 0x40}}));
}

}  // namespace
}  // namespace kite::bus

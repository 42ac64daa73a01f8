#include "devices/i440fx/i440fx.h"

#include "devices/i440fx/i440fx_regs.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace i440fx_regs;

constexpr uint16_t kConfadd = ConfigMechanism::kAddressPort, kConfdata = ConfigMechanism::kDataPort;
constexpr uint32_t kConfaddEnable = ConfigMechanism::kEnable, kConfaddWritable = ConfigMechanism::kWritable;

// Stands for port 0xcf9.
class FakeReset final : public IoHandler {
 public:
  uint64_t io_read(uint64_t, unsigned) override { return value; }
  void io_write(uint64_t, unsigned, uint64_t written) override { value = static_cast<uint8_t>(written); }
  uint8_t value = 0;
};

// PCI memory that tells its offsets and remembers writes.
class FakePci final : public IoHandler {
 public:
  uint64_t io_read(uint64_t offset, unsigned) override { return (offset >> 12) & 0xff; }
  void io_write(uint64_t offset, unsigned, uint64_t) override { last_write = offset; }
  uint64_t last_write = 0;
};

class I440fxTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kMib = 1 << 20;
  explicit I440fxTest(bool smm = false) {
    auto block = RamBlock::create("ram", 2 * kMib);
    EXPECT_TRUE(block);
    block_ = *block;
    ram_ = Region::ram("ram", block_);
    pci_ = Region::container("pci", uint64_t{1} << 32);
    pci_->add(0, Region::io("fake-pci", kMib, pci_io_));
    memory_.root().add(0, Region::alias("low", ram_, 0, 2 * kMib));
    bus_ = std::make_unique<bus::PciBus>(*pci_, ports_.root(), lines_);
    bridge_ = make(1, smm);
    EXPECT_TRUE(bus_->attach(*bridge_, 0, 0));
    ports_.map(kConfadd, bridge_->config_ports());
  }
  std::unique_ptr<I440fx> make(uint32_t cpus, bool smm = false) {
    return std::make_unique<I440fx>(
        "i440fx", I440fx::Config{.cpu_count = cpus, .smm = smm},
        I440fx::Wiring{
            .system_memory = memory_.root(), .ram = ram_, .pci = pci_, .bus = *bus_, .reset_control = reset_});
  }
  uint32_t config(uint8_t offset, unsigned size = 1) {
    ports_.out(kConfadd, kConfaddEnable | (offset & 0xfcu), 4);
    return ports_.in(kConfdata + (offset & 3u), size);
  }
  void set_config(uint8_t offset, uint32_t value, unsigned size = 1) {
    ports_.out(kConfadd, kConfaddEnable | (offset & 0xfcu), 4);
    ports_.out(kConfdata + (offset & 3u), value, size);
  }

  FakeReset reset_;
  FakePci pci_io_;
  FakeLines lines_;
  std::shared_ptr<RamBlock> block_;
  std::shared_ptr<Region> ram_, pci_;
  TestSpace memory_{uint64_t{1} << 32};
  TestSpace ports_;
  std::unique_ptr<bus::PciBus> bus_;
  std::unique_ptr<I440fx> bridge_;
};

TEST_F(I440fxTest, HasItsIdentity) {
  EXPECT_EQ(config(0x00, 4), 0x12378086U);
  EXPECT_EQ(config(0x08, 4), 0x06000002U);
  EXPECT_EQ(config(0x04, 4), 0x02800006U);
}

TEST_F(I440fxTest, RegistersHaveTheDatasheetsDefaults) {
  EXPECT_EQ(config(kPmccfg, 2) & 0x8040U, 0U);
  EXPECT_EQ(config(kDeturbo), 0U);
  EXPECT_EQ(config(kDbc), 0x80U);
  EXPECT_EQ(config(kDramc), 0x01U);
  EXPECT_EQ(config(kDramt), 0x10U);
  EXPECT_EQ(config(kDrb0 + 7), 0x01U);
  EXPECT_EQ(config(kClt), 0x10U);
  EXPECT_EQ(config(kSmram), 0x02U);
  EXPECT_EQ(config(kErrsts), 0x00U);
}

TEST_F(I440fxTest, SeveralProcessorsStrapWritePosting) {
  const auto other = make(4);
  EXPECT_EQ(other->config_read(kPmccfg, 2) & kPmccfgWpe, kPmccfgWpe);
}

TEST_F(I440fxTest, AddressRegisterKeepsItsBits) {
  ports_.out(kConfadd, 0xffffffff, 4);
  EXPECT_EQ(ports_.in(kConfadd, 4), kConfaddWritable);
}

TEST_F(I440fxTest, NarrowAccessesDoNotReachTheAddressRegister) {
  ports_.out(kConfadd, 0x80000010, 4);
  ports_.out(kConfadd, 0xff);
  ports_.out(kConfadd + 2, 0x1234, 2);
  EXPECT_EQ(ports_.in(kConfadd, 4), 0x80000010U);
  EXPECT_EQ(ports_.in(kConfadd), 0xffU);
}

TEST_F(I440fxTest, ByteAt0xcf9IsTheResetControlRegister) {
  ports_.out(0xcf9, 0x06);
  EXPECT_EQ(reset_.value, 0x06);
  EXPECT_EQ(ports_.in(0xcf9), 0x06U);
}

TEST_F(I440fxTest, WordAt0xcf8CoversTheResetControlRegister) {
  ports_.out(0xcf8, 0x0200, 2);
  EXPECT_EQ(reset_.value, 0x02);
  EXPECT_EQ(ports_.in(0xcf8, 2), 0x02ffU);
}

TEST_F(I440fxTest, DwordAt0xcf8DoesNotReset) {
  ports_.out(kConfadd, 0x80000600, 4);
  EXPECT_EQ(reset_.value, 0);
}

TEST_F(I440fxTest, DataWithoutEnableAnswersAllOnes) {
  ports_.out(kConfadd, 0, 4);
  EXPECT_EQ(ports_.in(kConfdata, 4), 0xffffffffU);
  ports_.out(kConfdata, 0x1111, 2);
  EXPECT_EQ(config(0x00, 4), 0x12378086U);
}

TEST_F(I440fxTest, AbsentDeviceAnswersAllOnes) {
  ports_.out(kConfadd, kConfaddEnable | 5u << 11, 4);
  EXPECT_EQ(ports_.in(kConfdata, 2), 0xffffU);
}

TEST_F(I440fxTest, DataBytesAreLanesOfTheDword) {
  EXPECT_EQ(config(0x02, 2), 0x1237U);
  EXPECT_EQ(config(0x03), 0x12U);
}

TEST_F(I440fxTest, LowAddressBitsChooseTheByteToo) {
  ports_.out(kConfadd, kConfaddEnable | 2, 4);
  EXPECT_EQ(ports_.in(kConfdata, 2), 0x1237U);
  EXPECT_EQ(ports_.in(kConfdata + 1), 0x12U);
}

TEST_F(I440fxTest, AccessPastTheLastRegisterAnswersAllOnes) {
  ports_.out(kConfadd, kConfaddEnable | 0xfe, 4);
  EXPECT_EQ(ports_.in(kConfdata, 4), 0xffffffffU);
}

// --- shadow RAM ---

TEST_F(I440fxTest, EverySegmentShowsPciAfterReset) {
  for (uint64_t address = 0xa0000; address < 0x100000; address += 0x4000)
    EXPECT_EQ(memory_.in(address), address >> 12) << std::hex << address;
}

TEST_F(I440fxTest, EachNibbleOpensItsSegment) {
  for (unsigned i = 0; i < 13; ++i) {
    const uint64_t start = i == 12 ? 0xf0000 : 0xc0000 + i * 0x4000;
    const uint64_t size = i == 12 ? 0x10000 : 0x4000;
    const auto reg = static_cast<uint8_t>(i == 12 ? kPam0 : kPam0 + 1 + i / 2);
    const unsigned shift = i == 12 || i % 2 == 1 ? 4 : 0;
    set_config(reg, 3u << shift);
    memory_.out(start, 0x42);
    memory_.out(start + size - 1, 0x43);
    EXPECT_EQ(block_->host()[start], 0x42) << i;
    EXPECT_EQ(memory_.in(start + size - 1), 0x43U) << i;
    if (start + size < 0x100000) EXPECT_EQ(memory_.in(start + size), (start + size) >> 12) << i;
    set_config(reg, 0);
    EXPECT_EQ(memory_.in(start), start >> 12) << i;
  }
}

TEST_F(I440fxTest, ReadOnlyShadowDropsWrites) {
  block_->host()[0xc8000] = 0x77;
  set_config(kPam0 + 2, ShadowRam::kReadEnable);
  memory_.out(0xc8000, 0x11);
  EXPECT_EQ(memory_.in(0xc8000), 0x77U);
  EXPECT_EQ(block_->host()[0xc8000], 0x77);
}

TEST_F(I440fxTest, WriteOnlyShadowReadsPciAndWritesRam) {
  set_config(kPam0, ShadowRam::kWriteEnable << 4);
  memory_.out(0xf1234, 0xabcd, 2);
  EXPECT_EQ(memory_.in(0xf1234), 0xf1U);
  EXPECT_EQ(load<uint16_t>(block_->host() + 0xf1234), 0xabcd);
  EXPECT_EQ(pci_io_.last_write, 0U);
}

TEST_F(I440fxTest, WriteOnlyShadowFollowsChangesOfPciMemory) {
  set_config(kPam0, ShadowRam::kWriteEnable << 4);
  FakePci other;
  pci_->add(0xf0000, Region::io("other", 0x10000, other), 5);
  EXPECT_EQ(memory_.in(0xf3000), 0x03U);
}

TEST_F(I440fxTest, DwordWriteSetsSeveralPams) {
  set_config(0x5c, 0x33333333, 4);
  memory_.out(0xd8000, 0x42);
  EXPECT_EQ(block_->host()[0xd8000], 0x42);
  EXPECT_EQ(config(0x5c, 4), 0x33333333U);
}

TEST_F(I440fxTest, ResetClosesTheShadow) {
  set_config(kPam0, 0x30);
  bridge_->reset();
  EXPECT_EQ(memory_.in(0xf0000), 0xf0U);
  EXPECT_EQ(ports_.in(kConfadd, 4), 0U);
}

// --- SMRAM ---

TEST_F(I440fxTest, SmramBitsAreKeptAndOpenNothing) {
  set_config(kSmram, kSmramOpen | kSmramEnable);
  EXPECT_EQ(config(kSmram), kSmramOpen | kSmramEnable | kSmramBase);
  EXPECT_EQ(memory_.in(0xa0000), 0xa0U);
}

TEST_F(I440fxTest, SmramLockClosesAndStays) {
  set_config(kSmram, kSmramOpen | kSmramLock);
  EXPECT_EQ(config(kSmram), kSmramLock | kSmramBase);
  set_config(kSmram, kSmramOpen);
  EXPECT_EQ(config(kSmram), kSmramLock | kSmramBase);
  bridge_->reset();
  set_config(kSmram, kSmramOpen);
  EXPECT_EQ(config(kSmram), kSmramOpen | kSmramBase);
}

class I440fxSmmTest : public I440fxTest {
 protected:
  static constexpr uint64_t kVga = 0xa0000;
  I440fxSmmTest() : I440fxTest(true) {
    block_->host()[kVga] = 0x5a;
    smm_.root().add(0, Region::alias("all", memory_.root().shared_from_this(), 0, uint64_t{1} << 32));
    smm_.root().add(0, bridge_->smram(), 1);
  }
  TestSpace smm_{uint64_t{1} << 32};
};

TEST_F(I440fxSmmTest, SmramIsSeenInTheModeOnceItIsEnabled) {
  EXPECT_EQ(smm_.in(kVga), 0xa0U);
  set_config(kSmram, kSmramEnable);
  EXPECT_EQ(smm_.in(kVga), 0x5aU);
  EXPECT_EQ(memory_.in(kVga), 0xa0U);
}

TEST_F(I440fxSmmTest, OpenSmramIsSeenByAll) {
  set_config(kSmram, kSmramEnable | kSmramOpen);
  EXPECT_EQ(memory_.in(kVga), 0x5aU);
  set_config(kSmram, kSmramEnable | kSmramLock);
  EXPECT_EQ(memory_.in(kVga), 0xa0U);
  EXPECT_EQ(smm_.in(kVga), 0x5aU);
}

TEST_F(I440fxSmmTest, ResetClosesIt) {
  set_config(kSmram, kSmramEnable | kSmramOpen);
  bridge_->reset();
  EXPECT_EQ(memory_.in(kVga), 0xa0U);
  EXPECT_EQ(smm_.in(kVga), 0xa0U);
}

// --- state ---

TEST_F(I440fxTest, StateTravelsWithAnOpenShadowAndALockedSmram) {
  set_config(kPam0, 0x30);
  set_config(kSmram, kSmramLock);
  const auto saved = saved_state(*bridge_);
  bridge_->reset();
  ASSERT_TRUE(restore_state(*bridge_, saved));
  memory_.out(0xf0000, 0x42);
  EXPECT_EQ(block_->host()[0xf0000], 0x42);
  EXPECT_EQ(ports_.in(kConfadd, 4), kConfaddEnable | (kSmram & 0xfcu));
  set_config(kSmram, kSmramOpen);
  EXPECT_EQ(config(kSmram), kSmramLock | kSmramBase);
}

TEST_F(I440fxTest, RefusesAnImpossibleAddress) {
  set_config(kPam0, 0x30);
  EXPECT_FALSE(restore_state(*bridge_, with_patched_field(saved_state(*bridge_), 1, 0, 0x7f000003, 4)));
  EXPECT_EQ(config(kPam0), 0x30U);
}

}  // namespace
}  // namespace kite::devices

#include "devices/mch/mch.h"

#include "devices/mch/mch_regs.h"
#include "devices/pci_testdev/pci_testdev.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace mch_regs;

constexpr uint64_t kRam = 16 << 20, kMib = 1 << 20;

struct NoReset final : IoHandler {
  uint64_t io_read(uint64_t, unsigned) override { return 0; }
  void io_write(uint64_t, unsigned, uint64_t) override {}
};

class MchTest : public ::testing::Test {
 protected:
  MchTest() {
    memory_.root().add(0, Region::alias("low", ram_, 0, 0xa0000));
    memory_.root().add(kMib, Region::alias("high", ram_, kMib, kRam - kMib));
    memory_.root().add(0, pci_, -1);
    EXPECT_TRUE(bus_.attach(device_, 0, 0));
    EXPECT_TRUE(bus_.attach(testdev_, 3, 0));
    smm_.root().add(0, Region::alias("memory", memory_.root().shared_from_this(), 0, uint64_t{1} << 32));
    smm_.root().add(0, device_.smram(), 1);
  }
  static std::shared_ptr<Region> make_ram() {
    auto block = RamBlock::create("ram", kRam);
    EXPECT_TRUE(block);
    return Region::ram("ram", *block);
  }
  uint32_t reg(uint16_t offset, unsigned size = 1) { return device_.config_read(offset, size); }
  void set_reg(uint16_t offset, uint32_t value, unsigned size = 1) { device_.config_write(offset, size, value); }
  void close_tseg(uint8_t size) {
    set_reg(kEsmramc, static_cast<uint32_t>(size << kTsegSizeShift | kTsegEnable));
    set_reg(kSmram, kSmramEnable | kSmramLock);
  }

  FakeLines lines_;
  TestSpace memory_{uint64_t{1} << 40}, ports_, smm_{uint64_t{1} << 32};
  std::shared_ptr<Region> ram_ = make_ram(), pci_ = Region::container("pci", uint64_t{1} << 40);
  NoReset no_reset_;
  bus::PciBus bus_{*pci_, ports_.root(), lines_};
  Mch device_{"mch",
              {.ram_below_4g = kRam, .extended_tseg_mbytes = 4, .smram_at_smbase = true},
              {.system_memory = memory_.root(), .ram = ram_, .pci = pci_, .bus = bus_, .reset_control = no_reset_}};
  PciTestdev testdev_{"testdev"};
};

TEST_F(MchTest, HasItsIdentity) { EXPECT_EQ(reg(0, 4), 0x29c08086U); }

TEST_F(MchTest, EcamIsClosedAfterReset) { EXPECT_EQ(memory_.in(0xe0000000, 4), 0xffffffffU); }

TEST_F(MchTest, EcamReachesFunctionsByAddress) {
  set_reg(kPciexbar, 0xb0000001, 4);
  EXPECT_EQ(memory_.in(0xb0000000, 4), 0x29c08086U);
  EXPECT_EQ(memory_.in(0xb0000000 | 3 << 15, 4), 0x00051b36U);
  EXPECT_EQ(memory_.in(0xb0000000 | 4 << 15, 4), 0xffffffffU);
  EXPECT_EQ(memory_.in(0xb0000000 | 1 << 20, 4), 0xffffffffU);
}

TEST_F(MchTest, EcamWritesReachFunctions) {
  set_reg(kPciexbar, 0xb0000001, 4);
  memory_.out(0xb0000000 + (3 << 15) + 0x3c, 0x0b);
  EXPECT_EQ(testdev_.config_read(0x3c, 1), 0x0bU);
}

TEST_F(MchTest, RegistersAboveTheSpaceOfAConventionalFunctionReadOnes) {
  set_reg(kPciexbar, 0xb0000001, 4);
  EXPECT_EQ(memory_.in(0xb0000000 + (3 << 15) + 0x100, 4), 0xffffffffU);
}

TEST_F(MchTest, EcamMovesAndShrinks) {
  set_reg(kPciexbar, 0xb0000001, 4);
  set_reg(kPciexbar, 0xd4000005, 4);  // 64 MiB
  EXPECT_EQ(memory_.in(0xb0000000, 4), 0xffffffffU);
  EXPECT_EQ(memory_.in(0xd4000000, 4), 0x29c08086U);
  EXPECT_EQ(memory_.in(0xd8000000, 4), 0xffffffffU);
}

TEST_F(MchTest, EcamMayLieAbove4Gib) {
  set_reg(kPciexbar + 4, 0x08, 4);
  set_reg(kPciexbar, 0x10000001, 4);
  EXPECT_EQ(memory_.in(0x810000000, 4), 0x29c08086U);
}

TEST_F(MchTest, ReservedLengthClosesEcam) {
  set_reg(kPciexbar, 0xb0000007, 4);
  EXPECT_EQ(memory_.in(0xb0000000, 4), 0xffffffffU);
}

TEST_F(MchTest, ShadowRamOpensAsPamSays) {
  EXPECT_EQ(memory_.in(0xf0000), 0xffU);
  set_reg(kPam0, 0x30);
  memory_.out(0xf0000, 0x5a);
  EXPECT_EQ(memory_.in(0xf0000), 0x5aU);
}

TEST_F(MchTest, OpenSmramShowsRam) {
  EXPECT_EQ(memory_.in(0xa0000), 0xffU);
  set_reg(kSmram, kSmramOpen | kSmramEnable);
  memory_.out(0xa0000, 0x77);
  EXPECT_EQ(memory_.in(0xa0000), 0x77U);
}

TEST_F(MchTest, LockClosesSmramUntilReset) {
  set_reg(kSmram, kSmramOpen | kSmramEnable);
  set_reg(kSmram, kSmramOpen | kSmramEnable | kSmramLock);
  EXPECT_EQ(reg(kSmram) & kSmramOpen, 0U);
  set_reg(kSmram, kSmramOpen);
  EXPECT_EQ(reg(kSmram), kSmramEnable | kSmramLock | kSmramBase);
  device_.reset();
  set_reg(kSmram, kSmramOpen);
  EXPECT_EQ(reg(kSmram) & kSmramOpen, kSmramOpen);
}

TEST_F(MchTest, FirmwareNotesTheMemoryMapUntilSmramIsLocked) {
  EXPECT_EQ(reg(kTolud, 2), 0x0010U);
  set_reg(kTsegmb, 0x1f00'ffff, 4);
  EXPECT_EQ(reg(kTsegmb, 4), 0x1f00'0000U);
  set_reg(kTolud, 0xffff, 2);
  EXPECT_EQ(reg(kTolud, 2), 0xfff0U);
  set_reg(kSmram, kSmramEnable | kSmramLock);
  set_reg(kTsegmb, 0x7f00'0000, 4);
  EXPECT_EQ(reg(kTsegmb, 4), 0x1f00'0000U);
  device_.reset();
  EXPECT_EQ(reg(kTsegmb, 4), 0U);
  set_reg(kTsegmb, 0x7f00'0000, 4);
  EXPECT_EQ(reg(kTsegmb, 4), 0x7f00'0000U);
}

TEST_F(MchTest, TsegIsClosedToOthersAndOpenInTheMode) {
  memory_.out(kRam - kMib, 0x11);
  close_tseg(0);
  EXPECT_EQ(device_.tseg_bytes(), kMib);
  EXPECT_EQ(memory_.in(kRam - kMib), 0xffU);
  EXPECT_EQ(memory_.in(kRam - kMib - 1), 0U);
  EXPECT_EQ(smm_.in(kRam - kMib), 0x11U);
}

TEST_F(MchTest, TsegWritesFromOutsideGoNowhere) {
  memory_.out(kRam - 1, 0x11);
  close_tseg(1);
  memory_.out(kRam - 1, 0x99);
  EXPECT_EQ(smm_.in(kRam - 1), 0x11U);
}

TEST_F(MchTest, ExtendedTsegTellsItsSizeWhenAsked) {
  EXPECT_EQ(reg(kExtTsegMbytes, 2), 0U);
  set_reg(kExtTsegMbytes, kExtTsegQuery, 2);
  EXPECT_EQ(reg(kExtTsegMbytes, 2), 4U);
  close_tseg(3);
  EXPECT_EQ(device_.tseg_bytes(), 4 * kMib);
}

TEST_F(MchTest, TsegNeverReachesTheFirstMib) {
  Mch small("small", {.ram_below_4g = kMib, .extended_tseg_mbytes = 0xfff, .smram_at_smbase = true},
            {.system_memory = smm_.root(), .ram = ram_, .pci = pci_, .bus = bus_, .reset_control = no_reset_});
  small.config_write(kEsmramc, 1, kTsegSize | kTsegEnable);
  small.config_write(kSmram, 1, kSmramEnable);
  EXPECT_EQ(small.tseg_bytes(), 0U);
}

TEST_F(MchTest, HighSmramAppearsInTheMode) {
  set_reg(kSmram, kSmramOpen | kSmramEnable);
  memory_.out(0xa0000, 0x42);
  set_reg(kEsmramc, kEsmramHigh);
  set_reg(kSmram, kSmramEnable);
  EXPECT_EQ(smm_.in(kHighSmram), 0x42U);
  EXPECT_EQ(memory_.in(kHighSmram), 0xffU);
}

TEST_F(MchTest, SmbaseIsTakenAfterAsking) {
  set_reg(kFSmbase, kSmbaseLocked);
  EXPECT_EQ(reg(kFSmbase), 0U);  // nobody had asked
  set_reg(kFSmbase, kSmbaseQuery);
  EXPECT_EQ(reg(kFSmbase), kSmbaseOffered);
  memory_.out(kSmbaseStart, 0x33);
  set_reg(kFSmbase, kSmbaseLocked);
  EXPECT_EQ(memory_.in(kSmbaseStart), 0xffU);
  EXPECT_EQ(smm_.in(kSmbaseStart), 0x33U);
  set_reg(kFSmbase, 0);
  EXPECT_EQ(reg(kFSmbase), kSmbaseLocked);
}

TEST_F(MchTest, StateTravels) {
  set_reg(kPciexbar, 0xb0000001, 4);
  close_tseg(1);
  set_reg(kFSmbase, kSmbaseQuery);
  set_reg(kFSmbase, kSmbaseLocked);
  const auto state = saved_state(device_);
  device_.reset();
  EXPECT_EQ(memory_.in(0xb0000000, 4), 0xffffffffU);
  ASSERT_TRUE(restore_state(device_, state));
  EXPECT_EQ(memory_.in(0xb0000000, 4), 0x29c08086U);
  EXPECT_EQ(device_.tseg_bytes(), 2 * kMib);
  set_reg(kSmram, kSmramOpen);
  EXPECT_EQ(reg(kSmram) & kSmramOpen, 0U);
  EXPECT_EQ(memory_.in(kSmbaseStart), 0xffU);
}

TEST_F(MchTest, RefusesAnImpossibleConfigurationAddress) {
  EXPECT_FALSE(restore_state(device_, with_patched_field(saved_state(device_), 1, 3, 0x40, 1)));
}

}  // namespace
}  // namespace kite::devices

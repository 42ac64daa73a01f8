#include "devices/ich9/ich9_lpc.h"

#include "devices/acpi_pm/acpi_pm_regs.h"
#include "devices/ich9/ich9_lpc_regs.h"
#include "devices/ich9/tco_regs.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace ich9_lpc_regs;
using acpi_pm_regs::kPm1Cnt;
using acpi_pm_regs::kPm1En;
using acpi_pm_regs::kPm1Sts;

constexpr uint16_t kPm = 0x600;
constexpr uint64_t kRoot = 0xfed1c000;

class Ich9LpcTest : public ::testing::Test {
 protected:
  Ich9LpcTest() {
    open(device_);
    ports_.map(kApmPort, device_.apm_region());
  }
  Ich9Lpc::Wiring wiring() {
    Ich9Lpc::Wiring wiring{.clock = clock_,
                           .ports = ports_.root(),
                           .memory = memory_.root(),
                           .gsis = {},
                           .reset = [this](ResetKind kind) { resets_.push_back(kind); },
                           .sleep = [this](uint8_t type) { sleeps_.push_back(type); },
                           .smi =
                               [this](bool all) {
                                 ++smis_;
                                 for_all_ = all;
                               },
                           .watchdog = [this] { ++barks_; }};
    for (uint32_t gsi = 0; gsi < Ich9Lpc::kGsis; ++gsi) wiring.gsis[gsi] = lines_.line(gsi);
    return wiring;
  }
  static void open(Ich9Lpc& device) {
    device.config_write(kPmbase, 4, kPm);
    device.config_write(kAcpiCntl, 1, kAcpiEnable);
    device.config_write(kRcba, 4, static_cast<uint32_t>(kRoot) | kRcbaEnable);
  }
  void drive(uint8_t slot, uint8_t pin, bool level) { device_.set_irq(bus::PciBus::line_of_slot(slot, pin), level); }

  ManualClock clock_;
  FakeLines lines_;
  TestSpace ports_, memory_{uint64_t{1} << 32};
  std::vector<ResetKind> resets_;
  std::vector<uint8_t> sleeps_;
  int smis_ = 0, barks_ = 0;
  bool for_all_ = false;
  Ich9Lpc device_{"ich9-lpc", {.no_reboot = false, .smm = false}, wiring()};
};

TEST_F(Ich9LpcTest, HasItsIdentity) { EXPECT_EQ(device_.config_read(0, 4), 0x29188086U); }

TEST_F(Ich9LpcTest, PowerManagementMovesWithItsBase) {
  device_.config_write(kPmbase, 4, 0xb000);
  EXPECT_EQ(ports_.in(kPm, 2), 0xffffU);
  EXPECT_EQ(ports_.in(0xb000 + kPm1Cnt, 2), 0U);
  EXPECT_EQ(device_.config_read(kPmbase, 4), 0xb001U);
}

TEST_F(Ich9LpcTest, PowerManagementIsClosedAfterReset) {
  device_.reset();
  EXPECT_EQ(ports_.in(kPm, 2), 0xffffU);
}

TEST_F(Ich9LpcTest, PinsOfOtherDevicesGoToTheUpperPirqsInTurn) {
  drive(1, 1, true);  // slot 1, INTA
  EXPECT_TRUE(lines_.level(16 + 5));
  drive(2, 4, true);  // slot 2, INTD: (2 + 3) % 4
  EXPECT_EQ(lines_.take_rises(16 + 5), 1);
  drive(1, 1, false);
  EXPECT_TRUE(lines_.level(16 + 5));  // the other still drives it
  drive(2, 4, false);
  EXPECT_FALSE(lines_.level(16 + 5));
}

TEST_F(Ich9LpcTest, PinsOfRootComplexDevicesGoWhereTheRegistersSay) {
  drive(31, 2, true);
  EXPECT_TRUE(lines_.level(17));
  memory_.out(kRoot + kD31ir, 0x3270, 2);  // INTB: PIRQH
  EXPECT_FALSE(lines_.level(17));
  EXPECT_TRUE(lines_.level(23));
}

TEST_F(Ich9LpcTest, PirqReachesAnIsaInterruptWhileItsRouteIsOpen) {
  device_.config_write(kPirqeRout, 1, 10);
  drive(4, 1, true);  // PIRQE
  EXPECT_TRUE(lines_.level(10));
  EXPECT_TRUE(lines_.level(20));
  device_.config_write(kPirqeRout, 1, kPirqDisabled);
  EXPECT_FALSE(lines_.level(10));
  EXPECT_TRUE(lines_.level(20));
}

TEST_F(Ich9LpcTest, ReservedRoutesReachNothing) {
  device_.config_write(kPirqeRout, 1, 8);
  drive(4, 1, true);
  EXPECT_FALSE(lines_.level(8));
}

TEST_F(Ich9LpcTest, IsaSourceSharesItsInterrupt) {
  device_.config_write(kPirqeRout, 1, 5);
  drive(4, 1, true);
  device_.isa_source(5).raise();
  drive(4, 1, false);
  EXPECT_TRUE(lines_.level(5));
  device_.isa_source(5).lower();
  EXPECT_FALSE(lines_.level(5));
}

TEST_F(Ich9LpcTest, SciGoesWhereAcpiControlSays) {
  ports_.out(kPm + kPm1En, acpi_pm_regs::kPwrbtn, 2);
  ports_.out(kPm + kPm1Cnt, acpi_pm_regs::kSciEn, 2);
  device_.pm().raise_pm1(acpi_pm_regs::kPwrbtn);
  EXPECT_TRUE(lines_.level(9));
  device_.config_write(kAcpiCntl, 1, kAcpiEnable | 5);
  EXPECT_FALSE(lines_.level(9));
  EXPECT_TRUE(lines_.level(21));
}

TEST_F(Ich9LpcTest, ReservedSciChoiceIsTheUsualOne) {
  device_.config_write(kAcpiCntl, 1, kAcpiEnable | 3);
  ports_.out(kPm + kPm1En, acpi_pm_regs::kPwrbtn, 2);
  ports_.out(kPm + kPm1Cnt, acpi_pm_regs::kSciEn, 2);
  device_.pm().raise_pm1(acpi_pm_regs::kPwrbtn);
  EXPECT_TRUE(lines_.level(9));
}

TEST_F(Ich9LpcTest, GeneralPurposeEventsHave64Bits) {
  ports_.out(kPm + kGpe0 + 8 + 4, 0x80000000, 4);  // enable event 63
  ports_.out(kPm + kPm1Cnt, acpi_pm_regs::kSciEn, 2);
  device_.pm().raise_gpe(63);
  EXPECT_TRUE(lines_.level(9));
  ports_.out(kPm + kGpe0 + 7, 0x80);
  EXPECT_FALSE(lines_.level(9));
}

TEST_F(Ich9LpcTest, SleepTypesAreTheChips) {
  ports_.out(kPm + kPm1Cnt, acpi_pm_regs::kSlpEn | acpi_pm_regs::kSlpTypS5 << acpi_pm_regs::kSlpTypShift, 2);
  EXPECT_EQ(sleeps_, std::vector<uint8_t>{acpi_pm_regs::kSlpTypS5});
}

TEST_F(Ich9LpcTest, ApmCommandsSwitchAcpiWithoutSmm) {
  ports_.out(kApmPort, kApmAcpiEnable);
  EXPECT_EQ(ports_.in(kPm + kPm1Cnt, 2), acpi_pm_regs::kSciEn);
  ports_.out(kApmPort, kApmAcpiDisable);
  EXPECT_EQ(ports_.in(kPm + kPm1Cnt, 2), 0U);
  EXPECT_EQ(smis_, 0);
}

TEST_F(Ich9LpcTest, WithoutSmmFirmwareFindsTheApmEnableSet) {
  ports_.out(kPm + kSmiEn, 0, 4);
  EXPECT_EQ(ports_.in(kPm + kSmiEn, 4), kApmcEn);
}

TEST_F(Ich9LpcTest, ApmCommandIsAnSmiWithSmm) {
  Ich9Lpc device("smm", {.no_reboot = true, .smm = true}, wiring());
  device.config_write(kPmbase, 4, 0x700);
  device.config_write(kAcpiCntl, 1, kAcpiEnable);
  write_reg(device.apm_region(), 0, 0x10);
  EXPECT_EQ(smis_, 0);
  ports_.out(0x700 + kSmiEn, kGblSmiEn | kApmcEn, 4);
  write_reg(device.apm_region(), 0, 0x10);
  EXPECT_EQ(smis_, 1);
  EXPECT_EQ(ports_.in(0x700 + kSmiSts, 4), kApmSts);
  ports_.out(0x700 + kSmiSts, kApmSts, 4);
  EXPECT_EQ(ports_.in(0x700 + kSmiSts, 4), 0U);
}

TEST_F(Ich9LpcTest, FirmwareMayAskOnceForSmisOfAllProcessors) {
  Ich9Lpc device("smm", {.no_reboot = true, .smm = true}, wiring());
  device.config_write(kPmbase, 4, 0x700);
  device.config_write(kAcpiCntl, 1, kAcpiEnable);
  ports_.out(0x700 + kSmiEn, kGblSmiEn | kApmcEn, 4);
  EXPECT_FALSE(device.take_smi_features(Ich9Lpc::kSmiBroadcast | 8));
  write_reg(device.apm_region(), 0, 0x10);
  EXPECT_FALSE(for_all_);
  EXPECT_TRUE(device.take_smi_features(Ich9Lpc::kSmiBroadcast));
  EXPECT_TRUE(device.take_smi_features(0));  // too late
  const std::vector<uint8_t> state = saved_state(device);
  device.reset();
  ASSERT_TRUE(restore_state(device, state));
  write_reg(device.apm_region(), 0, 0x10);
  EXPECT_EQ(smis_, 2);
  EXPECT_TRUE(for_all_);
}

TEST_F(Ich9LpcTest, SmiLockKeepsTheGlobalEnable) {
  ports_.out(kPm + kSmiEn, kGblSmiEn, 4);
  device_.config_write(kGenPmcon1, 2, kSmiLock);
  ports_.out(kPm + kSmiEn, 0, 4);
  EXPECT_EQ(ports_.in(kPm + kSmiEn, 4) & kGblSmiEn, kGblSmiEn);
  device_.config_write(kGenPmcon1, 2, 0);
  EXPECT_EQ(device_.config_read(kGenPmcon1, 2) & kSmiLock, kSmiLock);
}

TEST_F(Ich9LpcTest, TcoLockKeepsTheTcoEnable) {
  ports_.out(kPm + kSmiEn, kTcoEn, 4);
  ports_.out(kPm + kTco + tco_regs::kTco1Cnt, tco_regs::kLock, 2);
  ports_.out(kPm + kSmiEn, 0, 4);
  EXPECT_EQ(ports_.in(kPm + kSmiEn, 4) & kTcoEn, kTcoEn);
}

TEST_F(Ich9LpcTest, WatchdogBarksOnlyWhereItMay) {
  const auto expire = [this] {
    ports_.out(kPm + kTco + tco_regs::kRld, 1, 2);
    for (int i = 0; i < 8; ++i) clock_.advance(tco_regs::kTickNs);
  };
  expire();
  EXPECT_EQ(barks_, 0);  // GCS.NO_REBOOT is set after a reset
  memory_.out(kRoot + kGcs, 0, 4);
  expire();
  EXPECT_EQ(barks_, 1);
}

TEST_F(Ich9LpcTest, ResetControlActsOnTheRisingEdge) {
  device_.reset_control().io_write(0, 1, ResetControl::kHard | ResetControl::kFull);
  EXPECT_TRUE(resets_.empty());
  device_.reset_control().io_write(0, 1, ResetControl::kCpu | ResetControl::kHard);
  device_.reset_control().io_write(0, 1, ResetControl::kCpu | ResetControl::kHard);
  EXPECT_EQ(resets_, std::vector<ResetKind>{ResetKind::kHard});
}

TEST_F(Ich9LpcTest, StateTravels) {
  drive(1, 1, true);
  ports_.out(kPm + kPm1En, acpi_pm_regs::kPwrbtn, 2);
  memory_.out(kRoot + kD31ir, 0x3270, 2);
  ports_.out(kPm + kTco + tco_regs::kTmr, 100, 2);
  FakeLines lines;
  TestSpace ports, memory{uint64_t{1} << 32};
  auto wired = wiring();
  Ich9Lpc other("ich9-lpc", {.no_reboot = false, .smm = false},
                {.clock = clock_,
                 .ports = ports.root(),
                 .memory = memory.root(),
                 .gsis = {},
                 .reset = wired.reset,
                 .sleep = wired.sleep,
                 .smi = wired.smi,
                 .watchdog = wired.watchdog});
  ASSERT_TRUE(restore_state(other, saved_state(device_)));
  EXPECT_EQ(ports.in(kPm + kPm1En, 2), acpi_pm_regs::kPwrbtn);
  EXPECT_EQ(memory.in(kRoot + kD31ir, 2), 0x3270U);
  EXPECT_EQ(ports.in(kPm + kTco + tco_regs::kTmr, 2), 100U);
  EXPECT_EQ(saved_state(other), saved_state(device_));
}

TEST_F(Ich9LpcTest, RefusesALineThatDoesNotExist) {
  EXPECT_FALSE(restore_state(device_, with_patched_field(saved_state(device_), 1, 23, 0x80, 1)));
}

}  // namespace
}  // namespace kite::devices

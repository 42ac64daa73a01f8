#include "devices/piix4_pm/piix4_pm.h"

#include "devices/acpi_pm/acpi_pm_regs.h"
#include "devices/piix4_pm/piix4_pm_regs.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace acpi_pm_regs;
using namespace piix4_pm_regs;

constexpr uint16_t kBase = 0x600;
constexpr int64_t kSecond = 1'000'000'000;
// The first nanosecond of the timer's tick `n`.
constexpr int64_t tick_ns(int64_t n) { return static_cast<int64_t>((__int128{n} * kSecond + kTimerHz - 1) / kTimerHz); }

class Piix4PmTest : public ::testing::Test {
 protected:
  Piix4PmTest() {
    open(device_);
    ports_.map(kGpePort, device_.gpe_region());
    ports_.map(kApmPort, device_.apm_region());
  }
  Piix4Pm::Wiring wiring() {
    return {.clock = clock_, .sci = lines_.line(), .ports = ports_.root(), .sleep = [this](uint8_t type) {
              slept_.push_back(type);
            }};
  }
  static void open(Piix4Pm& device) {
    device.config_write(kPmba, 4, kBase);
    device.config_write(kPmregmisc, 1, kPmiose);
  }
  uint32_t timer() { return ports_.in(kBase + kPmTmr, 4); }

  ManualClock clock_;
  FakeLines lines_;
  TestSpace ports_;
  std::vector<uint8_t> slept_;
  Piix4Pm device_{"piix4-pm", wiring()};
};

TEST_F(Piix4PmTest, HasItsIdentity) {
  EXPECT_EQ(device_.config_read(0x00, 4), 0x71138086U);
  EXPECT_EQ(device_.config_read(0x08, 4), 0x06800003U);
  EXPECT_EQ(device_.config_read(0x3d, 1), 1U);
}

TEST_F(Piix4PmTest, BaseReadsWithItsTypeBit) { EXPECT_EQ(device_.config_read(kPmba, 4), kBase | 1U); }

TEST_F(Piix4PmTest, IoSpaceIsClosedAfterReset) {
  device_.reset();
  EXPECT_EQ(ports_.in(kBase + kPm1Cnt, 2), 0xffffU);
}

TEST_F(Piix4PmTest, IoSpaceMovesWithItsBase) {
  ports_.out(kBase + kPm1En, kPwrbtn, 2);
  device_.config_write(kPmba, 4, 0xb000);
  EXPECT_EQ(ports_.in(kBase + kPm1En, 2), 0xffffU);
  EXPECT_EQ(ports_.in(0xb000 + kPm1En, 2), kPwrbtn);
}

// --- timer ---

TEST_F(Piix4PmTest, TimerCountsFromTheClock) {
  clock_.advance_to(kSecond);
  EXPECT_EQ(timer(), uint32_t{kTimerHz});
}

TEST_F(Piix4PmTest, TimerTicksAtTheExactNanosecond) {
  clock_.advance_to(tick_ns(1'000'003) - 1);
  EXPECT_EQ(timer(), 1'000'002U);
  clock_.advance(1);
  EXPECT_EQ(timer(), 1'000'003U);
}

TEST_F(Piix4PmTest, TimerWrapsAt24Bits) {
  clock_.advance_to(tick_ns(0x1000005));
  EXPECT_EQ(timer(), 5U);
}

TEST_F(Piix4PmTest, TimerReadsInParts) {
  clock_.advance_to(tick_ns(0x123456));
  EXPECT_EQ(ports_.in(kBase + kPmTmr, 2), 0x3456U);
  EXPECT_EQ(ports_.in(kBase + kPmTmr + 2), 0x12U);
  EXPECT_EQ(ports_.in(kBase + kPmTmr + 3), 0U);
}

TEST_F(Piix4PmTest, OverflowIsNotedWhenBit23Changes) {
  clock_.advance_to(tick_ns(0x800000) - 1);
  EXPECT_EQ(ports_.in(kBase + kPm1Sts, 2), 0U);
  clock_.advance(1);
  EXPECT_EQ(ports_.in(kBase + kPm1Sts, 2), kTmr);
}

TEST_F(Piix4PmTest, ClearedOverflowComesBackWithTheNextChange) {
  clock_.advance_to(tick_ns(0x800000));
  ports_.out(kBase + kPm1Sts, kTmr, 2);
  EXPECT_EQ(ports_.in(kBase + kPm1Sts, 2), 0U);
  clock_.advance_to(tick_ns(0x1000000));
  EXPECT_EQ(ports_.in(kBase + kPm1Sts, 2), kTmr);
}

TEST_F(Piix4PmTest, OverflowInterruptsAtItsInstant) {
  ports_.out(kBase + kPm1Cnt, kSciEn, 2);
  ports_.out(kBase + kPm1En, kTmr, 2);
  clock_.advance_to(tick_ns(0x800000) - 1);
  EXPECT_FALSE(lines_.level());
  clock_.advance(1);
  EXPECT_TRUE(lines_.level());
  ports_.out(kBase + kPm1Sts, kTmr, 2);
  EXPECT_FALSE(lines_.level());
  clock_.advance_to(tick_ns(0x1000000));
  EXPECT_TRUE(lines_.level());
}

// --- events ---

TEST_F(Piix4PmTest, PowerButtonInterruptsWhenEnabled) {
  ports_.out(kBase + kPm1Cnt, kSciEn, 2);
  ports_.out(kBase + kPm1En, kPwrbtn, 2);
  device_.press_power_button();
  EXPECT_TRUE(lines_.level());
  EXPECT_EQ(ports_.in(kBase + kPm1Sts, 2), kPwrbtn);
  ports_.out(kBase + kPm1Sts + 1, kPwrbtn >> 8);
  EXPECT_FALSE(lines_.level());
}

TEST_F(Piix4PmTest, EnablingAPendingEventInterrupts) {
  ports_.out(kBase + kPm1Cnt, kSciEn, 2);
  device_.press_power_button();
  EXPECT_FALSE(lines_.level());
  ports_.out(kBase + kPm1En + 1, kPwrbtn >> 8);
  EXPECT_TRUE(lines_.level());
}

TEST_F(Piix4PmTest, NoInterruptWithoutSciEn) {
  ports_.out(kBase + kPm1En, kPwrbtn, 2);
  device_.press_power_button();
  EXPECT_FALSE(lines_.level());
}

TEST_F(Piix4PmTest, DwordWriteReachesStatusAndEnable) {
  device_.press_power_button();
  ports_.out(kBase + kPm1Sts, uint32_t{kTmr | kPwrbtn} << 16 | kPwrbtn, 4);
  EXPECT_EQ(ports_.in(kBase + kPm1Sts, 4), uint32_t{kTmr | kPwrbtn} << 16);
}

TEST_F(Piix4PmTest, GpeInterruptsAndClears) {
  ports_.out(kBase + kPm1Cnt, kSciEn, 2);
  ports_.out(kGpePort + 2, 0x02);
  device_.raise_gpe(1);
  EXPECT_TRUE(lines_.level());
  EXPECT_EQ(ports_.in(kGpePort, 4), 0x00020002U);
  ports_.out(kGpePort, 0x02);
  EXPECT_FALSE(lines_.level());
}

TEST_F(Piix4PmTest, GpeBeyondTheBlockIsIgnored) {
  device_.raise_gpe(16);
  EXPECT_EQ(ports_.in(kGpePort, 4), 0U);
}

// --- control ---

TEST_F(Piix4PmTest, SleepEnableTellsItsType) {
  ports_.out(kBase + kPm1Cnt, kSciEn | kSlpEn | 1u << kSlpTypShift, 2);
  EXPECT_EQ(slept_, (std::vector<uint8_t>{1}));
}

TEST_F(Piix4PmTest, SleepEnableInTheHighByteUsesItsType) {
  ports_.out(kBase + kPm1Cnt + 1, 1u << kSlpTypShift >> 8);
  EXPECT_TRUE(slept_.empty());
  ports_.out(kBase + kPm1Cnt + 1, kSlpEn >> 8);
  EXPECT_EQ(slept_, (std::vector<uint8_t>{0}));
}

TEST_F(Piix4PmTest, WriteOnlyControlBitsReadZero) {
  ports_.out(kBase + kPm1Cnt, kGblRls | kSciEn, 2);
  EXPECT_EQ(ports_.in(kBase + kPm1Cnt, 2), kSciEn);
}

TEST_F(Piix4PmTest, ApmCommandsSwitchAcpi) {
  ports_.out(kApmPort, kApmAcpiEnable);
  EXPECT_EQ(ports_.in(kBase + kPm1Cnt, 2), kSciEn);
  ports_.out(kApmPort, kApmAcpiDisable);
  EXPECT_EQ(ports_.in(kBase + kPm1Cnt, 2), 0U);
  EXPECT_EQ(ports_.in(kApmPort), kApmAcpiDisable);
}

TEST_F(Piix4PmTest, ApmCommandsRaiseSmisOnceFirmwareAllowsThem) {
  TestSpace ports;
  unsigned smis = 0;
  Piix4Pm device("with-smm", {.clock = clock_,
                              .sci = lines_.line(),
                              .ports = ports.root(),
                              .sleep = [](uint8_t) {},
                              .smi = [&smis] { ++smis; }});
  ports.map(kApmPort, device.apm_region());
  EXPECT_EQ(device.config_read(kDevactb, 4) & kApmcEn, 0U);
  ports.out(kApmPort, 0x42);
  EXPECT_EQ(smis, 0U);
  device.config_write(kDevactb, 4, kApmcEn);
  ports.out(kApmPort, 0x42);
  ports.out(kApmPort + 1, 0x42);
  EXPECT_EQ(smis, 1U);
}

TEST_F(Piix4PmTest, WithoutSmmFirmwareFindsItSetUp) { EXPECT_NE(device_.config_read(kDevactb, 4) & kApmcEn, 0U); }

TEST_F(Piix4PmTest, ApmStatusIsScratch) {
  ports_.out(kApmPort + 1, 0x5a);
  EXPECT_EQ(ports_.in(kApmPort + 1), 0x5aU);
}

TEST_F(Piix4PmTest, ResetLowersTheSci) {
  ports_.out(kBase + kPm1Cnt, kSciEn, 2);
  ports_.out(kBase + kPm1En, kPwrbtn, 2);
  device_.press_power_button();
  device_.reset();
  EXPECT_FALSE(lines_.level());
}

// --- state ---

TEST_F(Piix4PmTest, StateTravelsWithAnOverflowUnderWay) {
  ports_.out(kBase + kPm1Cnt, kSciEn, 2);
  ports_.out(kBase + kPm1En, kTmr, 2);
  clock_.advance_to(tick_ns(0x7ffff0));
  const auto saved = saved_state(device_);
  device_.reset();
  FakeLines lines;
  TestSpace ports;
  Piix4Pm other("piix4-pm", {.clock = clock_, .sci = lines.line(), .ports = ports.root(), .sleep = [](uint8_t) {}});
  ASSERT_TRUE(restore_state(other, saved));
  EXPECT_EQ(ports.in(kBase + kPmTmr, 4), 0x7ffff0U);
  clock_.advance_to(tick_ns(0x800000) - 1);
  EXPECT_FALSE(lines.level());
  clock_.advance(1);
  EXPECT_TRUE(lines.level());
}

TEST_F(Piix4PmTest, RefusesStatusBitsThatDoNotExist) {
  EXPECT_FALSE(restore_state(device_, with_patched_field(saved_state(device_), 1, 0, 0x0002, 2)));
}

TEST_F(Piix4PmTest, RefusesAnOverflowOffItsGrid) {
  EXPECT_FALSE(restore_state(device_, with_patched_field(saved_state(device_), 4, 0, 0x800001, 8)));
  EXPECT_FALSE(restore_state(device_, with_patched_field(saved_state(device_), 4, 0, ~uint64_t{0}, 8)));
}

}  // namespace
}  // namespace kite::devices

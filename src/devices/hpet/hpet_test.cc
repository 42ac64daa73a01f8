#include "devices/hpet/hpet.h"

#include <gtest/gtest.h>

#include "devices/apic/test_apic.h"
#include "devices/hpet/hpet_regs.h"
#include "devices/test_device.h"

namespace kite::devices {
namespace {

using testing::ApicMachine;
using testing::FakeLines;
using testing::read_reg;
using testing::restore_state;
using testing::saved_state;
using testing::with_patched_field;
using testing::write_reg;

constexpr uint32_t kIsa0 = 100, kIsa8 = 108;
constexpr uint64_t kRoute2 = 2u << hpet::kRouteShift, kRoute20 = 20u << hpet::kRouteShift;
constexpr int64_t kTick = 10;  // ns

class FakeSwitch final : public LegacySwitch {
 public:
  void set_legacy_replacement(bool on) override { is_on = on; }
  bool is_on = false;
};

class HpetTest : public ::testing::Test {
 protected:
  static Hpet::Wiring wiring(FakeLines& lines, ApicBus& bus, LegacySwitch& legacy) {
    return {.ioapic = &lines,
            .legacy_irq0 = lines.line(kIsa0),
            .legacy_irq8 = lines.line(kIsa8),
            .apic_bus = &bus,
            .legacy = &legacy};
  }
  uint64_t get(uint64_t reg) { return read_reg(hpet_.region(), reg, 8); }
  void put(uint64_t reg, uint64_t value) { write_reg(hpet_.region(), reg, value, 8); }
  static uint64_t timer(unsigned index, uint64_t reg) { return hpet::TIMERS + index * hpet::kTimerStride + reg; }
  void program(unsigned index, uint64_t config, uint64_t comparator) {
    put(timer(index, hpet::TIMER_CONFIG), config);
    put(timer(index, hpet::TIMER_COMPARATOR), comparator);
  }
  void enable(uint64_t extra = 0) { put(hpet::CONFIG, hpet::kEnable | extra); }
  void ticks(int64_t count) { m_.clock.advance(count * kTick); }

  ApicMachine m_{1};
  FakeLines lines_;
  FakeSwitch legacy_;
  Hpet hpet_{"hpet", {}, wiring(lines_, m_.bus, legacy_), m_.clock};
};

TEST_F(HpetTest, Capabilities) {
  EXPECT_EQ(get(hpet::CAPABILITIES), uint64_t{10'000'000} << 32 | 0x8086a201u);
  EXPECT_EQ(read_reg(hpet_.region(), 4, 4), 10'000'000u);
  EXPECT_EQ(get(timer(1, hpet::TIMER_CONFIG)), uint64_t{0x00ff0004} << 32 | 0x8030u);
  EXPECT_EQ(get(timer(3, 0)), 0u);
  EXPECT_EQ(get(0x3f8), 0u);
}

TEST_F(HpetTest, CounterRunsWhileEnabled) {
  ticks(100);
  EXPECT_EQ(get(hpet::COUNTER), 0u);
  enable();
  ticks(100);
  EXPECT_EQ(get(hpet::COUNTER), 100u);
  put(hpet::CONFIG, 0);
  ticks(100);
  EXPECT_EQ(get(hpet::COUNTER), 100u);
  put(hpet::COUNTER, 0x123456789a);
  enable();
  ticks(1);
  EXPECT_EQ(get(hpet::COUNTER), 0x123456789bu);
  EXPECT_EQ(read_reg(hpet_.region(), hpet::COUNTER + 4, 4), 0x12u);
}

TEST_F(HpetTest, RunningCounterIsNotWritten) {
  enable();
  put(hpet::COUNTER, 5000);
  EXPECT_EQ(get(hpet::COUNTER), 0u);
}

TEST_F(HpetTest, OneShotFiresOnce) {
  program(2, hpet::kInterrupt | kRoute20, 1000);
  enable();
  ticks(999);
  EXPECT_EQ(lines_.take_rises(20), 0);
  ticks(1);
  EXPECT_EQ(lines_.take_rises(20), 1);
  EXPECT_FALSE(lines_.level(20));
  ticks(100'000);
  EXPECT_EQ(lines_.take_rises(20), 0);
}

TEST_F(HpetTest, PeriodicFiresWithoutDrift) {
  put(timer(0, hpet::TIMER_CONFIG), hpet::kInterrupt | hpet::kPeriodic | hpet::kSetValue | kRoute2);
  put(timer(0, hpet::TIMER_COMPARATOR), 500);     // the first match
  put(timer(0, hpet::TIMER_COMPARATOR), 10'000);  // and the period
  enable();
  ticks(499);
  EXPECT_EQ(lines_.take_rises(2), 0);
  ticks(1 + 50 * 10'000);
  EXPECT_EQ(lines_.take_rises(2), 51);
  EXPECT_EQ(get(timer(0, hpet::TIMER_COMPARATOR)), 510'500u);
}

TEST_F(HpetTest, MasksAreHonoured) {
  program(2, kRoute20, 1000);
  enable();
  ticks(5000);
  EXPECT_EQ(lines_.take_rises(20), 0);
}

TEST_F(HpetTest, LevelStaysUntilTheStatusIsCleared) {
  program(2, hpet::kInterrupt | hpet::kLevel | kRoute20, 1000);
  enable();
  ticks(1000);
  EXPECT_TRUE(lines_.level(20));
  EXPECT_EQ(get(hpet::STATUS), 4u);
  put(hpet::STATUS, 1);
  EXPECT_TRUE(lines_.level(20));
  put(hpet::STATUS, 4);
  EXPECT_FALSE(lines_.level(20));
}

TEST_F(HpetTest, LevelFollowsItsRoute) {
  program(2, hpet::kInterrupt | hpet::kLevel | kRoute20, 1000);
  enable();
  ticks(1000);
  put(timer(2, hpet::TIMER_CONFIG), hpet::kInterrupt | hpet::kLevel | 21u << hpet::kRouteShift);
  EXPECT_FALSE(lines_.level(20));
  EXPECT_TRUE(lines_.level(21));
}

TEST_F(HpetTest, LegacyReplacementTakesTheIsaLines) {
  program(0, hpet::kInterrupt | kRoute20, 1000);
  program(1, hpet::kInterrupt | kRoute20, 2000);
  enable(hpet::kLegacy);
  EXPECT_TRUE(legacy_.is_on);
  ticks(2000);
  EXPECT_EQ(lines_.take_rises(kIsa0), 1);
  EXPECT_EQ(lines_.take_rises(kIsa8), 1);
  EXPECT_EQ(lines_.take_rises(20), 0);
  hpet_.reset();
  EXPECT_FALSE(legacy_.is_on);
}

TEST_F(HpetTest, RouteThatIsNotOfferedDoesNotStick) {
  put(timer(0, hpet::TIMER_CONFIG), kRoute20);
  put(timer(0, hpet::TIMER_CONFIG), 5u << hpet::kRouteShift);
  EXPECT_EQ(get(timer(0, hpet::TIMER_CONFIG)) & hpet::kRouteMask, kRoute20);
}

TEST_F(HpetTest, FsbInterruptIsAMessage) {
  put(timer(1, hpet::TIMER_FSB), uint64_t{0xfee00000} << 32 | 0x51);
  program(1, hpet::kInterrupt | hpet::kFsb, 1000);
  enable();
  ticks(1000);
  EXPECT_EQ(m_.requested(0x51), 1u);
}

TEST_F(HpetTest, ThirtyTwoBitTimerMatchesTheLowHalf) {
  put(hpet::COUNTER, 0x5'ffffff00);
  program(2, hpet::kInterrupt | hpet::k32Bit | kRoute20, 0x10);
  enable();
  ticks(0x110);
  EXPECT_EQ(lines_.take_rises(20), 1);
}

TEST_F(HpetTest, HalvesAreWrittenSeparately) {
  write_reg(hpet_.region(), timer(0, hpet::TIMER_COMPARATOR), 0x11111111, 4);
  write_reg(hpet_.region(), timer(0, hpet::TIMER_COMPARATOR) + 4, 0x22222222, 4);
  EXPECT_EQ(get(timer(0, hpet::TIMER_COMPARATOR)), 0x2222222211111111u);
  write_reg(hpet_.region(), timer(0, hpet::TIMER_COMPARATOR), 0xff, 1);
  EXPECT_EQ(get(timer(0, hpet::TIMER_COMPARATOR)), 0x2222222211111111u);
}

TEST_F(HpetTest, PeriodOfOneTickIsPaced) {
  put(timer(0, hpet::TIMER_CONFIG), hpet::kInterrupt | hpet::kPeriodic | hpet::kSetValue | kRoute2);
  put(timer(0, hpet::TIMER_COMPARATOR), 1);
  enable();
  ticks(100'000);
  const int rises = lines_.take_rises(2);
  EXPECT_GT(rises, 20);
  EXPECT_LE(rises, 51);
}

std::vector<uint64_t> observe(Hpet& hpet, FakeLines& lines, ManualClock& clock) {
  std::vector<uint64_t> seen;
  for (int i = 0; i < 100; ++i) {
    clock.advance(77'770);
    for (const uint32_t line : {2u, 20u, kIsa0, kIsa8}) seen.push_back(static_cast<uint64_t>(lines.take_rises(line)));
    for (const uint64_t reg : {0x20u, 0xf0u, 0x100u, 0x108u, 0x120u, 0x128u, 0x140u, 0x148u})
      seen.push_back(read_reg(hpet.region(), reg, 8));
    if (i == 20) write_reg(hpet.region(), 0x108, 3000, 8);  // the period that was still missing
    if (i == 40) write_reg(hpet.region(), 0x20, 7, 8);
    if (i == 60) write_reg(hpet.region(), 0x10, hpet::kEnable, 8);
  }
  return seen;
}

TEST_F(HpetTest, RestoredInTheMiddleFinishesIdentically) {
  put(timer(0, hpet::TIMER_CONFIG), hpet::kInterrupt | hpet::kPeriodic | hpet::kSetValue | kRoute2);
  put(timer(0, hpet::TIMER_COMPARATOR), 20'000);
  program(2, hpet::kInterrupt | hpet::kLevel | kRoute20, 50'000);
  program(1, hpet::kInterrupt | kRoute20, 400'000);
  enable(hpet::kLegacy);
  ticks(60'001);
  ApicMachine other_machine(1);
  other_machine.clock.advance_to(m_.clock.now());
  FakeLines other_lines;
  FakeSwitch other_legacy;
  Hpet other("hpet", {}, wiring(other_lines, other_machine.bus, other_legacy), other_machine.clock);
  ASSERT_TRUE(restore_state(other, saved_state(hpet_)));
  EXPECT_TRUE(other_legacy.is_on);
  EXPECT_TRUE(other_lines.level(20));
  for (const uint32_t line : {2u, 20u, kIsa0, kIsa8}) {
    lines_.take_rises(line);
    other_lines.take_rises(line);
  }
  EXPECT_EQ(observe(other, other_lines, other_machine.clock), observe(hpet_, lines_, m_.clock));
  EXPECT_EQ(saved_state(other), saved_state(hpet_));
}

TEST_F(HpetTest, ImpossibleStatesAreRejectedAndChangeNothing) {
  const auto good = saved_state(hpet_);
  struct Case {
    uint16_t field;
    size_t at;
    uint64_t value;
    size_t size;
  };
  for (const Case c : {Case{1, 0, 4, 8},
                       {2, 0, 8, 8},
                       {5, 0, hpet::kSetValue, 8},
                       {5, 8, 5u << hpet::kRouteShift, 8},
                       {5, 0, hpet::k32Bit, 8},
                       {9, 0, 2, 1}}) {
    EXPECT_FALSE(restore_state(hpet_, with_patched_field(good, c.field, c.at, c.value, c.size))) << c.field;
    EXPECT_EQ(saved_state(hpet_), good);
  }
}

}  // namespace
}  // namespace kite::devices

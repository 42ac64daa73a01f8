#include "devices/rtc/rtc.h"

#include <gtest/gtest.h>

#include <optional>

#include "devices/rtc/rtc_calendar.h"
#include "devices/test_device.h"

namespace kite::devices {
namespace {

using rtc::Reg;
using testing::FakeLines;
using testing::read_reg;
using testing::restore_state;
using testing::saved_state;
using testing::with_patched_field;
using testing::write_reg;

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kUip = 8 * kSecond / 32'768;
constexpr int64_t kBase = 1'296'612'298;  // 2011-02-02 02:04:58, a Wednesday

constexpr uint8_t kUieBit = 0x10, kAieBit = 0x20, kPieBit = 0x40, kSetBit = 0x80;
constexpr uint8_t k24 = 0x02, kDm = 0x04;

class RtcTest : public ::testing::Test {
 protected:
  uint8_t get(uint8_t index) { return get(rtc_, index); }
  void put(uint8_t index, uint8_t value) { put(rtc_, index, value); }
  static uint8_t get(Rtc& rtc, uint8_t index) {
    write_reg(rtc.ports(), 0, index);
    return static_cast<uint8_t>(read_reg(rtc.ports(), 1));
  }
  static void put(Rtc& rtc, uint8_t index, uint8_t value) {
    write_reg(rtc.ports(), 0, index);
    write_reg(rtc.ports(), 1, value);
  }
  // hh, mm, ss as the registers show them.
  uint32_t time() {
    return static_cast<uint32_t>(get(Reg::HOURS)) << 16 | static_cast<uint32_t>(get(Reg::MINUTES)) << 8 |
           get(Reg::SECONDS);
  }
  uint64_t date() {
    return uint64_t{get(Reg::CENTURY)} << 24 | uint64_t{get(Reg::YEAR)} << 16 | uint64_t{get(Reg::MONTH)} << 8 |
           get(Reg::DAY_OF_MONTH);
  }
  // With the divider in reset, as firmware does it; the next second then comes half a second later.
  void set_time(uint8_t b, uint8_t hours, uint8_t minutes, uint8_t seconds) {
    put(Reg::B, b);
    put(Reg::A, 0x76);
    put(Reg::HOURS, hours);
    put(Reg::MINUTES, minutes);
    put(Reg::SECONDS, seconds);
    put(Reg::A, 0x26);
  }
  void set_date(uint8_t century, uint8_t year, uint8_t month, uint8_t day) {
    put(Reg::CENTURY, century);
    put(Reg::YEAR, year);
    put(Reg::MONTH, month);
    put(Reg::DAY_OF_MONTH, day);
  }

  ManualClock clock_;
  FakeLines irq_;
  Rtc rtc_{"rtc", {.offset_ns = kBase * kSecond}, irq_.line(), clock_};
};

TEST_F(RtcTest, ShowsTheConfiguredTimeInBcd) {
  EXPECT_EQ(time(), 0x020458u);
  EXPECT_EQ(date(), 0x20110202u);
  EXPECT_EQ(get(Reg::DAY_OF_WEEK), 4);
  EXPECT_EQ(get(Reg::D), 0x80);
}

TEST_F(RtcTest, RunningClockShowsItsTimeInTheFormatThatIsSet) {
  put(Reg::B, k24 | kDm);
  EXPECT_EQ(get(Reg::SECONDS), 58);
  EXPECT_EQ(date(), (20u << 24 | 11u << 16 | 2u << 8 | 2u));
  put(Reg::B, 0);
  clock_.advance(12 * 3600 * kSecond);
  EXPECT_EQ(time(), 0x820458u);
}

TEST_F(RtcTest, SecondsStartWhereTheBaseHasThem) {
  FakeLines irq;
  Rtc rtc("rtc", {.offset_ns = kBase * kSecond + 400'000'000}, irq.line(), clock_);
  clock_.advance(599'999'999);
  EXPECT_EQ(get(rtc, Reg::SECONDS), 0x58);
  clock_.advance(1);
  EXPECT_EQ(get(rtc, Reg::SECONDS), 0x59);
}

struct Wrap {
  uint8_t b;
  uint32_t before, after;
};

class RtcWrapTest : public RtcTest, public ::testing::WithParamInterface<Wrap> {};

TEST_P(RtcWrapTest, OneSecondLater) {
  const Wrap& w = GetParam();
  set_time(w.b, static_cast<uint8_t>(w.before >> 16), static_cast<uint8_t>(w.before >> 8),
           static_cast<uint8_t>(w.before));
  clock_.advance(kSecond);
  EXPECT_EQ(time(), w.after);
}

INSTANTIATE_TEST_SUITE_P(Formats, RtcWrapTest,
                         ::testing::Values(Wrap{k24, 0x095900, 0x095901}, Wrap{k24, 0x095959, 0x100000},
                                           Wrap{k24, 0x235959, 0x000000}, Wrap{k24 | kDm, 0x093b3b, 0x0a0000},
                                           Wrap{k24 | kDm, 0x173b3b, 0x000000}, Wrap{0, 0x095959, 0x100000},
                                           Wrap{0, 0x115959, 0x920000}, Wrap{0, 0x125959, 0x010000},
                                           Wrap{0, 0x915959, 0x120000}, Wrap{0, 0x925959, 0x810000},
                                           Wrap{kDm, 0x0b3b3b, 0x8c0000}, Wrap{kDm, 0x0c3b3b, 0x010000},
                                           Wrap{kDm, 0x8b3b3b, 0x0c0000}, Wrap{kDm, 0x8c3b3b, 0x810000}));

TEST_F(RtcTest, DateCarriesAndTheDayOfWeekCounts) {
  set_time(k24, 0x23, 0x59, 0x59);
  set_date(0x20, 0x24, 0x02, 0x28);
  put(Reg::DAY_OF_WEEK, 7);
  clock_.advance(kSecond);
  EXPECT_EQ(date(), 0x20240229u);
  EXPECT_EQ(get(Reg::DAY_OF_WEEK), 1);
  clock_.advance(24 * 3600 * kSecond);
  EXPECT_EQ(date(), 0x20240301u);
  EXPECT_EQ(get(Reg::DAY_OF_WEEK), 2);
}

TEST_F(RtcTest, CenturyCarries) {
  set_time(k24, 0x23, 0x59, 0x59);
  set_date(0x19, 0x99, 0x12, 0x31);
  clock_.advance(kSecond);
  EXPECT_EQ(date(), 0x20000101u);
}

TEST_F(RtcTest, YearsOfEveryCenturyAreKept) {
  for (const uint64_t date_to_set : {0x19800202u, 0x20110202u, 0x20800202u, 0x00000101u, 0x99991231u}) {
    set_time(k24, 0x02, 0x04, 0x58);
    set_date(static_cast<uint8_t>(date_to_set >> 24), static_cast<uint8_t>(date_to_set >> 16),
             static_cast<uint8_t>(date_to_set >> 8), static_cast<uint8_t>(date_to_set));
    clock_.advance(kSecond);
    EXPECT_EQ(date(), date_to_set);
    EXPECT_EQ(time(), 0x020459u);
  }
}

TEST_F(RtcTest, SetInhibitsUpdatesButNotTheDivider) {
  put(Reg::B, kSetBit | k24);
  put(Reg::SECONDS, 0x30);
  clock_.advance(10 * kSecond + kSecond / 2);
  EXPECT_EQ(get(Reg::SECONDS), 0x30);
  EXPECT_EQ(get(Reg::C) & kUieBit, 0);
  put(Reg::B, k24);
  clock_.advance(kSecond / 2);
  EXPECT_EQ(get(Reg::SECONDS), 0x31);
}

TEST_F(RtcTest, SetClearsTheUpdateInterruptEnable) {
  put(Reg::B, k24 | kUieBit | kAieBit);
  put(Reg::B, k24 | kUieBit | kAieBit | kSetBit);
  EXPECT_EQ(get(Reg::B), k24 | kAieBit | kSetBit);
}

TEST_F(RtcTest, BytesWrittenWhileTheClockStandsKeepTheirFormat) {
  put(Reg::B, kSetBit | k24);
  put(Reg::HOURS, 10);
  put(Reg::MINUTES, 11);
  put(Reg::SECONDS, 12);
  put(Reg::B, k24 | kDm);  // SET ends and the format changes at once
  EXPECT_EQ(time(), 10u << 16 | 11u << 8 | 12u);
}

TEST_F(RtcTest, FirstUpdateComesHalfASecondAfterDividerReset) {
  set_time(k24, 0x02, 0x04, 0x58);
  clock_.advance(kSecond / 2 - 1);
  EXPECT_EQ(time(), 0x020458u);
  clock_.advance(1);
  EXPECT_EQ(time(), 0x020459u);
}

TEST_F(RtcTest, HeldDividerStopsTheClock) {
  put(Reg::A, 0x76);
  clock_.advance(100 * kSecond);
  EXPECT_EQ(time(), 0x020458u);
  EXPECT_EQ(get(Reg::A) & 0x80, 0);
}

TEST_F(RtcTest, UpdateInProgressIsSetJustBeforeTheUpdate) {
  set_time(k24, 0x02, 0x04, 0x58);
  clock_.advance(kSecond / 2 - kUip - 1);
  EXPECT_EQ(get(Reg::A) & 0x80, 0);
  clock_.advance(1);
  EXPECT_EQ(get(Reg::A) & 0x80, 0x80);
  clock_.advance(kUip);
  EXPECT_EQ(get(Reg::A) & 0x80, 0);
  EXPECT_EQ(time(), 0x020459u);
}

TEST_F(RtcTest, UpdateInProgressCannotBeWritten) {
  put(Reg::A, 0xa6);
  EXPECT_EQ(get(Reg::A), 0x26);
}

TEST_F(RtcTest, UpdateInterruptComesWithEverySecond) {
  put(Reg::B, k24 | kUieBit);
  get(Reg::C);
  clock_.advance(kSecond - 1);
  EXPECT_FALSE(irq_.level());
  clock_.advance(1);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(get(Reg::C) & 0x90, 0x90);
  EXPECT_FALSE(irq_.level());
  EXPECT_EQ(get(Reg::C), 0);
  clock_.advance(kSecond);
  EXPECT_TRUE(irq_.level());
}

TEST_F(RtcTest, UpdateFlagIsSetWithoutItsInterrupt) {
  clock_.advance(kSecond);
  EXPECT_FALSE(irq_.level());
  EXPECT_EQ(get(Reg::C) & 0x90, 0x10);
}

TEST_F(RtcTest, EnablingAnInterruptWhoseFlagIsSetRaisesIt) {
  clock_.advance(kSecond);
  put(Reg::B, k24 | kUieBit);
  EXPECT_TRUE(irq_.level());
}

TEST_F(RtcTest, AlarmMatchesOneSecondOfTheDay) {
  put(Reg::SECONDS_ALARM, 0x05);
  put(Reg::MINUTES_ALARM, 0x10);
  put(Reg::HOURS_ALARM, 0x03);
  put(Reg::B, k24 | kAieBit);
  clock_.advance((3600 + 5 * 60 + 7) * kSecond - 1);
  EXPECT_FALSE(irq_.level());
  clock_.advance(1);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(time(), 0x031005u);
  EXPECT_EQ(get(Reg::C) & 0xa0, 0xa0);
  clock_.advance(86'400 * kSecond - 1);
  EXPECT_FALSE(irq_.level());
  clock_.advance(1);
  EXPECT_TRUE(irq_.level());
}

TEST_F(RtcTest, AlarmBytesFromC0MatchEverything) {
  put(Reg::SECONDS_ALARM, 0x30);
  put(Reg::MINUTES_ALARM, 0xc0);
  put(Reg::HOURS_ALARM, 0xff);
  put(Reg::B, k24 | kAieBit);
  clock_.advance(32 * kSecond);
  EXPECT_TRUE(irq_.level());
  get(Reg::C);
  clock_.advance(60 * kSecond);
  EXPECT_TRUE(irq_.level());
}

TEST_F(RtcTest, AlarmEverySecond) {
  for (const Reg reg : {Reg::SECONDS_ALARM, Reg::MINUTES_ALARM, Reg::HOURS_ALARM}) put(reg, 0xc0);
  put(Reg::B, k24 | kAieBit);
  for (int i = 0; i < 3; ++i) {
    clock_.advance(kSecond);
    EXPECT_TRUE(irq_.level());
    get(Reg::C);
  }
}

TEST_F(RtcTest, AlarmDistinguishesAmAndPm) {
  set_time(0, 0x03, 0x00, 0x00);
  put(Reg::SECONDS_ALARM, 0xc0);
  put(Reg::MINUTES_ALARM, 0xc0);
  put(Reg::HOURS_ALARM, 0x02);
  get(Reg::C);
  clock_.advance(11 * 3600 * kSecond);
  EXPECT_EQ(get(Reg::HOURS), 0x82);
  EXPECT_EQ(get(Reg::C) & kAieBit, 0);
  clock_.advance(12 * 3600 * kSecond);
  EXPECT_EQ(get(Reg::C) & kAieBit, kAieBit);
}

TEST_F(RtcTest, ImpossibleAlarmNeverMatches) {
  put(Reg::SECONDS_ALARM, 0x61);
  put(Reg::B, k24 | kAieBit);
  clock_.advance(2 * 86'400 * kSecond);
  EXPECT_EQ(get(Reg::C) & kAieBit, 0);
}

TEST_F(RtcTest, PeriodicRates) {
  struct Rate {
    uint8_t code;
    int per_second;
  };
  for (const Rate r : {Rate{1, 256}, {2, 128}, {3, 8192}, {6, 1024}, {13, 8}, {15, 2}}) {
    put(Reg::A, 0x20 | r.code);
    put(Reg::B, k24 | kPieBit);
    get(Reg::C);
    irq_.take_rises();
    int seen = 0;
    const int64_t end = clock_.now() + kSecond;
    for (auto next = clock_.next_deadline(); next <= end; next = clock_.next_deadline()) {
      clock_.advance_to(next);
      if (irq_.level() && (get(Reg::C) & kPieBit) != 0) ++seen;
    }
    clock_.advance_to(end);
    EXPECT_NEAR(seen, r.per_second, 1) << int{r.code};
    EXPECT_EQ(irq_.take_rises(), seen);
  }
}

TEST_F(RtcTest, NewPeriodicRateCountsFromTheLastEdge) {
  put(Reg::A, 0x2d);
  put(Reg::B, k24 | kPieBit);
  clock_.step();
  get(Reg::C);
  const int64_t edge = clock_.now();
  clock_.advance(100'000'000);
  put(Reg::A, 0x2f);
  clock_.step();
  EXPECT_EQ(clock_.now() - edge, kSecond / 2);
  EXPECT_TRUE(irq_.level());
}

// driftfix=slew: a guest that sees to its interrupts late gets all of them.
TEST_F(RtcTest, MissedPeriodicInterruptsAreReplayed) {
  Rtc late("rtc", {.offset_ns = kBase * kSecond, .replay_missed = true}, irq_.line(1), clock_);
  constexpr int64_t kPeriod = kSecond / 1024;
  put(late, Reg::B, k24 | kPieBit);
  clock_.advance(kPeriod * 10 + 1000);
  int seen = 0;
  for (int turn = 0; turn < 41; ++turn) {
    if ((get(late, Reg::C) & kPieBit) != 0) ++seen;
    clock_.advance(kPeriod / 8);
  }
  // 10 that were due at first, and one for each of the 5 periods that the turns took.
  EXPECT_EQ(seen, 15);
}

TEST_F(RtcTest, MissedPeriodicInterruptsAreLostOtherwise) {
  put(Reg::B, k24 | kPieBit);
  clock_.advance(kSecond);
  EXPECT_NE(get(Reg::C) & kPieBit, 0);
  clock_.advance(200'000);
  EXPECT_EQ(get(Reg::C) & kPieBit, 0);
}

TEST_F(RtcTest, NothingIsReplayedOnceTheInterruptIsOff) {
  Rtc late("rtc", {.offset_ns = kBase * kSecond, .replay_missed = true}, irq_.line(1), clock_);
  put(late, Reg::B, k24 | kPieBit);
  clock_.advance(kSecond);
  put(late, Reg::B, k24);
  (void)get(late, Reg::C);
  put(late, Reg::B, k24 | kPieBit);
  clock_.advance(200'000);
  EXPECT_EQ(get(late, Reg::C) & kPieBit, 0);
}

TEST_F(RtcTest, RateZeroIsSilent) {
  get(Reg::C);
  put(Reg::A, 0x20);
  put(Reg::B, k24 | kPieBit);
  clock_.advance(10 * kSecond);
  EXPECT_FALSE(irq_.level());
}

TEST_F(RtcTest, NoTimerRunsWithoutAnEnabledInterrupt) {
  EXPECT_EQ(clock_.next_deadline(), Clock::kNever);
  put(Reg::B, k24 | kPieBit);
  EXPECT_NE(clock_.next_deadline(), Clock::kNever);
  put(Reg::B, k24);
  EXPECT_EQ(clock_.next_deadline(), Clock::kNever);
}

TEST_F(RtcTest, MemoryKeepsWhatIsWrittenAndWhatTheBoardPutThere) {
  rtc_.set_cmos(0x34, 0x12);
  EXPECT_EQ(get(0x34), 0x12);
  put(0x7f, 0xab);
  EXPECT_EQ(rtc_.cmos(0x7f), 0xab);
  rtc_.set_cmos(Reg::SECONDS, 0x11);
  rtc_.set_cmos(Reg::CENTURY, 0x11);
  EXPECT_EQ(time(), 0x020458u);
  EXPECT_EQ(get(Reg::CENTURY), 0x20);
}

TEST_F(RtcTest, ExtendedBankIsSeparate) {
  write_reg(rtc_.extended_ports(), 0, 0x10);
  write_reg(rtc_.extended_ports(), 1, 0x55);
  EXPECT_EQ(read_reg(rtc_.extended_ports(), 0), 0x10u);
  EXPECT_EQ(read_reg(rtc_.extended_ports(), 1), 0x55u);
  EXPECT_EQ(rtc_.cmos(0x90), 0x55);
  EXPECT_EQ(get(0x10), 0);
}

TEST_F(RtcTest, IndexPortReadsAllOnesAndCarriesTheNmiMask) {
  write_reg(rtc_.ports(), 0, 0x8f);
  EXPECT_EQ(read_reg(rtc_.ports(), 0), 0xffu);
  EXPECT_TRUE(rtc_.nmi_masked());
  write_reg(rtc_.ports(), 0, 0x0f);
  EXPECT_FALSE(rtc_.nmi_masked());
}

TEST_F(RtcTest, StatusRegistersCannotBeWritten) {
  put(Reg::C, 0xff);
  put(Reg::D, 0x00);
  EXPECT_EQ(get(Reg::C), 0);
  EXPECT_EQ(get(Reg::D), 0x80);
}

TEST_F(RtcTest, ResetDisablesInterruptsAndKeepsTimeAndMemory) {
  put(0x40, 0x99);
  put(Reg::B, k24 | kUieBit | kAieBit | kPieBit);
  clock_.advance(kSecond);
  EXPECT_TRUE(irq_.level());
  rtc_.reset();
  EXPECT_FALSE(irq_.level());
  EXPECT_EQ(get(Reg::B), k24);
  EXPECT_EQ(get(Reg::C), 0);
  EXPECT_EQ(get(0x40), 0x99);
  EXPECT_EQ(time(), 0x020459u);
}

TEST_F(RtcTest, StoppedTimerIsSilentAndCatchesUpAfterStart) {
  put(Reg::B, k24 | kUieBit);
  rtc_.stop();
  clock_.advance(3 * kSecond);
  EXPECT_FALSE(irq_.level());
  rtc_.start();
  clock_.run_due();
  EXPECT_TRUE(irq_.level());
}

TEST_F(RtcTest, AnyBytesHaveATime) {
  uint32_t seed = 1;
  for (int i = 0; i < 2000; ++i) {
    seed = seed * 1664525 + 1013904223;
    put(static_cast<uint8_t>(seed >> 16 & 0x0f), static_cast<uint8_t>(seed >> 24));
    if (i % 7 == 0) put(Reg::CENTURY, static_cast<uint8_t>(seed >> 8));
    clock_.advance(static_cast<int64_t>(seed) * 100);
    if (get(Reg::C) != 0 && i % 5 == 0) time();
  }
  put(Reg::B, k24);
  put(Reg::A, 0x26);
  clock_.advance(2 * kSecond);
  EXPECT_LE(get(Reg::SECONDS) & 0x0f, 9);
  EXPECT_LE(get(Reg::MONTH), 0x12);
}

// Everything a guest could see from here on.
std::vector<int64_t> observe(Rtc& rtc, FakeLines& irq, ManualClock& clock) {
  std::vector<int64_t> seen;
  for (int i = 0; i < 300; ++i) {
    clock.step();
    seen.push_back(clock.now());
    seen.push_back(irq.take_rises());
    seen.push_back(static_cast<int64_t>(read_reg(rtc.ports(), 1)));
    write_reg(rtc.ports(), 0, i % 2 == 0 ? Reg::C : static_cast<unsigned>(i) % 10);
    seen.push_back(static_cast<int64_t>(read_reg(rtc.ports(), 1)));
  }
  return seen;
}

TEST_F(RtcTest, RestoredInTheMiddleFinishesIdentically) {
  put(Reg::A, 0x2d);
  put(Reg::SECONDS_ALARM, 0x20);
  put(Reg::MINUTES_ALARM, 0xc0);
  put(Reg::HOURS_ALARM, 0xc0);
  put(Reg::B, kUieBit | kAieBit | kPieBit);
  clock_.advance(12 * kSecond + 345'678'901);
  write_reg(rtc_.ports(), 0, Reg::SECONDS);
  ManualClock other_clock;
  FakeLines other_irq;
  Rtc other("rtc", {}, other_irq.line(), other_clock);
  other_clock.advance_to(clock_.now());
  ASSERT_TRUE(restore_state(other, saved_state(rtc_)));
  EXPECT_EQ(other_irq.level(), irq_.level());
  irq_.take_rises();
  other_irq.take_rises();
  EXPECT_EQ(observe(other, other_irq, other_clock), observe(rtc_, irq_, clock_));
  EXPECT_EQ(saved_state(other), saved_state(rtc_));
}

TEST_F(RtcTest, ImpossibleStatesAreRejectedAndChangeNothing) {
  const auto good = saved_state(rtc_);
  struct Case {
    uint16_t field;
    size_t at;
    uint64_t value;
    size_t size;
  };
  for (const Case c : {Case{1, Reg::A, 0xa6, 1},
                       {1, Reg::C, 1, 1},
                       {1, Reg::D, 0, 1},
                       {3, 0, 0x80, 1},
                       {4, 0, 0x80, 1},
                       {5, 0, ~uint64_t{0}, 8},
                       {5, 0, ~uint64_t{0} >> 1, 8}}) {
    EXPECT_FALSE(restore_state(rtc_, with_patched_field(good, c.field, c.at, c.value, c.size))) << c.field;
    EXPECT_EQ(saved_state(rtc_), good);
  }
}

TEST(RtcCalendarTest, DaysOfTheWeek) {
  EXPECT_EQ(rtc_day_of_week(0), 5u);
  EXPECT_EQ(rtc_day_of_week(-1), 4u);
  EXPECT_EQ(rtc_day_of_week(3 * 86'400), 1u);
}

TEST(RtcCalendarTest, EveryDayOf400YearsDecodesToItself) {
  constexpr RtcFormat kFormat{.binary = true, .hours24 = true};
  std::array<uint8_t, 128> bytes{};
  for (int64_t day = -719'528; day < -719'528 + 146'097; ++day) {
    rtc_encode(bytes, kFormat, day * 86'400 + 86'399);
    ASSERT_EQ(rtc_decode(bytes, kFormat), day * 86'400 + 86'399) << day;
  }
}

}  // namespace
}  // namespace kite::devices

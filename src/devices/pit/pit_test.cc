#include "devices/pit/pit.h"

#include <gtest/gtest.h>

#include "devices/test_device.h"

namespace kite::devices {
namespace {

using testing::FakeLines;
using testing::read_reg;
using testing::restore_state;
using testing::saved_state;
using testing::with_patched_field;
using testing::write_reg;

constexpr TickRate kRate{Pit::kHz};

class PitTest : public ::testing::Test {
 protected:
  void SetUp() override { pit_.reset(); }
  static void program(Pit& pit, unsigned counter, unsigned mode, uint16_t count, bool bcd = false) {
    write_reg(pit.counter_ports(), 3, counter << 6 | 3u << 4 | mode << 1 | (bcd ? 1u : 0u));
    write_reg(pit.counter_ports(), counter, count & 0xff);
    write_reg(pit.counter_ports(), counter, count >> 8);
  }
  void program(unsigned counter, unsigned mode, uint16_t count, bool bcd = false) {
    program(pit_, counter, mode, count, bcd);
    load_ = now() + 1;
  }
  // Moves to pulse `pulse` after the load of the last count.
  void go_to(uint64_t pulse) { clock_.advance_to(kRate.to_ns(load_ + pulse)); }
  [[nodiscard]] uint64_t now() const { return kRate.to_ticks(clock_.now()); }
  uint64_t count(unsigned counter) {
    write_reg(pit_.counter_ports(), 3, counter << 6);
    const uint64_t low = read_reg(pit_.counter_ports(), counter);
    return low | read_reg(pit_.counter_ports(), counter) << 8;
  }
  uint64_t status(unsigned counter) {
    write_reg(pit_.counter_ports(), 3, 0xe0 | 2u << counter);
    return read_reg(pit_.counter_ports(), counter);
  }
  bool out(unsigned counter) { return (status(counter) & 0x80) != 0; }
  void gate2(bool level) { write_reg(pit_.speaker_port(), 0, level ? 1 : 0); }

  ManualClock clock_;
  FakeLines irq_;
  Pit pit_{"pit", irq_.line(), clock_};
  uint64_t load_ = 0;
};

TEST_F(PitTest, NothingHappensBeforeItIsProgrammed) {
  clock_.advance(1'000'000'000);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(irq_.take_rises(), 1);  // the level of reset
}

TEST_F(PitTest, Mode0RisesAtTerminalCountAndStays) {
  program(0, 0, 1000);
  EXPECT_FALSE(irq_.level());
  go_to(999);
  EXPECT_FALSE(irq_.level());
  EXPECT_FALSE(out(0));
  go_to(1000);
  EXPECT_TRUE(irq_.level());
  go_to(100'000);
  EXPECT_TRUE(out(0));
}

TEST_F(PitTest, Mode0CountsThroughZero) {
  program(0, 0, 10);
  go_to(4);
  EXPECT_EQ(count(0), 6u);
  go_to(10);
  EXPECT_EQ(count(0), 0u);
  go_to(11);
  EXPECT_EQ(count(0), 0xffffu);
}

TEST_F(PitTest, Mode0FirstByteStopsTheCount) {
  program(0, 0, 10);
  write_reg(pit_.counter_ports(), 0, 20);
  go_to(100);
  EXPECT_FALSE(irq_.level());
  write_reg(pit_.counter_ports(), 0, 0);
  load_ = now() + 1;
  go_to(20);
  EXPECT_TRUE(irq_.level());
}

TEST_F(PitTest, Mode2InterruptsOnceAPeriodWithoutDrift) {
  program(0, 2, 11932);
  irq_.take_rises();
  clock_.advance_to(kRate.to_ns(load_) + 10'000'000'000);
  EXPECT_EQ(irq_.take_rises(), 11'931'820 / 11932);
}

TEST_F(PitTest, Mode2OutIsLowForTheLastPulse) {
  program(2, 2, 100);
  gate2(true);
  load_ = now() + 1;
  go_to(98);
  EXPECT_TRUE(out(2));
  EXPECT_EQ(count(2), 2u);
  go_to(99);
  EXPECT_FALSE(out(2));
  EXPECT_EQ(count(2), 1u);
  go_to(100);
  EXPECT_TRUE(out(2));
  EXPECT_EQ(count(2), 100u);
}

TEST_F(PitTest, Mode2NewCountWaitsForTheEndOfTheCycle) {
  program(0, 2, 1000);
  irq_.take_rises();
  go_to(500);
  write_reg(pit_.counter_ports(), 0, 2000 & 0xff);
  write_reg(pit_.counter_ports(), 0, 2000 >> 8);
  EXPECT_NE(status(0) & 0x40, 0u);  // null count
  go_to(1000);
  EXPECT_EQ(irq_.take_rises(), 1);
  EXPECT_EQ(status(0) & 0x40, 0u);
  go_to(2999);
  EXPECT_EQ(irq_.take_rises(), 0);
  go_to(3000);
  EXPECT_EQ(irq_.take_rises(), 1);
}

TEST_F(PitTest, Mode3IsASquareWave) {
  program(0, 3, 1001);
  irq_.take_rises();
  go_to(500);
  EXPECT_TRUE(irq_.level());
  go_to(501);
  EXPECT_FALSE(irq_.level());
  EXPECT_EQ(irq_.take_rises(), 0);
  go_to(1001);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(irq_.take_rises(), 1);
}

TEST_F(PitTest, Mode3CountsByTwo) {
  program(0, 3, 100);
  go_to(10);
  EXPECT_EQ(count(0), 80u);
  go_to(60);
  EXPECT_EQ(count(0), 80u);
}

TEST_F(PitTest, Mode3NewCountWaitsForTheHalfCycle) {
  program(0, 3, 1000);
  irq_.take_rises();
  go_to(100);
  write_reg(pit_.counter_ports(), 0, 2000 & 0xff);
  write_reg(pit_.counter_ports(), 0, 2000 >> 8);
  go_to(500);
  EXPECT_FALSE(irq_.level());
  go_to(1499);
  EXPECT_FALSE(irq_.level());
  go_to(1500);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(irq_.take_rises(), 1);
}

TEST_F(PitTest, Mode4StrobesOnce) {
  program(0, 4, 50);
  irq_.take_rises();
  go_to(50);
  EXPECT_FALSE(out(0));
  go_to(51);
  EXPECT_TRUE(out(0));
  go_to(100'000);
  EXPECT_EQ(irq_.take_rises(), 1);
}

TEST_F(PitTest, Mode1IsTriggeredByItsGate) {
  program(2, 1, 100);
  clock_.advance(1'000'000);
  EXPECT_TRUE(out(2));
  gate2(true);
  load_ = now() + 1;
  go_to(0);
  EXPECT_FALSE(out(2));
  go_to(60);
  gate2(false);
  gate2(true);  // retriggered
  load_ = now() + 1;
  go_to(99);
  EXPECT_FALSE(out(2));
  go_to(100);
  EXPECT_TRUE(out(2));
}

TEST_F(PitTest, Mode5StrobesAfterItsTrigger) {
  program(2, 5, 100);
  gate2(true);
  load_ = now() + 1;
  go_to(99);
  EXPECT_TRUE(out(2));
  go_to(100);
  EXPECT_FALSE(out(2));
  go_to(101);
  EXPECT_TRUE(out(2));
}

TEST_F(PitTest, GateHoldsTheCountOfMode0) {
  gate2(true);
  program(2, 0, 1000);
  go_to(400);
  gate2(false);
  clock_.advance(1'000'000'000);
  EXPECT_EQ(count(2), 600u);
  gate2(true);
  load_ = now();
  go_to(599);
  EXPECT_EQ(read_reg(pit_.speaker_port(), 0) & 0x20, 0u);
  go_to(600);
  EXPECT_EQ(read_reg(pit_.speaker_port(), 0) & 0x20, 0x20u);
}

TEST_F(PitTest, GateStopsMode3WithOutHighAndRestartsIt) {
  gate2(true);
  program(2, 3, 1000);
  go_to(700);
  EXPECT_FALSE(out(2));
  gate2(false);
  EXPECT_TRUE(out(2));
  gate2(true);
  load_ = now() + 1;
  go_to(499);
  EXPECT_TRUE(out(2));
  go_to(500);
  EXPECT_FALSE(out(2));
}

TEST_F(PitTest, ZeroMeansTheWholeRange) {
  program(0, 2, 0);
  irq_.take_rises();
  go_to(65'535);
  EXPECT_EQ(irq_.take_rises(), 0);
  go_to(65'536);
  EXPECT_EQ(irq_.take_rises(), 1);
}

TEST_F(PitTest, BcdCounts) {
  program(0, 2, 0x1000, true);
  irq_.take_rises();
  go_to(1);
  EXPECT_EQ(count(0), 0x0999u);
  go_to(1000);
  EXPECT_EQ(irq_.take_rises(), 1);
  program(0, 2, 0, true);
  irq_.take_rises();
  go_to(9999);
  EXPECT_EQ(count(0), 0x0001u);
  go_to(10'000);
  EXPECT_EQ(irq_.take_rises(), 1);
}

TEST_F(PitTest, SingleByteAccess) {
  write_reg(pit_.counter_ports(), 3, 0x14);  // counter 0, low byte, mode 2
  write_reg(pit_.counter_ports(), 0, 200);
  load_ = now() + 1;
  go_to(50);
  EXPECT_EQ(read_reg(pit_.counter_ports(), 0), 150u);
  EXPECT_EQ(read_reg(pit_.counter_ports(), 0), 150u);
  write_reg(pit_.counter_ports(), 3, 0x24);  // high byte
  write_reg(pit_.counter_ports(), 0, 2);
  load_ = now() + 1;
  go_to(1);
  EXPECT_EQ(read_reg(pit_.counter_ports(), 0), 1u);
}

TEST_F(PitTest, LatchedCountStandsStillUntilItWasRead) {
  program(0, 2, 1000);
  go_to(100);
  write_reg(pit_.counter_ports(), 3, 0x00);
  go_to(200);
  write_reg(pit_.counter_ports(), 3, 0x00);  // ignored: the first was not read
  EXPECT_EQ(read_reg(pit_.counter_ports(), 0), 900u & 0xff);
  EXPECT_EQ(read_reg(pit_.counter_ports(), 0), 900u >> 8);
  EXPECT_EQ(read_reg(pit_.counter_ports(), 0), 800u & 0xff);
}

TEST_F(PitTest, ReadBackLatchesStatusBeforeCount) {
  program(0, 2, 1000);
  go_to(100);
  write_reg(pit_.counter_ports(), 3, 0xc2);
  EXPECT_EQ(read_reg(pit_.counter_ports(), 0), 0xb4u);  // OUT, both bytes, mode 2
  EXPECT_EQ(read_reg(pit_.counter_ports(), 0), 900u & 0xff);
  EXPECT_EQ(read_reg(pit_.counter_ports(), 0), 900u >> 8);
}

TEST_F(PitTest, ReadBackChoosesCounters) {
  program(0, 2, 1000);
  program(1, 2, 500);
  write_reg(pit_.counter_ports(), 3, 0xe4);  // status of counter 1 only
  EXPECT_NE(read_reg(pit_.counter_ports(), 0), 0xb4u);
  EXPECT_EQ(read_reg(pit_.counter_ports(), 1) & 0x3f, 0x34u);
}

TEST_F(PitTest, CountOfOneStaysHighInThePeriodicModes) {
  program(0, 2, 1);
  irq_.take_rises();
  clock_.advance(1'000'000);
  EXPECT_EQ(irq_.take_rises(), 0);
  EXPECT_TRUE(irq_.level());
}

TEST_F(PitTest, EdgesFasterThanAnyGuestCanAnswerAreCoalesced) {
  program(0, 2, 2);
  irq_.take_rises();
  clock_.advance(1'000'000);
  const int rises = irq_.take_rises();
  EXPECT_GT(rises, 50);
  EXPECT_LE(rises, 101);
}

TEST_F(PitTest, RefreshBitToggles) {
  const uint64_t before = read_reg(pit_.speaker_port(), 0) & 0x10;
  clock_.advance(15'086);
  EXPECT_NE(read_reg(pit_.speaker_port(), 0) & 0x10, before);
}

TEST_F(PitTest, SpeakerPortKeepsItsWritableBits) {
  write_reg(pit_.speaker_port(), 0, 0xff);
  EXPECT_EQ(read_reg(pit_.speaker_port(), 0) & 0xcf, 0x0fu);
}

TEST_F(PitTest, StoppedTimerIsSilentAndGoesOnAfterStart) {
  program(0, 2, 1000);
  irq_.take_rises();
  pit_.stop();
  go_to(1500);
  EXPECT_EQ(irq_.take_rises(), 0);
  pit_.start();
  clock_.advance(20'000);
  EXPECT_EQ(irq_.take_rises(), 1);
}

// Everything a guest could see from here on.
std::vector<uint64_t> observe(Pit& pit, FakeLines& irq, ManualClock& clock) {
  std::vector<uint64_t> seen;
  for (int i = 0; i < 200; ++i) {
    clock.advance(137'000);
    seen.push_back(static_cast<uint64_t>(irq.take_rises()));
    for (unsigned counter = 0; counter < 3; ++counter) seen.push_back(read_reg(pit.counter_ports(), counter));
    seen.push_back(read_reg(pit.speaker_port(), 0));
    if (i == 50) write_reg(pit.counter_ports(), 0, 0x12);  // the high byte that was missing
    if (i == 100) write_reg(pit.speaker_port(), 0, 0);
  }
  return seen;
}

TEST_F(PitTest, RestoredInTheMiddleFinishesIdentically) {
  gate2(true);
  program(0, 3, 5000);
  program(1, 0, 60'000);
  program(2, 2, 0x4321, true);
  clock_.advance(2'000'000);
  write_reg(pit_.counter_ports(), 0, 0x34);  // half of a new count
  write_reg(pit_.counter_ports(), 3, 0xc8);  // counter 2 latched with its status
  ManualClock other_clock;
  FakeLines other_irq;
  Pit other("pit", other_irq.line(), other_clock);
  other_clock.advance_to(clock_.now());
  other_irq.set_irq(0, irq_.level());
  ASSERT_TRUE(restore_state(other, saved_state(pit_)));
  irq_.take_rises();
  other_irq.take_rises();
  EXPECT_EQ(observe(other, other_irq, other_clock), observe(pit_, irq_, clock_));
  EXPECT_EQ(saved_state(other), saved_state(pit_));
}

TEST_F(PitTest, ImpossibleStatesAreRejectedAndChangeNothing) {
  program(0, 2, 1000);
  const auto good = saved_state(pit_);
  struct Case {
    uint16_t field;
    size_t at;
    uint64_t value;
    size_t size;
  };
  for (const Case c : {Case{1, 0, 6, 1},
                       {2, 1, 2, 1},
                       {3, 0, 0, 1},
                       {3, 2, 4, 1},
                       {4, 0, 0, 1},
                       {4, 2, 1, 1},
                       {5, 1, 1, 1},
                       {6, 1, 1, 1},
                       {10, 0, 3, 1},
                       {14, 0, 0x10001, 4},
                       {14, 0, 0, 4},
                       {15, 0, 0x10001, 4},
                       {19, 0, 0x10, 1},
                       {20, 0, 2, 1},
                       {21, 0, 9, 1}}) {
    EXPECT_FALSE(restore_state(pit_, with_patched_field(good, c.field, c.at, c.value, c.size))) << c.field;
    EXPECT_EQ(saved_state(pit_), good) << c.field;
  }
}

}  // namespace
}  // namespace kite::devices

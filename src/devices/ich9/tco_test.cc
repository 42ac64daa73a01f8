#include "devices/ich9/tco.h"

#include <gtest/gtest.h>

#include "devices/ich9/tco_regs.h"

namespace kite::devices {
namespace {

using namespace tco_regs;

class TcoTest : public ::testing::Test {
 protected:
  void ticks(int64_t count) { clock_.advance(count * kTickNs); }
  uint64_t word(uint64_t offset) { return tco_.read(offset, 2); }
  void start(uint16_t initial) {
    tco_.write(kTmr, 2, initial);
    tco_.write(kRld, 2, 1);
  }

  ManualClock clock_;
  int smis_ = 0, barks_ = 0;
  Tco tco_{{.clock = clock_, .smi = [this] { ++smis_; }, .bark = [this] { ++barks_; }}};
};

TEST_F(TcoTest, RestsUntilItIsLoaded) {
  ticks(2000);
  EXPECT_EQ(word(kTco1Sts), 0U);
  EXPECT_EQ(word(kRld), 0U);
}

TEST_F(TcoTest, CountsDownInTicks) {
  start(10);
  EXPECT_EQ(word(kRld), 10U);
  ticks(3);
  EXPECT_EQ(word(kRld), 7U);
  clock_.advance(1);
  EXPECT_EQ(word(kRld), 7U);  // the tick that is under way
}

TEST_F(TcoTest, FirstTimeoutAsksForAnSmiAndStartsOver) {
  start(5);
  ticks(5);
  EXPECT_EQ(word(kTco1Sts), kTimeout);
  EXPECT_EQ(word(kTco2Sts), 0U);
  EXPECT_EQ(word(kRld), 5U);
  EXPECT_EQ(smis_, 1);
  EXPECT_EQ(barks_, 0);
}

TEST_F(TcoTest, SecondTimeoutBarks) {
  start(5);
  ticks(5);
  ticks(5);
  EXPECT_EQ(word(kTco2Sts), kSecondToSts);
  EXPECT_EQ(barks_, 1);
}

TEST_F(TcoTest, ReloadInBetweenKeepsItQuiet) {
  start(5);
  for (int i = 0; i < 10; ++i) {
    ticks(5);
    tco_.write(kRld, 2, 1);
  }
  EXPECT_EQ(barks_, 0);
}

TEST_F(TcoTest, HaltHoldsTheCount) {
  start(10);
  ticks(4);
  tco_.write(kTco1Cnt, 2, kTmrHlt);
  ticks(100);
  EXPECT_EQ(word(kRld), 6U);
  tco_.write(kTco1Cnt, 2, 0);
  ticks(5);
  EXPECT_EQ(word(kTco1Sts), 0U);
  ticks(1);
  EXPECT_EQ(word(kTco1Sts), kTimeout);
}

TEST_F(TcoTest, StatusBitsClearByOnes) {
  start(2);
  ticks(2);
  tco_.write(kTco1Sts, 2, kTimeout);
  EXPECT_EQ(word(kTco1Sts), 0U);
}

TEST_F(TcoTest, LockStays) {
  tco_.write(kTco1Cnt, 2, kLock);
  tco_.write(kTco1Cnt, 2, 0);
  EXPECT_TRUE(tco_.locked());
  tco_.reset();
  EXPECT_FALSE(tco_.locked());
}

TEST_F(TcoTest, TooShortIntervalsAreIgnored) {
  tco_.write(kTmr, 2, 1);
  EXPECT_EQ(word(kTmr), kTmrReset);
  tco_.write(kTmr, 2, 0xfc00);
  EXPECT_EQ(word(kTmr), kTmrReset);
}

TEST_F(TcoTest, MessageToTheHandlerIsAnSmi) {
  tco_.write(kDatIn, 1, 0x12);
  EXPECT_EQ(smis_, 1);
  EXPECT_EQ(word(kTco1Sts), kSwTcoSmi);
}

TEST_F(TcoTest, StateTravelsInTheMiddleOfACount) {
  start(10);
  ticks(4);
  int barks = 0;
  Tco other({.clock = clock_, .smi = [] {}, .bark = [&barks] { ++barks; }});
  other.restore(tco_.snapshot());
  EXPECT_EQ(other.read(kRld, 2), 6U);
  ticks(6);
  EXPECT_EQ(other.read(kTco1Sts, 2), kTimeout);
}

}  // namespace
}  // namespace kite::devices

#include "machine/dirty_rate.h"

#include <gtest/gtest.h>

#include <string>

namespace kite::machine {
namespace {

using Mode = DirtyRate::Mode;
using Status = DirtyRate::Status;

constexpr int64_t kSecond = 1'000'000'000;
constexpr uint64_t kPagesPerMib = 256;

// Timers may fire late, as on a busy host.
class SetClock final : public Clock {
 public:
  [[nodiscard]] int64_t now() const override { return now_; }
  void advance(int64_t ns) {
    now_ += ns;
    run_due();
  }

 private:
  int64_t now_ = 100 * kSecond;
};

// 64 MiB of RAM in two pieces, and memory of a device.
class DirtyRateTest : public ::testing::Test {
 protected:
  DirtyRateTest() {
    for (const auto& [block, at] : {std::pair(low_, uint64_t{0}), std::pair(high_, uint64_t{1} << 32)})
      memory_.root().add(at, Region::ram(block->name(), block));
    memory_.root().add(uint64_t{1} << 33, Region::ram_device("vram", device_));
    memory_.commit();
  }
  static std::shared_ptr<RamBlock> make(const char* name, uint64_t mib) {
    auto block = RamBlock::create(name, mib << 20);
    EXPECT_TRUE(block) << block.error().message;
    return *block;
  }
  static void write(RamBlock& block, uint64_t first, uint64_t pages) {
    for (uint64_t offset = first * kPageSize; offset < (first + pages) * kPageSize; offset += kPageSize) {
      ++block.host()[offset];
      block.note_write(offset, 1);
    }
  }
  void start(Mode mode, int64_t seconds, std::optional<int64_t> samples = std::nullopt) {
    const auto done = rate_->start({.seconds = seconds, .mode = mode, .samples = samples});
    ASSERT_TRUE(done) << done.error().message;
  }
  // All slices that are left.
  void run_out() {
    for (int pass = 0; pass < 100; ++pass) clock_.run_due();
  }
  std::string refusal(const DirtyRate::Order& order) {
    const auto done = rate_->start(order);
    return done ? "taken" : done.error().message;
  }
  uint64_t measured() const {
    EXPECT_EQ(rate_->report().status, Status::kMeasured);
    return rate_->report().mib_per_second;
  }

  std::shared_ptr<RamBlock> low_ = make("low", 48), high_ = make("high", 16), device_ = make("vram", 8);
  AddressSpace memory_{"memory", uint64_t{1} << 52};
  SetClock clock_;
  std::unique_ptr<DirtyRate> rate_ = std::make_unique<DirtyRate>(memory_, clock_);
};

TEST_F(DirtyRateTest, NothingIsMeasuredUnasked) {
  clock_.advance(60 * kSecond);
  EXPECT_EQ(rate_->report().status, Status::kUnstarted);
}

TEST_F(DirtyRateTest, TheReportSaysWhatIsMeasured) {
  start(Mode::kPageSampling, 3);
  EXPECT_EQ(rate_->report().status, Status::kMeasuring);
  EXPECT_EQ(rate_->report().start, 100);
  EXPECT_EQ(rate_->report().seconds, 3);
  EXPECT_EQ(rate_->report().samples, 512);
  clock_.advance(3 * kSecond - 1);
  EXPECT_EQ(rate_->report().status, Status::kMeasuring);
  clock_.advance(1);
  EXPECT_EQ(rate_->report().status, Status::kMeasured);
  EXPECT_EQ(rate_->report().start, 100);
}

TEST_F(DirtyRateTest, LoggedPagesCountOnceAndOnlyThoseOfThePeriod) {
  write(*low_, 0, 1000);
  start(Mode::kDirtyBitmap, 2);
  EXPECT_EQ(rate_->report().samples, 0);
  write(*low_, 2000, 3 * kPagesPerMib);
  write(*low_, 2000, 3 * kPagesPerMib);
  write(*high_, 0, 5 * kPagesPerMib);
  write(*device_, 0, kPagesPerMib);
  clock_.advance(2 * kSecond);
  write(*low_, 6000, 1000);
  EXPECT_EQ(measured(), 4u);
}

TEST_F(DirtyRateTest, TimeIsWhatHasPassed) {
  start(Mode::kDirtyBitmap, 1);
  write(*low_, 0, 8 * kPagesPerMib);
  clock_.advance(4 * kSecond);
  EXPECT_EQ(measured(), 2u);
}

TEST_F(DirtyRateTest, ASecondMeasurementBeginsAfresh) {
  start(Mode::kDirtyBitmap, 1);
  write(*low_, 0, 8 * kPagesPerMib);
  clock_.advance(kSecond);
  ASSERT_EQ(measured(), 8u);
  start(Mode::kDirtyBitmap, 1);
  clock_.advance(kSecond);
  EXPECT_EQ(measured(), 0u);
  EXPECT_EQ(rate_->report().start, 101);
}

TEST_F(DirtyRateTest, TheLogIsOnForThePeriodAlone) {
  start(Mode::kDirtyBitmap, 1);
  EXPECT_TRUE(low_->dirty_logging() && high_->dirty_logging());
  EXPECT_FALSE(device_->dirty_logging());
  clock_.advance(kSecond);
  EXPECT_FALSE(low_->dirty_logging() || high_->dirty_logging());
  start(Mode::kPageSampling, 1);
  EXPECT_FALSE(low_->dirty_logging());
}

TEST_F(DirtyRateTest, TheEndOfTheMachineEndsTheLog) {
  start(Mode::kDirtyBitmap, 1);
  rate_.reset();
  EXPECT_FALSE(low_->dirty_logging() || high_->dirty_logging());
  clock_.advance(kSecond);
}

TEST_F(DirtyRateTest, ALogThatSomebodyElseReadsIsLeftToHim) {
  high_->set_dirty_logging(true);
  write(*high_, 0, 1);
  EXPECT_NE(refusal({.mode = Mode::kDirtyBitmap}).find("'high' is in use"), std::string::npos);
  EXPECT_FALSE(low_->dirty_logging());
  start(Mode::kPageSampling, 1);
  clock_.advance(kSecond);
  EXPECT_EQ(high_->collect_dirty()[0], 1u);
}

TEST_F(DirtyRateTest, MemoryMayLeaveTheMapMeanwhile) {
  start(Mode::kDirtyBitmap, 1);
  const auto region = memory_.root().shared_from_this();
  write(*high_, 0, 4 * kPagesPerMib);
  {
    const EpochGuard guard;
    memory_.root().remove(std::const_pointer_cast<Region>(memory_.view(guard).find(uint64_t{1} << 32)->region));
  }
  memory_.commit();
  clock_.advance(kSecond);
  EXPECT_EQ(measured(), 4u);
  EXPECT_FALSE(high_->dirty_logging());
}

TEST_F(DirtyRateTest, SamplesStandForAllMemory) {
  start(Mode::kPageSampling, 2);
  write(*low_, 0, 48 * kPagesPerMib);
  write(*high_, 0, 16 * kPagesPerMib);
  clock_.advance(2 * kSecond);
  EXPECT_EQ(measured(), 32u);
}

TEST_F(DirtyRateTest, SamplesOfMemoryThatRestsSayNothing) {
  write(*low_, 0, 48 * kPagesPerMib);
  start(Mode::kPageSampling, 1);
  clock_.advance(kSecond);
  EXPECT_EQ(measured(), 0u);
}

TEST_F(DirtyRateTest, ManySamplesAreTakenInSlices) {
  start(Mode::kPageSampling, 1, 16384);
  EXPECT_EQ(clock_.next_deadline(), clock_.now());  // 1024 pages: there is more to do at once
  run_out();
  write(*low_, 0, 48 * kPagesPerMib);
  write(*high_, 0, 16 * kPagesPerMib);
  clock_.advance(kSecond);
  EXPECT_EQ(rate_->report().status, Status::kMeasuring);
  run_out();
  EXPECT_EQ(measured(), 64u);
}

TEST_F(DirtyRateTest, AMeasurementIsNotDisturbedByAnOrder) {
  start(Mode::kPageSampling, 5);
  clock_.advance(kSecond);
  EXPECT_NE(refusal({.mode = Mode::kDirtyBitmap}).find("already"), std::string::npos);
  EXPECT_EQ(rate_->report().seconds, 5);
  EXPECT_EQ(rate_->report().mode, Mode::kPageSampling);
}

TEST_F(DirtyRateTest, NumbersOutOfRangeAreRefusedWithTheRange) {
  for (const int64_t seconds : {int64_t{0}, int64_t{-1}, int64_t{61}, INT64_MAX, INT64_MIN})
    EXPECT_NE(refusal({.seconds = seconds}).find("1 to 60 seconds"), std::string::npos) << seconds;
  for (const int64_t samples : {int64_t{0}, int64_t{127}, int64_t{16385}, INT64_MIN})
    EXPECT_NE(refusal({.samples = samples}).find("128 to 16384"), std::string::npos) << samples;
  EXPECT_NE(refusal({.mode = Mode::kDirtyBitmap, .samples = 512}).find("page-sampling only"), std::string::npos);
  EXPECT_EQ(rate_->report().status, Status::kUnstarted);
  EXPECT_EQ(refusal({.seconds = 60, .samples = 16384}), "taken");
}

TEST(DirtyRateOfNothing, IsZero) {
  AddressSpace memory("memory", uint64_t{1} << 52);
  memory.commit();
  SetClock clock;
  DirtyRate rate(memory, clock);
  for (const Mode mode : {Mode::kPageSampling, Mode::kDirtyBitmap}) {
    ASSERT_TRUE(rate.start({.mode = mode}));
    clock.advance(kSecond);
    EXPECT_EQ(rate.report().status, Status::kMeasured);
    EXPECT_EQ(rate.report().mib_per_second, 0u);
  }
}

}  // namespace
}  // namespace kite::machine

#include "monitor/dirty_rate_commands.h"

#include <gtest/gtest.h>

#include "monitor/qmp_commands.h"

namespace kite::monitor {
namespace {

// 8 MiB of RAM, and a clock at 70 seconds.
class DirtyRateCommandsTest : public ::testing::Test {
 protected:
  DirtyRateCommandsTest() {
    memory_.root().add(0, Region::ram("ram", block_));
    memory_.commit();
    clock_.advance(70 * kSecond);
  }
  Json calc(const char* arguments) {
    const auto reply = calc_dirty_rate(rate_, Json::parse(arguments));
    return reply ? *reply : Json(reply.error().description);
  }
  Json query() { return *query_dirty_rate(rate_); }
  void write_all() {
    for (uint64_t offset = 0; offset < block_->size(); offset += kPageSize) {
      ++block_->host()[offset];
      block_->note_write(offset, 1);
    }
  }

  static constexpr int64_t kSecond = 1'000'000'000;
  std::shared_ptr<RamBlock> block_ = *RamBlock::create("ram", 8 << 20);
  AddressSpace memory_{"memory", uint64_t{1} << 52};
  ManualClock clock_;
  machine::DirtyRate rate_{memory_, clock_};
};

TEST_F(DirtyRateCommandsTest, WhatClientsReadIsThereFromTheStart) {
  EXPECT_EQ(query(), Json::parse(R"({"status": "unstarted", "sample-pages": 0, "mode": "page-sampling",
                                     "start-time": 0, "calc-time": 0})"));
}

TEST_F(DirtyRateCommandsTest, TheRateIsThereOnceItIsMeasured) {
  EXPECT_EQ(calc(R"({"calc-time": 2})"), Json::object());
  EXPECT_EQ(query(), Json::parse(R"({"status": "measuring", "sample-pages": 512, "mode": "page-sampling",
                                     "start-time": 70, "calc-time": 2})"));
  write_all();
  clock_.advance(2 * kSecond);
  EXPECT_EQ(query(), Json::parse(R"({"status": "measured", "sample-pages": 512, "mode": "page-sampling",
                                     "start-time": 70, "calc-time": 2, "dirty-rate": 4})"));
}

TEST_F(DirtyRateCommandsTest, TheModeIsChosen) {
  EXPECT_EQ(calc(R"({"calc-time": 1, "mode": "dirty-bitmap"})"), Json::object());
  write_all();
  clock_.advance(kSecond);
  EXPECT_EQ(query(), Json::parse(R"({"status": "measured", "sample-pages": 0, "mode": "dirty-bitmap",
                                     "start-time": 70, "calc-time": 1, "dirty-rate": 8})"));
  EXPECT_EQ(calc(R"({"calc-time": 1, "mode": "page-sampling", "sample-pages": 128})"), Json::object());
  EXPECT_EQ(query()["mode"], "page-sampling");
  EXPECT_EQ(query()["sample-pages"], 128);
}

TEST_F(DirtyRateCommandsTest, WrongOrdersAreRefusedWithARemedy) {
  EXPECT_EQ(calc(R"({"calc-time": 61})"), "calc-time is 1 to 60 seconds, not 61");
  EXPECT_EQ(calc(R"({"calc-time": 1, "mode": "dirty-ring"})"),
            "mode dirty-ring is not available: no vCPU is measured alone; use page-sampling or dirty-bitmap");
  EXPECT_EQ(calc(R"({"calc-time": 1, "mode": "bitmap"})"), "Parameter 'mode' does not accept value 'bitmap'");
  EXPECT_EQ(calc(R"({"calc-time": 1, "mode": "dirty-bitmap", "sample-pages": 512})"),
            "sample-pages goes with mode page-sampling only; leave it out");
  EXPECT_EQ(query()["status"], "unstarted");
  EXPECT_EQ(calc(R"({"calc-time": 1})"), Json::object());
  EXPECT_NE(calc(R"({"calc-time": 1})").get<std::string>().find("already"), std::string::npos);
}

TEST_F(DirtyRateCommandsTest, ClientsFindTheCommandsByName) {
  for (const std::string_view name : {"calc-dirty-rate", "query-dirty-rate"})
    EXPECT_NE(std::ranges::find(qmp_commands(), name, &QmpCommand::name), qmp_commands().end()) << name;
}

TEST_F(DirtyRateCommandsTest, PeopleMeasureToo) {
  EXPECT_NE(info_dirty_rate(rate_).find("Status: unstarted\n"), std::string::npos);
  EXPECT_EQ(human_calc_dirty_rate(rate_, " -b 3"), "measuring for 3 seconds; 'info dirty_rate' shows the result\n");
  EXPECT_NE(info_dirty_rate(rate_).find("Mode: dirty-bitmap\nDirty rate: (not ready)\n"), std::string::npos);
  write_all();
  clock_.advance(3 * kSecond);
  EXPECT_NE(info_dirty_rate(rate_).find("Dirty rate: 2 (MB/s)\n"), std::string::npos);
  human_calc_dirty_rate(rate_, "1 1024");
  EXPECT_NE(info_dirty_rate(rate_).find("Sample Pages: 1024 (per GB)\nPeriod: 1 (sec)\n"), std::string::npos);
}

TEST_F(DirtyRateCommandsTest, PeopleAreToldHow) {
  for (const char* line : {"", "-b", "x", "1x", "1 2x", "1 512 3", "99999999999999999999"})
    EXPECT_EQ(human_calc_dirty_rate(rate_, line).substr(0, 6), "usage:") << line;
  EXPECT_NE(human_calc_dirty_rate(rate_, "0").find("1 to 60"), std::string::npos);
  EXPECT_NE(human_calc_dirty_rate(rate_, "-r 1").find("dirty-ring"), std::string::npos);
}

}  // namespace
}  // namespace kite::monitor

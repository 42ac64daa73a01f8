#include "support/log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace kite::log {
namespace {

class LogTest : public testing::Test {
 protected:
  void SetUp() override { enabled_mask = 0; }
  void TearDown() override {
    enabled_mask = 0;
    ASSERT_TRUE(set_file("/dev/null"));
    std::filesystem::remove(path());
  }

  static std::string path() { return testing::TempDir() + "kite_log_" + std::to_string(::getpid()); }
  static std::string contents() {
    std::ifstream file(path());
    return {std::istreambuf_iterator<char>(file), {}};
  }
};

TEST_F(LogTest, EnablesTheNamedCategories) {
  ASSERT_TRUE(enable("int,guest_errors"));

  EXPECT_TRUE(enabled(Category::kInterrupts));
  EXPECT_TRUE(enabled(Category::kGuestErrors));
  EXPECT_FALSE(enabled(Category::kExec));
}

TEST_F(LogTest, RefusesUnknownItemWithNearest) {
  const auto result = enable("int,guest_error");

  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "unknown log item 'guest_error'; did you mean 'guest_errors'?");
  EXPECT_EQ(enabled_mask, 0u);
}

TEST_F(LogTest, RefusesEmptyItem) { EXPECT_FALSE(enable("int,")); }

TEST_F(LogTest, EveryCategoryIsListedOnce) {
  uint32_t seen = 0;

  for (const CategoryName& entry : categories()) {
    EXPECT_EQ(seen & static_cast<uint32_t>(entry.category), 0u) << entry.name;
    seen |= static_cast<uint32_t>(entry.category);
  }

  EXPECT_EQ(seen, (static_cast<uint32_t>(Category::kOp) << 1) - 1);
}

TEST_F(LogTest, PrintsOnlyEnabledCategoriesToTheFile) {
  ASSERT_TRUE(set_file(path()));
  ASSERT_TRUE(enable("io"));

  print(Category::kIo, "port {:#x}", 0x60);
  print(Category::kMmu, "unseen");

  EXPECT_EQ(contents(), "port 0x60\n");
}

TEST_F(LogTest, FileNameTakesTheProcessId) {
  ASSERT_TRUE(set_file(testing::TempDir() + "kite_log_%d"));
  write_line("x");

  EXPECT_EQ(contents(), "x\n");
}

TEST_F(LogTest, UnwritableFileIsRefusedByName) {
  const auto result = set_file("/nonexistent/x.log");

  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("/nonexistent/x.log"), std::string::npos);
}

TEST_F(LogTest, MessagesGoToStderrWithTheProgramsName) {
  testing::internal::CaptureStderr();

  warn("disk {} is slow", 3);

  EXPECT_EQ(testing::internal::GetCapturedStderr(), "kite: warning: disk 3 is slow\n");
}

TEST_F(LogTest, GuestErrorsOfOneTextAreLimitedWithoutSilencingAnother) {
  ASSERT_TRUE(set_file(path()));
  ASSERT_TRUE(enable("guest_errors"));

  for (int i = 0; i < 200; ++i) guest_error("bad register {}", i);
  guest_error("bad port {}", 7);

  const std::string text = contents();
  EXPECT_EQ(text.find("bad register 199"), std::string::npos);
  EXPECT_NE(text.find("bad port 7"), std::string::npos);
}

TEST(RateLimit, PassesABurstAndSwallowsTheRest) {
  RateLimit limit;

  for (int i = 0; i < RateLimit::kBurst; ++i) EXPECT_TRUE(limit.pass_at(1000));
  EXPECT_FALSE(limit.pass_at(999'999'999));
  EXPECT_FALSE(limit.pass_at(1'000'000'999));

  EXPECT_EQ(limit.take_swallowed(), 2u);
  EXPECT_EQ(limit.take_swallowed(), 0u);
}

TEST(RateLimit, PassesAgainInTheNextSecond) {
  RateLimit limit;
  for (int i = 0; i <= RateLimit::kBurst; ++i) limit.pass_at(0);

  EXPECT_TRUE(limit.pass_at(1'000'000'000));
}

}  // namespace
}  // namespace kite::log

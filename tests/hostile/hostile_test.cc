// The hostile guest of hostile_board.h with fixed seeds; KITE_LONG=1 plays a hundred times as many.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <random>

#include "hostile/hostile_board.h"

// Of the sanitizers' run time, when there is one.
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace kite::hostile {
namespace {

constexpr size_t kInputBytes = 16'384;

// Where a run stands, for the report of one that does not come back.
struct Position {
  uint64_t seed = 0;
  const HostileBoard* board = nullptr;
} position;

void report_position() {
  if (position.board != nullptr)
    std::fprintf(stderr, "hostile board: seed %llu, step %zu\n", static_cast<unsigned long long>(position.seed),
                 position.board->steps());
}

std::vector<uint8_t> input_of(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> bytes(kInputBytes);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

class HostileBoardTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  static void SetUpTestSuite() {
    if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(report_position);
  }
  static uint64_t runs() { return std::getenv("KITE_LONG") != nullptr ? 2'500 : 25; }
};

TEST_P(HostileBoardTest, SurvivesAndKeepsItsState) {
  const uint64_t first = GetParam() * 1'000'000;
  for (uint64_t seed = first; seed < first + runs(); ++seed) {
    auto board = HostileBoard::create(seed % 2 == 0 ? "pc" : "pc-q35-7.2");
    ASSERT_TRUE(board) << board.error().message;
    position = {seed, board->get()};
    const auto done = (*board)->run(input_of(seed));
    position = {};
    ASSERT_TRUE(done) << "seed " << seed << ", step " << (*board)->steps() << ": " << done.error().message;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, HostileBoardTest, ::testing::Range<uint64_t>(0, 8));

TEST(HostileBoardTest, TheSameInputDoesTheSame) {
  const auto input = input_of(42);
  size_t steps[2] = {};
  for (size_t& count : steps) {
    auto board = HostileBoard::create();
    ASSERT_TRUE(board) << board.error().message;
    ASSERT_TRUE((*board)->run(input));
    count = (*board)->steps();
  }
  EXPECT_EQ(steps[0], steps[1]);
}

}  // namespace
}  // namespace kite::hostile

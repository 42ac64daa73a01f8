#include "support/result.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

namespace kite {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return fail("{} is odd", value);
  return value / 2;
}

Result<int> quarter(int value) {
  KITE_ASSIGN(const int once, half(value));
  KITE_ASSIGN(const int twice, half(once));
  return twice;
}

Result<> must_be_even(int value) {
  KITE_TRY(half(value));
  return {};
}

Result<std::unique_ptr<int>> boxed(int value) {
  KITE_ASSIGN(auto box, Result<std::unique_ptr<int>>(std::make_unique<int>(value)));
  return box;
}

TEST(Result, AssignBindsTheValue) { EXPECT_EQ(quarter(12), 3); }

TEST(Result, AssignReturnsTheInnerError) {
  const auto result = quarter(6);

  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "3 is odd");
}

TEST(Result, AssignMovesMoveOnlyValues) { EXPECT_EQ(**boxed(5), 5); }

TEST(Result, TryGoesOnAfterSuccess) { EXPECT_TRUE(must_be_even(2)); }

TEST(Result, TryReturnsTheError) { EXPECT_EQ(must_be_even(7).error().message, "7 is odd"); }

TEST(Result, ErrnoTextNamesTheError) { EXPECT_EQ(errno_text(ENOENT), "No such file or directory"); }

}  // namespace
}  // namespace kite

#include "monitor/passed_fds.h"

#include <fcntl.h>
#include <gtest/gtest.h>

namespace kite::monitor {
namespace {

std::vector<Fd> some(size_t count) {
  std::vector<Fd> fds;
  for (size_t number = 0; number < count; ++number) fds.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  return fds;
}

TEST(PassedFds, AreNamedInTheOrderInWhichTheyCame) {
  PassedFds fds;
  std::vector<Fd> two = some(2);
  const int first = two[0].get(), second = two[1].get();
  fds.arrived(std::move(two));
  ASSERT_TRUE(fds.name("a") && fds.name("b"));
  EXPECT_FALSE(fds.name("c"));
  EXPECT_EQ(fds.take("b").get(), second);
  EXPECT_EQ(fds.take("a").get(), first);
  EXPECT_FALSE(fds.take("a").valid());
}

TEST(PassedFds, ThoseThatNobodyNamesAreClosed) {
  PassedFds fds;
  std::vector<Fd> many = some(PassedFds::kMostWaiting + 1);
  const int oldest = many[0].get();
  fds.arrived(std::move(many));
  EXPECT_EQ(::fcntl(oldest, F_GETFD), -1);
}

TEST(PassedFds, ASecondOfTheSameNameTakesItsPlace) {
  PassedFds fds;
  std::vector<Fd> two = some(2);
  const int first = two[0].get(), second = two[1].get();
  fds.arrived(std::move(two));
  ASSERT_TRUE(fds.name("a") && fds.name("a"));
  EXPECT_EQ(::fcntl(first, F_GETFD), -1);
  EXPECT_EQ(fds.take("a").get(), second);
}

}  // namespace
}  // namespace kite::monitor

#include "support/fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>

namespace kite {
namespace {

Fd open_null() { return Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }
bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

TEST(Fd, DestructorCloses) {
  int number = -1;
  {
    const Fd fd = open_null();
    number = fd.get();
    ASSERT_TRUE(is_open(number));
  }

  EXPECT_FALSE(is_open(number));
}

TEST(Fd, MoveAssignmentClosesTheOldAndKeepsTheNew) {
  Fd kept = open_null();
  const int old = kept.get();
  Fd other = open_null();
  const int fresh = other.get();

  kept = std::move(other);

  EXPECT_FALSE(is_open(old));
  EXPECT_TRUE(is_open(fresh));
  EXPECT_EQ(kept.get(), fresh);
}

TEST(Fd, ReleaseGivesUpOwnership) {
  Fd fd = open_null();

  const int number = fd.release();

  EXPECT_FALSE(fd.valid());
  EXPECT_TRUE(is_open(number));
  ::close(number);
}

}  // namespace
}  // namespace kite

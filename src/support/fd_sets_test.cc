#include "support/fd_sets.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace kite {
namespace {

TEST(FdSets, GiveADuplicateWithTheRightsThatAreAskedFor) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ASSERT_TRUE(add_to_fd_set(7, Fd(ends[0])));
  ASSERT_TRUE(add_to_fd_set(7, Fd(ends[1])));

  const Fd writer(open_or_take("/dev/fdset/7", O_WRONLY | O_CREAT, 0666));
  const Fd reader(open_or_take("/dev/fdset/7", O_RDONLY));

  ASSERT_TRUE(writer.valid() && reader.valid());
  EXPECT_NE(writer.get(), ends[1]);
  ASSERT_EQ(::write(writer.get(), "x", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(reader.get(), &byte, 1), 1);
  EXPECT_EQ(open_or_take("/dev/fdset/7", O_RDWR), -1);
  EXPECT_EQ(errno, EACCES);
}

TEST(FdSets, ThereIsNoneWithoutItsNumber) {
  for (const char* const path : {"/dev/fdset/8", "/dev/fdset/", "/dev/fdset/7x"}) {
    EXPECT_EQ(open_or_take(path, O_RDONLY), -1) << path;
    EXPECT_EQ(errno, ENOENT) << path;
  }
}

}  // namespace
}  // namespace kite

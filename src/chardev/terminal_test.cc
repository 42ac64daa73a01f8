#include "chardev/terminal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <termios.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "support/fd.h"

namespace kite {
namespace {

class TerminalTest : public testing::Test {
 protected:
  void SetUp() override {
    int master_fd = -1, slave_fd = -1;
    ASSERT_EQ(::openpty(&master_fd, &slave_fd, nullptr, nullptr, nullptr), 0);
    master.reset(master_fd);
    slave.reset(slave_fd);
    ASSERT_TRUE(cooked());
  }
  void TearDown() override { restore_terminal(); }

  [[nodiscard]] termios modes() const {
    termios now{};
    EXPECT_EQ(::tcgetattr(slave.get(), &now), 0);
    return now;
  }
  [[nodiscard]] bool cooked() const { return (modes().c_lflag & (ECHO | ICANON)) == (ECHO | ICANON); }
  [[nodiscard]] bool raw() const { return (modes().c_lflag & (ECHO | ICANON)) == 0; }

  // Runs `end` in a child that has the terminal raw, and answers its wait status.
  template <class End>
  int status_of_child(End end) {
    std::fflush(nullptr);  // or the child would write it again
    const pid_t child = ::fork();
    if (child == 0) {
      for (const int signal : {SIGSEGV, SIGABRT, SIGTERM, SIGFPE}) ::signal(signal, SIG_DFL);
      if (!make_terminal_raw(slave.get(), true)) ::_exit(100);
      end();
      ::_exit(101);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return status;
  }

  Fd master, slave;
};

TEST_F(TerminalTest, RawModeHandsOverEveryKeyButKeepsOutputTranslation) {
  ASSERT_TRUE(make_terminal_raw(slave.get(), false));

  const termios now = modes();

  EXPECT_EQ(now.c_lflag & (ECHO | ICANON | IEXTEN | ISIG), 0u);
  EXPECT_EQ(now.c_iflag & (ICRNL | IXON | ISTRIP), 0u);
  EXPECT_NE(now.c_oflag & OPOST, 0u);
}

TEST_F(TerminalTest, SignalsCanStay) {
  ASSERT_TRUE(make_terminal_raw(slave.get(), true));

  EXPECT_NE(modes().c_lflag & ISIG, 0u);
}

TEST_F(TerminalTest, RestorePutsTheModesBack) {
  const termios before = modes();
  ASSERT_TRUE(make_terminal_raw(slave.get(), false));
  ASSERT_TRUE(make_terminal_raw(slave.get(), true));

  restore_terminal();

  const termios after = modes();
  EXPECT_EQ(after.c_lflag, before.c_lflag);
  EXPECT_EQ(after.c_iflag, before.c_iflag);
  EXPECT_EQ(after.c_cflag, before.c_cflag);
}

TEST_F(TerminalTest, WhatIsNoTerminalIsLeftAlone) {
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));

  EXPECT_TRUE(make_terminal_raw(null.get(), false));
  restore_terminal();

  EXPECT_TRUE(cooked());
}

TEST_F(TerminalTest, ExitRestores) {
  const int status = status_of_child([] { std::exit(3); });

  EXPECT_EQ(WEXITSTATUS(status), 3);
  EXPECT_TRUE(cooked());
}

TEST_F(TerminalTest, SignalsThatEndTheProcessRestoreAndStillEndIt) {
  for (const int signal : {SIGTERM, SIGSEGV, SIGFPE}) {
    const int status = status_of_child([signal] { ::kill(::getpid(), signal); });

    ASSERT_TRUE(WIFSIGNALED(status)) << signal;
    EXPECT_EQ(WTERMSIG(status), signal);
    EXPECT_TRUE(cooked()) << signal;
  }
}

TEST_F(TerminalTest, AbortRestores) {
  const int status = status_of_child([] { std::abort(); });

  EXPECT_EQ(WTERMSIG(status), SIGABRT);
  EXPECT_TRUE(cooked());
}

TEST_F(TerminalTest, FaultOfAnInstructionRestoresAndStillEndsTheProcess) {
  const int status = status_of_child([] { asm volatile("movq $0, 0" ::: "memory"); });

  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
  EXPECT_TRUE(cooked());
}

TEST_F(TerminalTest, HandlersOfOthersAreLeftAlone) {
  const int status = status_of_child([] {});  // proves that the child's way works without a signal

  EXPECT_EQ(WEXITSTATUS(status), 101);
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGSEGV, [](int) { ::_exit(42); });
    if (!make_terminal_raw(slave.get(), true)) ::_exit(100);
    ::raise(SIGSEGV);
    ::_exit(101);
  }
  int ended = 0;
  ASSERT_EQ(::waitpid(child, &ended, 0), child);
  EXPECT_EQ(WEXITSTATUS(ended), 42);
}

TEST_F(TerminalTest, StoppedProcessLeavesACookedTerminalAndTakesItBack) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setpgid(0, 0);  // watched by its parent, so that the stop is not ignored
    if (!make_terminal_raw(slave.get(), true)) ::_exit(100);
    ::raise(SIGTSTP);
    ::_exit(raw() ? 7 : 8);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  EXPECT_TRUE(cooked());

  ::kill(child, SIGCONT);
  ASSERT_EQ(::waitpid(child, &status, 0), child);

  EXPECT_EQ(WEXITSTATUS(status), 7);
}

}  // namespace
}  // namespace kite

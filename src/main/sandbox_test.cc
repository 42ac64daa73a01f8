#include "main/sandbox.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <thread>

namespace kite::main {
namespace {

// What `probe` answers in a process of its own that is in the sandbox.
int in_sandbox(const SandboxPolicy& policy, const std::function<int()>& probe) {
  constexpr int kNoSandbox = 99;
  const pid_t child = fork();
  if (child == 0) _exit(enter_sandbox(policy) ? probe() : kNoSandbox);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int error_of(bool good) { return good ? 0 : errno; }

TEST(Sandbox, WithoutSpawnThereAreThreadsAndNoProcesses) {
  EXPECT_EQ(in_sandbox({.spawn = true}, [] { return error_of(fork() >= 0); }), EPERM);
  EXPECT_EQ(in_sandbox({.spawn = true}, [] { return error_of(execl("/bin/true", "true", nullptr) == 0); }), EPERM);
  EXPECT_EQ(in_sandbox({.spawn = true},
                       [] {
                         int value = 0;
                         std::thread([&value] { value = 7; }).join();
                         return value;
                       }),
            7);
}

TEST(Sandbox, DeniesWhatWasAskedForAlone) {
  const auto lower_priority = [] { return error_of(setpriority(PRIO_PROCESS, 0, 5) == 0); };
  const auto become_self = [] { return error_of(setuid(getuid()) == 0); };
  EXPECT_EQ(in_sandbox({.resource_control = true}, lower_priority), EPERM);
  EXPECT_EQ(in_sandbox({}, lower_priority), 0);
  EXPECT_EQ(in_sandbox({.elevate_privileges = true}, become_self), EPERM);
  EXPECT_EQ(in_sandbox({}, become_self), 0);
}

}  // namespace
}  // namespace kite::main

#include "net/program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

extern char** environ;

namespace kite::net {

namespace {

constexpr int kPatienceMs = 60'000;
constexpr size_t kMostSaid = 1024;  // bytes

// What a process that cannot have rights of its own should know.
std::string_view sandbox_hint() {
  constexpr int kFilter = 2;  // [prctl(2)] PR_GET_SECCOMP
  if (::prctl(PR_GET_SECCOMP) == kFilter) return "; -sandbox keeps programs from being started, or from root's rights";
  return "";
}

Result<pid_t> start(const std::vector<std::string>& arguments, int output, int given) {
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
  if (given >= 0) ::posix_spawn_file_actions_adddup2(&actions, given, kHelperSocket);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, given >= 0 ? kHelperSocket + 1 : kHelperSocket);
  // Its signals are as a shell would leave them.
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t child = 0;
  const int error = ::posix_spawn(&child, pointers[0], &actions, &attributes, pointers.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0)
    return fail("cannot start '{}': {}{}", arguments[0], errno_text(error), error == EPERM ? sandbox_hint() : "");
  return child;
}

// What the pipe has, of which the beginning is kept; 0 at its end.
ssize_t read_said(int pipe, std::string& said) {
  std::array<char, 512> bytes;
  const ssize_t got = ::read(pipe, bytes.data(), bytes.size());
  if (got > 0) said.append(bytes.data(), std::min(static_cast<size_t>(got), kMostSaid - said.size()));
  return got;
}

// Reads what the program says until it has ended; something that it left running does not hold that up. False when it
// does not end in time.
bool wait_for_end(int process, int pipe, std::string& said) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::milliseconds(kPatienceMs);
  std::array entries{pollfd{.fd = process, .events = POLLIN, .revents = 0},
                     pollfd{.fd = pipe, .events = POLLIN, .revents = 0}};
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    if (::poll(entries.data(), entries.size(), static_cast<int>(left)) <= 0) continue;
    if (entries[1].revents != 0 && read_said(pipe, said) == 0) entries[1].fd = -1;
    if (entries[0].revents != 0) break;
  }
  constexpr int kMostReads = 64;
  for (int count = 0; count < kMostReads && read_said(pipe, said) > 0; ++count) {
  }
  return true;
}

std::string one_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  for (char& letter : text)
    if (static_cast<unsigned char>(letter) < 0x20) letter = ' ';
  return text;
}

std::string ending(int status) {
  return WIFSIGNALED(status) ? fmt::format("was ended by signal {}", WTERMSIG(status))
                             : fmt::format("ended with status {}", WEXITSTATUS(status));
}

// A descriptor that waits in the socket, if one does.
Fd take_descriptor(int socket) {
  char byte = 0;
  iovec data{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  if (::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0) return {};
  const cmsghdr* const part = CMSG_FIRSTHDR(&message);
  if (part == nullptr || part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS ||
      part->cmsg_len != CMSG_LEN(sizeof(int)))
    return {};
  int number = -1;
  std::memcpy(&number, CMSG_DATA(part), sizeof number);
  return Fd(number);
}

}  // namespace

Result<std::string> run_program(const std::vector<std::string>& arguments, Fd given) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail("cannot start '{}': {}", arguments[0], errno_text(errno));
  const Fd ours(ends[0]);
  Fd theirs(ends[1]);
  ::fcntl(ours.get(), F_SETFL, O_NONBLOCK);
  KITE_ASSIGN(const pid_t child, start(arguments, theirs.get(), given.get()));
  theirs.reset();
  given.reset();
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  std::string said;
  const bool ended = wait_for_end(process.get(), ours.get(), said);
  if (!ended) ::kill(child, SIGKILL);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  said = one_line(std::move(said));
  if (ended && status == 0) return said;
  return fail("'{}' {}{}{}{}", arguments[0], ended ? ending(status) : "did not end within a minute",
              said.empty() ? "" : ": ", said, sandbox_hint());
}

Result<Fd> run_bridge_helper(const std::string& helper, const std::string& bridge) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return fail("cannot start '{}': {}", helper, errno_text(errno));
  const Fd ours(ends[0]);
  Fd theirs(ends[1]);
  const std::string socket = fmt::format("--fd={}", kHelperSocket), where = fmt::format("--br={}", bridge);
  std::vector<std::string> arguments{helper, "--use-vnet", socket, where};
  if (helper.find_first_of(" \t") != std::string::npos) {
    const bool named = helper.find("--br=") != std::string::npos;
    arguments = {"/bin/sh", "-c", fmt::format("{} --use-vnet {} {}", helper, socket, named ? "" : where)};
  }
  auto ran = run_program(arguments, std::move(theirs));
  if (!ran) return fail("the bridge helper: {}", ran.error().message);
  Fd tap = take_descriptor(ours.get());
  if (!tap.valid()) return fail("the bridge helper '{}' ended well, but sent no descriptor", helper);
  return tap;
}

}  // namespace kite::net

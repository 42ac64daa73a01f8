#include "display/spice/spice_forker.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "display/spice/spice_process.h"

namespace kite::display {

namespace {

// One byte and a descriptor; the answer is a process id, or an error number below 0.
struct Envelope {
  char byte = 0;
  iovec part{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{.msg_name = nullptr,
                 .msg_namelen = 0,
                 .msg_iov = &part,
                 .msg_iovlen = 1,
                 .msg_control = control,
                 .msg_controllen = sizeof control,
                 .msg_flags = 0};
};

bool send_link(int channel, int link) {
  Envelope envelope;
  cmsghdr* const header = CMSG_FIRSTHDR(&envelope.message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof link);
  std::memcpy(CMSG_DATA(header), &link, sizeof link);
  return ::sendmsg(channel, &envelope.message, MSG_NOSIGNAL) == 1;
}

// -1: the other side has ended.
int receive_link(int channel) {
  Envelope envelope;
  ssize_t got = 0;
  do got = ::recvmsg(channel, &envelope.message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  const cmsghdr* const header = got == 1 ? CMSG_FIRSTHDR(&envelope.message) : nullptr;
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return -1;
  int link = -1;
  std::memcpy(&link, CMSG_DATA(header), sizeof link);
  return link;
}

[[noreturn]] void become_server(int link) {
  if (link == kSpiceProcessLink)
    ::fcntl(link, F_SETFD, 0);
  else
    ::dup2(link, kSpiceProcessLink);
  char name[] = "kite", argument[sizeof kSpiceProcessArgument];
  std::memcpy(argument, kSpiceProcessArgument, sizeof argument);
  char* const arguments[] = {name, argument, nullptr};
  ::execv("/proc/self/exe", arguments);
  ::_exit(127);
}

[[noreturn]] void fork_for_others(int channel) {
  ::setsid();  // signals of the terminal are not for this process
  // What it has of the machine's goes: who waits for the machine's end must not wait for this one.
  const auto own = static_cast<unsigned>(channel);
  if (own > STDERR_FILENO + 1) ::close_range(STDERR_FILENO + 1, own - 1, 0);
  ::close_range(own + 1, ~0u, 0);
  for (;;) {
    const int link = receive_link(channel);
    if (link < 0) ::_exit(0);
    const auto pid =
        static_cast<pid_t>(::syscall(SYS_clone, CLONE_PARENT | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
    if (pid == 0) become_server(link);
    const pid_t answer = pid > 0 ? pid : -errno;
    ::close(link);
    if (::send(channel, &answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer) ::_exit(0);
  }
}

}  // namespace

Result<SpiceForker> SpiceForker::start() {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return fail("no socket pair for the SPICE server: {}", errno_text(errno));
  Fd here(ends[0]), there(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return fail("no process for the SPICE server: {}", errno_text(errno));
  if (pid == 0) fork_for_others(there.get());
  return SpiceForker(std::move(here), pid);
}

SpiceForker::SpiceForker(SpiceForker&& other) noexcept
    : channel_(std::move(other.channel_)), pid_(std::exchange(other.pid_, -1)) {}

SpiceForker& SpiceForker::operator=(SpiceForker&& other) noexcept {
  std::swap(channel_, other.channel_);
  std::swap(pid_, other.pid_);
  return *this;
}

SpiceForker::~SpiceForker() {
  if (pid_ < 0) return;
  channel_.reset();
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<pid_t> SpiceForker::spawn(const Fd& link) {
  pid_t answer = -EPIPE;
  ssize_t got = -1;
  if (send_link(channel_.get(), link.get())) {
    do got = ::recv(channel_.get(), &answer, sizeof answer, 0);
    while (got < 0 && errno == EINTR);
  }
  if (got != sizeof answer) answer = -EPIPE;
  if (answer < 0) return fail("cannot start the process of the SPICE server: {}", errno_text(-answer));
  return answer;
}

}  // namespace kite::display

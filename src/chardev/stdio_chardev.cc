#include "chardev/stdio_chardev.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>

#include "chardev/terminal.h"

namespace kite {
namespace {

// Other processes share the descriptors that we were started with, and O_NONBLOCK is a flag of what is shared. A
// terminal or pipe can be opened anew, with a flag of our own; else the descriptor stays as it is.
Fd open_anew(int fd, int mode) {
  struct stat info{};
  if (::fstat(fd, &info) != 0 || !(S_ISCHR(info.st_mode) || S_ISFIFO(info.st_mode))) return Fd();
  return Fd(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

bool is_type(int fd, mode_t type) {
  struct stat info{};
  return ::fstat(fd, &info) == 0 && (info.st_mode & S_IFMT) == type;
}

}  // namespace

StdioChardev::StdioChardev(std::string id, Executor& executor, Fd log, Fd input, Fd output)
    : StreamChardev(std::move(id), executor, std::move(log)), input_(std::move(input)), output_(std::move(output)) {}

Result<std::unique_ptr<StdioChardev>> StdioChardev::create(std::string id, Executor& executor, Fd log, Config config) {
  KITE_TRY(make_terminal_raw(config.input, config.signals));
  Fd input = open_anew(config.input, O_RDONLY);
  Fd output = open_anew(config.output, O_WRONLY);
  Output kind = Output::kNonblocking;
  if (!output.valid()) {
    kind = is_type(config.output, S_IFSOCK)  ? Output::kSocket
           : is_type(config.output, S_IFREG) ? Output::kNonblocking
                                             : Output::kBlocking;
    output.reset(::fcntl(config.output, F_DUPFD_CLOEXEC, 3));
  }
  // A read that follows epoll's word finds something there.
  if (!input.valid()) input.reset(::fcntl(config.input, F_DUPFD_CLOEXEC, 3));
  if (!output.valid() && errno != EBADF) return fail("cannot take the standard output: {}", errno_text(errno));
  std::unique_ptr<StdioChardev> stdio(
      new StdioChardev(std::move(id), executor, std::move(log), std::move(input), std::move(output)));
  stdio->connect(stdio->input_.get(), stdio->output_.get(), kind);
  return stdio;
}

// A socket has no description of our own, and its flags are others' too: who reads on must not wait.
ssize_t StdioChardev::receive(int fd, std::span<uint8_t> buffer) {
  const ssize_t count = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
  return count < 0 && errno == ENOTSOCK ? ::read(fd, buffer.data(), buffer.size()) : count;
}

StdioChardev::~StdioChardev() {
  flush();
  shut_down();
  restore_terminal();
}

}  // namespace kite

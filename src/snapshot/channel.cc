#include "snapshot/channel.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <thread>

#include "support/suggest.h"

extern char** environ;

namespace kite::snapshot {

namespace {

constexpr int kLookMs = 50;  // how often a wait looks whether it was cancelled

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

bool is_socket_fd(int fd) {
  struct stat facts{};
  return ::fstat(fd, &facts) == 0 && S_ISSOCK(facts.st_mode);
}

// A shell with one end of a pair as its standard input (or output), and the other end.
Result<std::unique_ptr<Channel>> run_program(const std::string& command, bool program_reads) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail("exec:{}: {}", command, errno_text(errno));
  Fd ours(ends[program_reads ? 1 : 0]), theirs(ends[program_reads ? 0 : 1]);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), program_reads ? STDIN_FILENO : STDOUT_FILENO);
  // A group of its own, so that all of it can be ended; no signal of ours blocked.
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  std::string shell = "/bin/sh", option = "-c", text = command;
  char* const arguments[] = {shell.data(), option.data(), text.data(), nullptr};
  pid_t child = 0;
  const int error = ::posix_spawn(&child, shell.c_str(), &actions, &attributes, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return fail("exec:{}: cannot run a shell: {}", command, errno_text(error));
  return std::make_unique<Channel>(std::move(ours), child);
}

Result<SocketAddress> tcp_address(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon + 1 == text.size())
    return fail("'tcp:{}' names no port; write tcp:HOST:PORT", text);
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return SocketAddress{.host = std::string(host), .port = std::string(text.substr(colon + 1))};
}

}  // namespace

Result<ChannelAddress> parse_channel(std::string_view uri) {
  constexpr std::array<std::string_view, 5> kKinds = {"tcp", "unix", "exec", "file", "fd"};
  const size_t colon = uri.find(':');
  const std::string_view kind = uri.substr(0, colon);
  const std::string_view rest = colon == std::string_view::npos ? "" : uri.substr(colon + 1);
  if (std::ranges::find(kKinds, kind) == kKinds.end())
    return fail("'{}': '{}' is no way for a machine to travel{}", uri, kind, suggestion(kind, kKinds));
  if (rest.empty()) return fail("'{}' names nothing behind '{}:'", uri, kind);
  using Kind = ChannelAddress::Kind;
  if (kind == "tcp") {
    KITE_ASSIGN(SocketAddress address, tcp_address(rest));
    return ChannelAddress{.kind = Kind::kSocket, .socket = std::move(address)};
  }
  if (kind == "unix") return ChannelAddress{.kind = Kind::kSocket, .socket = {.path = std::string(rest)}};
  return ChannelAddress{.kind = kind == "exec"   ? Kind::kExec
                                : kind == "file" ? Kind::kFile
                                                 : Kind::kFd,
                        .text = std::string(rest)};
}

// --- Channel

Channel::Channel(Fd fd, pid_t child) : fd_(std::move(fd)), child_(child), socket_(is_socket_fd(fd_.get())) {
  ::fcntl(fd_.get(), F_SETFL, ::fcntl(fd_.get(), F_GETFL) | O_NONBLOCK);
}

// A program that was not finished with is ended, not waited for.
Channel::~Channel() {
  if (child_ == 0) return;
  ::kill(-child_, SIGKILL);
  ::waitpid(child_, nullptr, 0);
}

Result<> Channel::wait(short events) const {
  while (!cancelled()) {
    pollfd entry{.fd = fd_.get(), .events = events, .revents = 0};
    if (::poll(&entry, 1, kLookMs) != 0) return {};
  }
  return fail("it was cancelled");
}

// The limit holds over windows of a tenth of a second.
void Channel::wait_turn(size_t bytes) {
  constexpr int64_t kWindowNs = 100'000'000;
  const uint64_t limit = limit_.load(std::memory_order_relaxed);
  if (const int64_t now = now_ns(); now - window_began_ns_ >= kWindowNs) {
    window_began_ns_ = now;
    in_window_ = 0;
  }
  in_window_ += bytes;
  if (limit == 0 || in_window_ <= std::max<uint64_t>(limit / 10, 1)) return;
  std::this_thread::sleep_for(std::chrono::nanoseconds(window_began_ns_ + kWindowNs - now_ns()));
}

Result<> Channel::write(std::span<const uint8_t> bytes) {
  wait_turn(bytes.size());
  while (!bytes.empty()) {
    KITE_TRY(wait(POLLOUT));
    const ssize_t moved = ::write(fd_.get(), bytes.data(), bytes.size());
    if (moved >= 0)
      bytes = bytes.subspan(static_cast<size_t>(moved));
    else if (errno != EAGAIN && errno != EINTR)
      return fail("writing the machine's state: {}", errno_text(errno));
  }
  return {};
}

Result<> Channel::read(std::span<uint8_t> to) {
  while (!to.empty()) {
    KITE_TRY(wait(POLLIN));
    const ssize_t moved = ::read(fd_.get(), to.data(), to.size());
    if (moved == 0) return fail("the machine's state ends in the middle");
    if (moved > 0)
      to = to.subspan(static_cast<size_t>(moved));
    else if (errno != EAGAIN && errno != EINTR)
      return fail("reading the machine's state: {}", errno_text(errno));
  }
  return {};
}

std::string Channel::read_text(size_t most) {
  std::string text;
  uint8_t letter = 0;
  while (text.size() < most && read({&letter, 1})) text += letter >= 0x20 ? static_cast<char>(letter) : ' ';
  return text;
}

Result<> Channel::finish() {
  // A file is what was written only once the disk has it.
  if (!socket_ && child_ == 0 && ::fsync(fd_.get()) != 0 && errno != EINVAL && errno != EROFS)
    return fail("writing the machine's state: {}", errno_text(errno));
  if (child_ == 0) return {};
  fd_.reset();
  int status = 0;
  for (pid_t ended = 0; ended == 0; ended = ::waitpid(child_, &status, WNOHANG)) {
    if (cancelled()) return fail("it was cancelled");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  child_ = 0;
  if (status == 0) return {};
  return WIFEXITED(status) ? fail("the program ended with status {}", WEXITSTATUS(status))
                           : fail("the program was ended by signal {}", WTERMSIG(status));
}

Result<std::unique_ptr<Channel>> open_outgoing(const ChannelAddress& address, Fd fd) {
  switch (address.kind) {
    case ChannelAddress::Kind::kSocket: {
      KITE_ASSIGN(const std::vector<Endpoint> endpoints, resolve(address.socket, false));
      KITE_ASSIGN(fd, connect_to(address.socket, endpoints));
      return std::make_unique<Channel>(std::move(fd));
    }
    case ChannelAddress::Kind::kExec: return run_program(address.text, true);
    case ChannelAddress::Kind::kFile:
      fd.reset(::open(address.text.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
      if (!fd.valid()) return fail("file:{}: {}", address.text, errno_text(errno));
      return std::make_unique<Channel>(std::move(fd));
    case ChannelAddress::Kind::kFd: break;
  }
  if (!fd.valid()) return fail("fd:{}: there is no such descriptor", address.text);
  return std::make_unique<Channel>(std::move(fd));
}

// --- Listener

Result<std::unique_ptr<Listener>> Listener::create(ChannelAddress address, Fd fd) {
  std::unique_ptr<Listener> made(new Listener(std::move(address)));
  const ChannelAddress& where = made->address_;
  if (where.kind == ChannelAddress::Kind::kSocket) {
    KITE_ASSIGN(const std::vector<Endpoint> endpoints, resolve(where.socket, true));
    KITE_ASSIGN(made->fd_, listen_on(where.socket, endpoints));
  } else if (where.kind == ChannelAddress::Kind::kFile) {
    made->fd_.reset(::open(where.text.c_str(), O_RDONLY | O_CLOEXEC));
    if (!made->fd_.valid()) return fail("file:{}: {}", where.text, errno_text(errno));
  } else if (where.kind == ChannelAddress::Kind::kFd) {
    if (!fd.valid()) return fail("fd:{}: there is no such descriptor", where.text);
    made->fd_ = std::move(fd);
  }
  return made;
}

Result<std::unique_ptr<Channel>> Listener::accept() {
  if (address_.kind == ChannelAddress::Kind::kExec) return run_program(address_.text, false);
  if (address_.kind != ChannelAddress::Kind::kSocket) return std::make_unique<Channel>(std::move(fd_));
  while (!cancelled_.load(std::memory_order_acquire)) {
    pollfd entry{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, kLookMs) <= 0) continue;
    Fd peer(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!peer.valid()) continue;
    fd_.reset();  // one machine comes in once
    return std::make_unique<Channel>(std::move(peer));
  }
  return fail("nobody has sent a machine");
}

}  // namespace kite::snapshot

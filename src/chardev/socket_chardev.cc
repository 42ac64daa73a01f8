#include "chardev/socket_chardev.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "support/log.h"

namespace kite {
namespace {

constexpr int64_t kRetryAcceptNs = 1'000'000'000;
constexpr size_t kMostFds = 16;  // descriptors taken with one read

int socket_option(int fd, int option) {
  int value = -1;
  socklen_t length = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
}

}  // namespace

SocketChardev::SocketChardev(std::string id, Executor& executor, Fd log, Clock& clock, Config config)
    : StreamChardev(std::move(id), executor, std::move(log)),
      config_(std::move(config)),
      later_(clock, [this] { config_.server ? listen_again() : start_connecting(); }) {}

Result<std::unique_ptr<SocketChardev>> SocketChardev::create(std::string id, Executor& executor, Fd log, Clock& clock,
                                                             Config config) {
  std::unique_ptr<SocketChardev> socket(
      new SocketChardev(std::move(id), executor, std::move(log), clock, std::move(config)));
  KITE_TRY(socket->start());
  return socket;
}

SocketChardev::~SocketChardev() {
  shut_down();
  if (connecting_.valid()) executor().unwatch(connecting_.get());
  if (listener_.valid()) executor().unwatch(listener_.get());
  const bool made_file = config_.server && config_.fd < 0 && config_.address.is_unix() && !config_.address.abstract;
  if (made_file && listener_.valid()) ::unlink(config_.address.path.c_str());
}

Result<> SocketChardev::start() {
  if (config_.fd >= 0) {
    KITE_TRY(adopt_fd());
  } else {
    where_ = config_.address.text();
    KITE_ASSIGN(endpoints_, resolve(config_.address, config_.server));
    if (config_.server) {
      KITE_ASSIGN(listener_, listen_on(config_.address, endpoints_));
      if (!config_.address.is_unix()) where_ = "tcp:" + local_text(listener_.get());  // port 0 has become a real one
    }
  }
  if (config_.server) {
    executor().watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept_peer(); });
  } else if (config_.fd < 0 && config_.reconnect_ns != 0) {
    start_connecting();
  } else if (config_.fd < 0) {
    KITE_ASSIGN(Fd peer, connect_to(config_.address, endpoints_));
    take_peer(std::move(peer));
  }
  return {};
}

Result<> SocketChardev::adopt_fd() {
  const int fd = config_.fd;
  where_ = fmt::format("fd:{}", fd);
  if (socket_option(fd, SO_TYPE) != SOCK_STREAM)
    return fail("fd={} is no stream socket that this process has open", fd);
  const bool listening = socket_option(fd, SO_ACCEPTCONN) == 1;
  if (config_.server && !listening) return fail("fd={} does not listen; leave server=on out", fd);
  if (!config_.server && listening) return fail("fd={} is a listening socket; add server=on", fd);
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  if (config_.server) {
    listener_.reset(fd);
  } else {
    take_peer(Fd(fd));
  }
  return {};
}

std::string SocketChardev::filename() const {
  std::string text = is_open() ? "" : "disconnected:";
  text += where_;
  if (config_.server) text += ",server=on";
  if (is_open()) {
    if (const std::string peer = peer_text(peer_.get()); !peer.empty()) text += " <-> " + peer;
  }
  return text;
}

// --- peers come and go ---

void SocketChardev::listen_again() { executor().modify(listener_.get(), EPOLLIN); }

void SocketChardev::accept_peer() {
  Fd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (peer.valid()) {
    executor().modify(listener_.get(), 0);  // the next one waits in the backlog
    take_peer(std::move(peer));
  } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
    log::warn("chardev '{}': cannot accept a connection: {}", id(), errno_text(errno));
    executor().modify(listener_.get(), 0);
    try_later(kRetryAcceptNs);
  }
}

void SocketChardev::start_connecting() {
  endpoint_ = 0;
  try_endpoint();
}

// Tries the endpoints from `endpoint_` on, without waiting for any.
void SocketChardev::try_endpoint() {
  for (; endpoint_ < endpoints_.size(); ++endpoint_) {
    const Endpoint& endpoint = endpoints_[endpoint_];
    Fd socket = make_socket(endpoint);
    if (!socket.valid()) continue;
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&endpoint.address), endpoint.length) == 0) {
      return take_peer(std::move(socket));
    }
    if (errno == EINPROGRESS) {
      connecting_ = std::move(socket);
      executor().watch(connecting_.get(), EPOLLOUT, [this](uint32_t) { connection_ready(); });
      return;
    }
  }
  try_later(config_.reconnect_ns);
}

void SocketChardev::connection_ready() {
  executor().unwatch(connecting_.get());
  Fd socket = std::move(connecting_);
  if (socket_option(socket.get(), SO_ERROR) == 0) return take_peer(std::move(socket));
  ++endpoint_;
  try_endpoint();
}

void SocketChardev::try_later(int64_t ns) { later_.arm_at(later_.clock().now() + ns); }

void SocketChardev::take_peer(Fd peer) {
  peer_ = std::move(peer);
  peer_leaving_ = false;
  const int on = 1;
  if (config_.no_delay) ::setsockopt(peer_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // unix sockets refuse it
  connect(peer_.get(), peer_.get(), Output::kSocket);
}

void SocketChardev::lose_peer() {
  if (!is_open()) return;
  disconnect();
  peer_.reset();
  fds_.clear();
  if (config_.server) {
    listen_again();
  } else if (config_.reconnect_ns != 0 && config_.fd < 0) {
    try_later(config_.reconnect_ns);
  }
}

void SocketChardev::wait_for_peer() {
  sigset_t endings;
  ::sigemptyset(&endings);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaddset(&endings, signal);
  // Only looked at, never read: whoever handles the blocked signals still gets them.
  const Fd pending(::signalfd(-1, &endings, SFD_CLOEXEC | SFD_NONBLOCK));
  while (!is_open()) {
    std::array<pollfd, 2> ready{pollfd{.fd = listener_.get(), .events = POLLIN, .revents = 0},
                                pollfd{.fd = pending.get(), .events = POLLIN, .revents = 0}};
    if (::poll(ready.data(), ready.size(), -1) < 0 && errno != EINTR) return;
    if (ready[1].revents != 0) return;
    if (ready[0].revents != 0) accept_peer();
  }
}

// --- what a socket can do besides ---

uint32_t SocketChardev::extra_input_events() const { return peer_leaving_ ? 0u : static_cast<uint32_t>(EPOLLRDHUP); }

void SocketChardev::extra_input_event() {
  if (client() == nullptr) return lose_peer();
  peer_leaving_ = true;  // the client gets the rest when it takes input again, and then the end
}

ssize_t SocketChardev::receive(int fd, std::span<uint8_t> buffer) {
  iovec data{.iov_base = buffer.data(), .iov_len = buffer.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMostFds * sizeof(int))> control;
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t count = ::recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0) return count;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    fds_.clear();  // those that nobody took
    const size_t total = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < total; ++i) {
      int received = -1;
      std::memcpy(&received, CMSG_DATA(part) + i * sizeof(int), sizeof received);
      fds_.emplace_back(received);
    }
  }
  return count;
}

}  // namespace kite

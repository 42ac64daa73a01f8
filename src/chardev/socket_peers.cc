#include "chardev/socket_peers.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <cerrno>

#include "support/log.h"

namespace kite {
namespace {

constexpr int64_t kRetryAcceptNs = 1'000'000'000;

int socket_option(int fd, int option) {
  int value = -1;
  socklen_t length = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
}

}  // namespace

SocketPeers::SocketPeers(Config config, Wiring wiring)
    : config_(std::move(config)),
      wiring_(std::move(wiring)),
      later_(wiring_.clock, [this] { config_.server ? listen_again() : start_connecting(); }) {}

SocketPeers::~SocketPeers() {
  if (connecting_.valid()) wiring_.executor.unwatch(connecting_.get());
  if (listener_.valid()) wiring_.executor.unwatch(listener_.get());
  const bool made_file = config_.server && config_.fd < 0 && config_.address.is_unix() && !config_.address.abstract;
  if (made_file && listener_.valid()) ::unlink(config_.address.path.c_str());
}

Result<> SocketPeers::start(Connect connect) {
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
    wiring_.executor.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept(); });
  } else if (config_.fd < 0 && (config_.reconnect_ns != 0 || connect == Connect::kGoOn)) {
    start_connecting();
    if (over_) return fail("cannot connect to '{}': {}", where_, errno_text(error_));
  } else if (config_.fd < 0) {
    KITE_ASSIGN(Fd peer, connect_to(config_.address, endpoints_));
    wiring_.arrived(std::move(peer));
  }
  return {};
}

Result<> SocketPeers::adopt_fd() {
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
    wiring_.arrived(Fd(fd));
  }
  return {};
}

void SocketPeers::left() {
  if (config_.server) {
    listen_again();
  } else if (config_.reconnect_ns != 0 && config_.fd < 0) {
    try_later(config_.reconnect_ns);
  }
}

void SocketPeers::listen_again() { wiring_.executor.modify(listener_.get(), EPOLLIN); }

void SocketPeers::accept() {
  Fd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (peer.valid()) {
    wiring_.executor.modify(listener_.get(), 0);  // the next one waits in the backlog
    wiring_.arrived(std::move(peer));
  } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
    log::warn("{}: cannot accept a connection: {}", wiring_.who, errno_text(errno));
    wiring_.executor.modify(listener_.get(), 0);
    try_later(kRetryAcceptNs);
  }
}

void SocketPeers::start_connecting() {
  endpoint_ = 0;
  try_endpoint();
}

// Tries the endpoints from `endpoint_` on, without waiting for any.
void SocketPeers::try_endpoint() {
  for (; endpoint_ < endpoints_.size(); ++endpoint_) {
    const Endpoint& endpoint = endpoints_[endpoint_];
    Fd socket = make_socket(endpoint);
    if (socket.valid() && ::connect(socket.get(), endpoint.generic(), endpoint.length) == 0)
      return wiring_.arrived(std::move(socket));
    error_ = errno;
    if (socket.valid() && error_ == EINPROGRESS) {
      connecting_ = std::move(socket);
      wiring_.executor.watch(connecting_.get(), EPOLLOUT, [this](uint32_t) { connection_ready(); });
      return;
    }
  }
  over_ = config_.reconnect_ns == 0;
  if (!over_) try_later(config_.reconnect_ns);
}

void SocketPeers::connection_ready() {
  wiring_.executor.unwatch(connecting_.get());
  Fd socket = std::move(connecting_);
  error_ = socket_option(socket.get(), SO_ERROR);
  if (error_ == 0) return wiring_.arrived(std::move(socket));
  ++endpoint_;
  try_endpoint();
  if (over_ && wiring_.gave_up) wiring_.gave_up(error_);
}

void SocketPeers::try_later(int64_t ns) { later_.arm_at(later_.clock().now() + ns); }

}  // namespace kite

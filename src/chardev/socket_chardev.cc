#include "chardev/socket_chardev.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

namespace kite {
namespace {

constexpr size_t kMostFds = 16;  // descriptors taken with one read

}  // namespace

SocketChardev::SocketChardev(std::string id, Executor& executor, Fd log, Clock& clock, Config config)
    : StreamChardev(std::move(id), executor, std::move(log)),
      clock_(clock),
      wait_(config.wait),
      no_delay_(config.no_delay),
      credentials_(std::move(config.credentials)),
      peers_(std::move(config.peers), {.executor = executor,
                                       .clock = clock,
                                       .who = fmt::format("chardev '{}'", this->id()),
                                       .arrived = [this](Fd peer) { take_peer(std::move(peer)); }}) {}

Result<std::unique_ptr<SocketChardev>> SocketChardev::create(std::string id, Executor& executor, Fd log, Clock& clock,
                                                             Config config) {
  std::unique_ptr<SocketChardev> socket(
      new SocketChardev(std::move(id), executor, std::move(log), clock, std::move(config)));
  KITE_TRY(socket->peers_.start(SocketPeers::Connect::kWait));
  return socket;
}

SocketChardev::~SocketChardev() { shut_down(); }

std::string SocketChardev::filename() const {
  std::string text = is_open() ? "" : "disconnected:";
  text += peers_.where();
  if (peers_.config().server) text += ",server=on";
  if (is_open() && !peer_text_.empty()) text += " <-> " + peer_text_;
  return text;
}

// --- peers come and go ---

void SocketChardev::take_peer(Fd peer) {
  const int on = 1;
  if (no_delay_) ::setsockopt(peer.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // unix sockets refuse it
  peer_text_ = peer_text(peer.get());
  credentials_ == nullptr ? begin(std::move(peer)) : begin_tunnel(std::move(peer));
}

void SocketChardev::begin(Fd peer) {
  peer_ = std::move(peer);
  peer_leaving_ = false;
  connect(peer_.get(), peer_.get(), Output::kSocket);
}

void SocketChardev::lose_peer() {
  if (!is_open()) return;
  disconnect();
  peer_.reset();
  leaving_ = std::move(tunnel_);
  fds_.clear();
  peers_.left();
}

// --- TLS

void SocketChardev::begin_tunnel(Fd peer) {
  tls::Tunnel::Wiring wiring{
      .executor = executor(),
      .clock = clock_,
      .ready = [this](const std::string&) { tunnel_ready(); },
      .ended = [this](const tls::Tunnel& tunnel, const std::string& why) { tunnel_ended(tunnel, why); }};
  auto made = tls::Tunnel::create(std::move(wiring), std::move(peer), credentials_, peers_.config().address.host);
  if (!made) return tunnel_failed(made.error().message);
  tunnel_ = std::move(*made);
}

void SocketChardev::tunnel_ready() {
  auto ends = tls::Tunnel::make_ends();
  if (!ends) return tunnel_failed(ends.error().message);
  tunnel_->carry(std::move((*ends)[0]));
  begin(std::move((*ends)[1]));
}

void SocketChardev::tunnel_ended(const tls::Tunnel& tunnel, const std::string& why) {
  if (&tunnel == leaving_.get()) return leaving_.reset();
  if (is_open()) return tunnel_.reset();  // the plain end says the rest
  tunnel_failed(why);
}

void SocketChardev::tunnel_failed(const std::string& why) {
  if (failures_.pass())
    log::warn("chardev '{}': no TLS with {}: {}", id(), peer_text_.empty() ? peers_.where() : peer_text_, why);
  tunnel_.reset();
  peers_.left();
}

int SocketChardev::send_waiting() {
  const int waiting = StreamChardev::send_waiting();
  if (tunnel_ == nullptr) return waiting;
  tunnel_->go_on();
  return tunnel_ != nullptr && (waiting >= 0 || tunnel_->has_unsent()) ? tunnel_->socket() : -1;
}

void SocketChardev::wait_for_peer() {
  sigset_t endings;
  ::sigemptyset(&endings);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaddset(&endings, signal);
  // Only looked at, never read: whoever handles the blocked signals still gets them.
  const Fd pending(::signalfd(-1, &endings, SFD_CLOEXEC | SFD_NONBLOCK));
  while (!is_open()) {
    std::array<pollfd, 2> ready{pollfd{.fd = peers_.listener(), .events = POLLIN, .revents = 0},
                                pollfd{.fd = pending.get(), .events = POLLIN, .revents = 0}};
    int timeout_ms = -1;
    if (tunnel_ != nullptr) {
      ready[0].fd = tunnel_->socket();
      ready[0].events = tunnel_->awaited();
      timeout_ms =
          static_cast<int>(std::max<int64_t>(tunnel_->deadline().value_or(0) - clock_.now(), 0) / 1'000'000) + 1;
    }
    const int count = ::poll(ready.data(), ready.size(), timeout_ms);
    if ((count < 0 && errno != EINTR) || ready[1].revents != 0) return;
    if (count == 0) clock_.run_due();  // nobody else looks at it yet
    if (ready[0].revents != 0) tunnel_ != nullptr ? tunnel_->go_on() : peers_.accept();
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

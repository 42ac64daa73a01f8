#include "net/datagram_backend.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "support/log.h"

namespace kite::net {

namespace {

constexpr int64_t kRefusedAgainNs = 1'000'000;
constexpr int kMostRefusals = 32;  // then frames are dropped, as a wire does whose other end is not there

sockaddr_in ipv4_of(const Endpoint& endpoint) {
  sockaddr_in address{};
  std::memcpy(&address, &endpoint.address, sizeof address);
  return address;
}

bool is_group(const sockaddr_in& address) {
  return address.sin_family == AF_INET && IN_MULTICAST(ntohl(address.sin_addr.s_addr));
}

Result<Endpoint> first_endpoint(const SocketAddress& address, bool server) {
  KITE_ASSIGN(const std::vector<Endpoint> endpoints, resolve(address, server));
  return endpoints.front();
}

}  // namespace

bool is_multicast(const SocketAddress& address) {
  in_addr number{};
  return ::inet_pton(AF_INET, address.host.c_str(), &number) == 1 && IN_MULTICAST(ntohl(number.s_addr));
}

DatagramBackend::DatagramBackend(std::string id, Executor& executor, Clock& clock, const DatagramConfig& config)
    : NetBackend(std::move(id), config.type, executor),
      config_(config),
      datagram_(kMostFrameBytes + 1),  // one that is longer shows
      again_(clock, [this] { room_to_send(); }) {}

Result<std::unique_ptr<DatagramBackend>> DatagramBackend::create(std::string id, Executor& executor, Clock& clock,
                                                                 const DatagramConfig& config) {
  std::unique_ptr<DatagramBackend> made(new DatagramBackend(std::move(id), executor, clock, config));
  KITE_TRY(made->open());
  return made;
}

DatagramBackend::~DatagramBackend() {
  if (sender_.valid()) executor().unwatch(sender_.get());
  if (!socket_.valid()) return;
  executor().unwatch(socket_.get());
  const bool made_file = config_.fd < 0 && config_.local && config_.local->is_unix() && !config_.local->abstract;
  if (made_file) ::unlink(config_.local->path.c_str());
}

Result<> DatagramBackend::open() {
  if (config_.remote) {
    KITE_ASSIGN(to_, first_endpoint(*config_.remote, false));
  }
  if (config_.fd >= 0) {
    KITE_TRY(adopt_fd());
  } else if (config_.multicast) {
    KITE_TRY(join_group());
  } else {
    SocketAddress local = *config_.local;
    // "localhost" may be of either family, but both ends are of one.
    if (!local.is_unix()) (to_->address.ss_family == AF_INET6 ? local.ipv6 : local.ipv4) = true;
    KITE_ASSIGN(const std::vector<Endpoint> endpoints, resolve(local, true));
    KITE_ASSIGN(socket_, listen_on(local, endpoints));
  }
  executor().watch(socket_.get(), EPOLLIN, [this](uint32_t events) {
    if ((events & EPOLLOUT) != 0) room_to_send();
    read_frames();
    update_interest();
  });
  if (sender_.valid()) executor().watch(sender_.get(), 0, [this](uint32_t) { room_to_send(); });
  return {};
}

Result<> DatagramBackend::adopt_fd() {
  const int fd = config_.fd;
  int type = 0;
  socklen_t length = sizeof type;
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_DGRAM)
    return fail("descriptor {} is no datagram socket", fd);
  sockaddr_storage peer{};
  length = sizeof peer;
  if (!to_ && ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) != 0)
    return fail("descriptor {} is a datagram socket that is not connected; connect it to the other end before", fd);
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || ::fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
    return fail("descriptor {}: {}", fd, errno_text(errno));
  socket_.reset(fd);
  return {};
}

// One socket hears the group. Another one sends, so that its port tells our own frames from those of others on this
// host.
Result<> DatagramBackend::join_group() {
  const sockaddr_in group = ipv4_of(*to_);
  if (!is_group(group))
    return fail("'{}' is no multicast group of IPv4; those are 224.0.0.0 to 239.255.255.255", config_.remote->text());
  in_addr interface{.s_addr = INADDR_ANY};
  if (config_.local && ::inet_pton(AF_INET, config_.local->host.c_str(), &interface) != 1)
    return fail("'{}' is no IPv4 address of one of this host's interfaces", config_.local->host);
  socket_ = make_socket(*to_);
  sender_ = make_socket(*to_);
  const int on = 1;
  const ip_mreq membership{.imr_multiaddr = group.sin_addr, .imr_interface = interface};
  if (!socket_.valid() || !sender_.valid() ||
      ::setsockopt(socket_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(socket_.get(), to_->generic(), to_->length) != 0)
    return fail("cannot listen to '{}': {}", config_.remote->text(), errno_text(errno));
  if (::setsockopt(socket_.get(), IPPROTO_IP, IP_ADD_MEMBERSHIP, &membership, sizeof membership) != 0 ||
      ::setsockopt(sender_.get(), IPPROTO_IP, IP_MULTICAST_IF, &interface, sizeof interface) != 0 ||
      ::setsockopt(sender_.get(), IPPROTO_IP, IP_MULTICAST_LOOP, &on, sizeof on) != 0 ||
      ::connect(sender_.get(), to_->generic(), to_->length) != 0)
    return fail("cannot join the group '{}': {}; an interface has to lead there, or be named by its own address",
                config_.remote->text(), errno_text(errno));
  own_ = Endpoint{.address = {}, .length = sizeof(sockaddr_storage), .type = SOCK_DGRAM};
  ::getsockname(sender_.get(), reinterpret_cast<sockaddr*>(&own_->address), &own_->length);
  to_.reset();
  return {};
}

std::string DatagramBackend::info() const {
  std::string text = config_.fd >= 0 ? fmt::format("fd={}", config_.fd) : "";
  if (config_.multicast) return fmt::format("{}{}mcast={}", text, text.empty() ? "" : ",", config_.remote->text());
  if (config_.local) text = fmt::format("local={}", config_.local->text());
  return config_.remote ? fmt::format("{},remote={}", text, config_.remote->text()) : text;
}

// --- frames

void DatagramBackend::update_interest() {
  if (!socket_.valid()) return;
  const bool sends_here = full_ && !again_.armed() && !sender_.valid();
  executor().modify(socket_.get(), (backed_up() ? 0 : uint32_t{EPOLLIN}) | (sends_here ? uint32_t{EPOLLOUT} : 0));
  if (sender_.valid()) executor().modify(sender_.get(), full_ ? uint32_t{EPOLLOUT} : 0);
}

void DatagramBackend::read_frames() {
  constexpr int kFramesATime = 64;  // others have their turn
  for (int count = 0; count < kFramesATime && !backed_up(); ++count) {
    Endpoint from{.address = {}, .length = sizeof(sockaddr_storage), .type = SOCK_DGRAM};
    const ssize_t got = ::recvfrom(socket_.get(), datagram_.data(), datagram_.size(), MSG_DONTWAIT,
                                   reinterpret_cast<sockaddr*>(&from.address), &from.length);
    if (got < 0 && errno == EAGAIN) return;
    // An error is about a datagram that was sent: nobody listened, or it was too long on its way.
    const auto bytes = static_cast<size_t>(std::max<ssize_t>(got, 0));
    if (bytes < kHeaderBytes || bytes > kMostFrameBytes) continue;
    if (own_ && own_->length == from.length && std::memcmp(&own_->address, &from.address, from.length) == 0) continue;
    deliver(Frame(datagram_).first(bytes));
  }
}

Delivery DatagramBackend::do_send(Frame frame) {
  if (again_.armed()) {
    full_ = true;
    return Delivery::kFull;
  }
  ssize_t sent = 0;
  do
    sent = ::sendto(sending_fd(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                    to_ ? to_->generic() : nullptr, to_ ? to_->length : 0);
  while (sent < 0 && errno == EINTR);
  if (sent >= 0) {
    refusals_ = 0;
    return Delivery::kTaken;
  }
  if (errno != EAGAIN) return Delivery::kDropped;  // nobody is there now, or it is too long for the way
  return wait_for_room();
}

// [unix(7)] A unix socket that is not connected can be written to as far as poll() knows, whatever room its peer has:
// it is tried again in a moment.
Delivery DatagramBackend::wait_for_room() {
  if (to_ && to_->address.ss_family == AF_UNIX) {
    if (++refusals_ > kMostRefusals) return Delivery::kDropped;
    again_.arm_at(again_.clock().now() + kRefusedAgainNs);
  }
  full_ = true;
  update_interest();
  return Delivery::kFull;
}

void DatagramBackend::room_to_send() {
  const bool waited = std::exchange(full_, false);
  update_interest();
  if (waited && client() != nullptr) client()->writable();
}

}  // namespace kite::net

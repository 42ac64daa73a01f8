#include "chardev/socket_address.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>

namespace kite {
namespace {

Result<Endpoint> unix_endpoint(const SocketAddress& address) {
  Endpoint endpoint{.address = {}, .length = 0, .type = address.datagram ? SOCK_DGRAM : SOCK_STREAM};
  sockaddr_un target{};
  target.sun_family = AF_UNIX;
  const size_t first =
      address.abstract ? 1 : 0;  // [unix(7)] an abstract name follows a zero byte and needs none after it
  const size_t most = sizeof target.sun_path - 1;
  if (address.path.size() > most) {
    return fail("the path of the unix socket '{}' is longer than {} bytes", address.path, most);
  }
  std::memcpy(target.sun_path + first, address.path.data(), address.path.size());
  std::memcpy(&endpoint.address, &target, sizeof target);
  endpoint.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.path.size() + 1);
  return endpoint;
}

// ipv4 and ipv6 as QEMU reads them: one that is on alone, or off, leaves the other.
int family_of(const SocketAddress& address) {
  const bool four = address.ipv4.value_or(!address.ipv6.value_or(false));
  const bool six = address.ipv6.value_or(!address.ipv4.value_or(false));
  if (four == six) return AF_UNSPEC;
  return four ? AF_INET : AF_INET6;
}

// An IPv6 address has colons of its own.
std::string host_and_port(std::string_view host, std::string_view port) {
  const bool bracketed = host.find(':') != std::string_view::npos;
  return bracketed ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

std::string endpoint_text(int fd, int (*get)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (get(fd, generic, &length) != 0 || (address.ss_family != AF_INET && address.ss_family != AF_INET6)) return {};
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  if (::getnameinfo(generic, length, host.data(), host.size(), port.data(), port.size(),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return {};
  }
  return host_and_port(host.data(), port.data());
}

// A socket file stays behind when its process dies. Nobody answers on such a one, and bind() wants it gone.
Result<> clear_unix_path(const SocketAddress& address, const Endpoint& endpoint) {
  struct stat info{};
  if (address.abstract || ::lstat(address.path.c_str(), &info) != 0) return {};
  if (!S_ISSOCK(info.st_mode)) return fail("'{}' exists and is no socket", address.path);
  const Fd probe = make_socket(endpoint);
  if (probe.valid() && ::connect(probe.get(), endpoint.generic(), endpoint.length) == 0) {
    return fail("another process listens on the unix socket '{}'", address.path);
  }
  if (errno == EPROTOTYPE) return fail("another process has a unix socket of another kind at '{}'", address.path);
  if (errno == EAGAIN) return fail("another process listens on the unix socket '{}' and is busy", address.path);
  if (::unlink(address.path.c_str()) != 0) {
    return fail("cannot remove the old socket '{}': {}", address.path, errno_text(errno));
  }
  return {};
}

}  // namespace

std::string SocketAddress::text() const {
  if (is_unix()) return (abstract ? "unix:@" : "unix:") + path;
  return (datagram ? "udp:" : "tcp:") + host_and_port(host, port);
}

Result<SocketAddress> parse_host_port(std::string_view text) {
  const std::string_view whole = text;
  SocketAddress address;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return fail("'{}' lacks the ']' after its IPv6 address", whole);
    address.host = text.substr(1, end - 1);
    text.remove_prefix(end + 1);
  } else {
    address.host = text.substr(0, text.find(':'));
    text.remove_prefix(address.host.size());
  }
  if (!text.starts_with(':') || text.size() == 1) return fail("'{}': HOST:PORT is wanted, as in 127.0.0.1:4444", whole);
  address.port = text.substr(1);
  return address;
}

Result<std::vector<Endpoint>> resolve(const SocketAddress& address, bool server) {
  if (address.is_unix()) {
    KITE_ASSIGN(const Endpoint endpoint, unix_endpoint(address));
    return std::vector{endpoint};
  }
  addrinfo hints{};
  hints.ai_family = family_of(address);
  hints.ai_socktype = address.datagram ? SOCK_DGRAM : SOCK_STREAM;
  hints.ai_flags = server ? AI_PASSIVE : 0;
  addrinfo* found = nullptr;
  const char* host = address.host.empty() ? nullptr : address.host.c_str();
  if (const int error = ::getaddrinfo(host, address.port.c_str(), &hints, &found); error != 0) {
    return fail("cannot resolve '{}': {}", address.text(), ::gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);
  std::vector<Endpoint> endpoints;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    if (at->ai_addrlen > sizeof(sockaddr_storage)) continue;
    Endpoint& endpoint = endpoints.emplace_back();
    std::memcpy(&endpoint.address, at->ai_addr, at->ai_addrlen);
    endpoint.length = at->ai_addrlen;
    endpoint.type = at->ai_socktype;
  }
  if (endpoints.empty()) return fail("cannot resolve '{}': no address", address.text());
  return endpoints;
}

Fd make_socket(const Endpoint& endpoint) {
  return Fd(::socket(endpoint.address.ss_family, endpoint.type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

Result<Fd> listen_on(const SocketAddress& address, const std::vector<Endpoint>& endpoints) {
  constexpr int kBacklog = 1;  // one peer at a time; the next one may wait
  if (address.is_unix()) KITE_TRY(clear_unix_path(address, endpoints.front()));
  int error = 0;
  for (const Endpoint& endpoint : endpoints) {
    Fd socket = make_socket(endpoint);
    const int on = 1;
    if (socket.valid() && !address.is_unix()) {
      // Of datagrams this would take the port from somebody else.
      if (!address.datagram) ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
      if (endpoint.address.ss_family == AF_INET6 && !address.ipv4.value_or(true)) {
        ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
      }
    }
    if (socket.valid() && ::bind(socket.get(), endpoint.generic(), endpoint.length) == 0 &&
        (address.datagram || ::listen(socket.get(), kBacklog) == 0)) {
      return socket;
    }
    error = errno;
  }
  return fail("cannot listen on '{}': {}", address.text(), errno_text(error));
}

Result<std::vector<Fd>> listen_everywhere(const SocketAddress& address) {
  KITE_ASSIGN(const std::vector<Endpoint> endpoints, resolve(address, true));
  std::vector<Fd> sockets;
  Result<Fd> socket = fail("");
  for (const Endpoint& endpoint : endpoints) {
    socket = listen_on(address, {endpoint});
    if (socket) sockets.push_back(std::move(*socket));
  }
  if (sockets.empty()) return Failure(std::move(socket).error());
  return sockets;
}

Result<Fd> connect_to(const SocketAddress& address, const std::vector<Endpoint>& endpoints) {
  int error = 0;
  for (const Endpoint& endpoint : endpoints) {
    Fd socket = make_socket(endpoint);
    if (!socket.valid()) return fail("cannot make a socket for '{}': {}", address.text(), errno_text(errno));
    if (::connect(socket.get(), endpoint.generic(), endpoint.length) == 0) return socket;
    error = errno;
    if (error == EINPROGRESS) {
      pollfd ready{.fd = socket.get(), .events = POLLOUT, .revents = 0};
      while (::poll(&ready, 1, -1) < 0 && errno == EINTR) {
      }
      socklen_t length = sizeof error;
      ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length);
      if (error == 0) return socket;
    }
  }
  return fail("cannot connect to '{}': {}", address.text(), errno_text(error));
}

std::string local_text(int fd) { return endpoint_text(fd, ::getsockname); }
std::string peer_text(int fd) { return endpoint_text(fd, ::getpeername); }

}  // namespace kite

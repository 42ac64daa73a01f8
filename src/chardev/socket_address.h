// Where a socket listens or connects to.
#pragma once

#include <sys/socket.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/fd.h"
#include "support/result.h"

namespace kite {

struct SocketAddress {
  // A unix socket when `path` is not empty, else TCP or UDP.
  std::string path{};
  bool abstract = false;  // `path` is a name in Linux's abstract namespace
  std::string host{};     // "" for every address of a server, the loopback of a client
  std::string port{};     // number or service name
  std::optional<bool> ipv4{}, ipv6{};
  bool datagram = false;  // UDP, or datagrams of a unix socket

  [[nodiscard]] bool is_unix() const { return !path.empty(); }
  [[nodiscard]] std::string text() const;  // "unix:/run/x.sock", "tcp:127.0.0.1:4444"
};
// "HOST:PORT" with an IPv6 address in brackets; HOST may be empty.
Result<SocketAddress> parse_host_port(std::string_view text);

// One address of the host's, ready for bind() or connect().
struct Endpoint {
  sockaddr_storage address;
  socklen_t length;
  int type = SOCK_STREAM;

  [[nodiscard]] const sockaddr* generic() const { return reinterpret_cast<const sockaddr*>(&address); }
};

// Looks names up, which may take a while; never empty.
Result<std::vector<Endpoint>> resolve(const SocketAddress& address, bool server);

// A listening socket on the first endpoint that can be had; one for datagrams is bound there. A dead unix socket of the
// same path is replaced, one that is in use is not.
Result<Fd> listen_on(const SocketAddress& address, const std::vector<Endpoint>& endpoints);

// The same on every endpoint that the address stands for and that can be had: "localhost" may be two.
Result<std::vector<Fd>> listen_everywhere(const SocketAddress& address);

// A new non-blocking socket for this endpoint.
Fd make_socket(const Endpoint& endpoint);

// Connects to the first endpoint that answers, and waits for it. The socket is non-blocking afterwards.
Result<Fd> connect_to(const SocketAddress& address, const std::vector<Endpoint>& endpoints);

// The addresses of a socket's two ends, as "127.0.0.1:4444" or "[::1]:4444"; "" for unix sockets.
std::string local_text(int fd);
std::string peer_text(int fd);

}  // namespace kite

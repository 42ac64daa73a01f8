// Where a socket listens or connects to.
#pragma once

#include <sys/socket.h>

#include <optional>
#include <string>
#include <vector>

#include "support/fd.h"
#include "support/result.h"

namespace kite {

struct SocketAddress {
  // A unix socket when `path` is not empty, else TCP.
  std::string path{};
  bool abstract = false;  // `path` is a name in Linux's abstract namespace
  std::string host{};     // "" for every address of a server, the loopback of a client
  std::string port{};     // number or service name
  std::optional<bool> ipv4{}, ipv6{};

  [[nodiscard]] bool is_unix() const { return !path.empty(); }
  [[nodiscard]] std::string text() const;  // "unix:/run/x.sock", "tcp:127.0.0.1:4444"
};

// One address of the host's, ready for bind() or connect().
struct Endpoint {
  sockaddr_storage address;
  socklen_t length;
};

// Looks names up, which may take a while; never empty.
Result<std::vector<Endpoint>> resolve(const SocketAddress& address, bool server);

// A listening socket on the first endpoint that can be had. A dead unix socket of the same path is replaced, one that
// is in use is not.
Result<Fd> listen_on(const SocketAddress& address, const std::vector<Endpoint>& endpoints);

// A new non-blocking socket for this endpoint.
Fd make_socket(const Endpoint& endpoint);

// Connects to the first endpoint that answers, and waits for it. The socket is non-blocking afterwards.
Result<Fd> connect_to(const SocketAddress& address, const std::vector<Endpoint>& endpoints);

// The addresses of a socket's two ends, as "127.0.0.1:4444" or "[::1]:4444"; "" for unix sockets.
std::string local_text(int fd);
std::string peer_text(int fd);

}  // namespace kite

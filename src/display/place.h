// Place: one end of a connection, as the monitors show it; and what happens to the clients of a display server.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

namespace kite::display {

struct Place {
  std::string host, service, family;  // "127.0.0.1", "5900", "ipv4"; "unix" with the path as its service
};
Place place_of(const sockaddr_storage& address, socklen_t length);
Place local_place(int fd);
Place peer_place(int fd);

enum class ClientEvent : uint8_t {
  kConnected,     // and has said nothing yet
  kInitialized,   // is let in
  kDisconnected,  // let in or not
};

}  // namespace kite::display

#include "display/place.h"

#include <netdb.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>

namespace kite::display {

namespace {

using AddressOf = int (*)(int, sockaddr*, socklen_t*);

Place ask(int fd, AddressOf address_of) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (address_of(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) length = 0;
  return place_of(storage, length);
}

}  // namespace

Place place_of(const sockaddr_storage& address, socklen_t length) {
  if (length < sizeof(sa_family_t)) return {.host = "", .service = "", .family = "unknown"};
  if (address.ss_family == AF_UNIX) {
    const auto* const unix = reinterpret_cast<const sockaddr_un*>(&address);
    const size_t most = length > offsetof(sockaddr_un, sun_path) ? length - offsetof(sockaddr_un, sun_path) : 0;
    return {.host = "", .service = std::string(unix->sun_path, ::strnlen(unix->sun_path, most)), .family = "unix"};
  }
  char host[NI_MAXHOST] = {}, service[NI_MAXSERV] = {};
  ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof host, service, sizeof service,
                NI_NUMERICHOST | NI_NUMERICSERV);
  return {.host = host, .service = service, .family = address.ss_family == AF_INET6 ? "ipv6" : "ipv4"};
}

Place local_place(int fd) { return ask(fd, ::getsockname); }
Place peer_place(int fd) { return ask(fd, ::getpeername); }

}  // namespace kite::display

#include "net/socket_options.h"

#include <sys/socket.h>

#include <array>

#include "net/settings_reader.h"
#include "support/suggest.h"

namespace kite::net {

namespace {

constexpr int64_t kMillisecond = 1'000'000;
constexpr uint64_t kMostSeconds = 86'400;

// --- socket

// "HOST:PORT", where the host of a client has to be there.
Result<SocketAddress> host_and_port(std::string_view name, const std::string& text, bool needs_host) {
  auto address = parse_host_port(text);
  if (!address) return fail("{}={}: {}", name, text, address.error().message);
  if (needs_host && address->host.empty()) return fail("{}={}: it names no host", name, text);
  return address;
}

Result<SocketConfig> with_descriptor(SettingsReader& settings) {
  KITE_ASSIGN(const int fd, settings.descriptor("fd"));
  int type = 0, listens = 0;
  socklen_t length = sizeof type;
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || (type != SOCK_STREAM && type != SOCK_DGRAM))
    return fail("fd={}: it is no socket for a stream or for datagrams", fd);
  if (type == SOCK_DGRAM) return DatagramConfig{.type = "socket", .fd = fd};
  length = sizeof listens;
  const bool server = ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens != 0;
  return StreamConfig{.type = "socket", .peers = {.address = {}, .fd = fd, .server = server}};
}

Result<SocketConfig> with_group(SettingsReader& settings) {
  DatagramConfig config{.type = "socket", .multicast = true};
  KITE_ASSIGN(config.remote, host_and_port("mcast", settings.text("mcast"), true));
  config.remote->datagram = true;
  config.remote->ipv4 = true;
  if (settings.has("localaddr")) config.local = SocketAddress{.host = settings.text("localaddr"), .datagram = true};
  return config;
}

Result<SocketConfig> with_udp(SettingsReader& settings) {
  DatagramConfig config{.type = "socket"};
  if (!settings.has("localaddr")) return fail("udp= wants localaddr=HOST:PORT, where this end listens");
  KITE_ASSIGN(config.remote, host_and_port("udp", settings.text("udp"), true));
  KITE_ASSIGN(config.local, host_and_port("localaddr", settings.text("localaddr"), false));
  config.remote->datagram = config.local->datagram = true;
  return config;
}

Result<SocketConfig> with_stream(SettingsReader& settings, std::string_view name) {
  const bool server = name == "listen";
  KITE_ASSIGN(SocketAddress address, host_and_port(name, settings.text(name), !server));
  return StreamConfig{.type = "socket", .peers = {.address = std::move(address), .server = server}};
}

Result<SocketConfig> in_form(SettingsReader& settings) {
  constexpr std::array<std::string_view, 5> kForms{"fd", "listen", "connect", "mcast", "udp"};
  std::string_view form;
  for (const std::string_view name : kForms) {
    if (!settings.has(name)) continue;
    if (!form.empty()) return fail("it takes one of {}=, not {}= and {}=", fmt::join(kForms, "=, "), form, name);
    form = name;
  }
  if (form == "fd") return with_descriptor(settings);
  if (form == "mcast") return with_group(settings);
  if (form == "udp") return with_udp(settings);
  if (!form.empty()) return with_stream(settings, form);
  return fail("it wants one of {}=", fmt::join(kForms, "=, "));
}

// --- addresses of stream and dgram

// "addr.type", ... as [QMP] SocketAddress has them, in which a descriptor is "str".
struct GivenAddress {
  std::optional<SocketAddress> socket;
  int fd = -1;
};

Result<SocketAddress> inet_address(SettingsReader& settings, const std::string& prefix) {
  constexpr std::string_view kMissing = "this version of Kite has no such setting of an address";
  SocketAddress address{.host = settings.text(prefix + ".host"), .port = settings.text(prefix + ".port")};
  for (const auto& [name, target] : {std::pair(".ipv4", &address.ipv4), std::pair(".ipv6", &address.ipv6)}) {
    if (!settings.has(prefix + name)) continue;
    KITE_ASSIGN(*target, settings.boolean(prefix + name, true));
  }
  if (address.ipv4 == false && address.ipv6 == false)
    return fail("{}.ipv4=off,{}.ipv6=off leaves no kind of address", prefix, prefix);
  for (const std::string_view name : {".to", ".keep-alive", ".mptcp"})
    KITE_TRY(settings.missing(prefix + std::string(name), kMissing));
  KITE_TRY(settings.boolean(prefix + ".numeric", false));  // names that are numbers are not looked up anyway
  return address;
}

Result<SocketAddress> unix_address(SettingsReader& settings, const std::string& prefix) {
  SocketAddress address{.path = settings.text(prefix + ".path")};
  if (address.path.empty()) return fail("{}.type=unix wants {}.path=PATH", prefix, prefix);
  KITE_ASSIGN(address.abstract, settings.boolean(prefix + ".abstract", false));
  KITE_ASSIGN(const bool tight, settings.boolean(prefix + ".tight", true));
  if (!tight) return fail("{}.tight=off: Kite takes abstract socket names without padding only", prefix);
  return address;
}

// Nothing when it is not given.
Result<GivenAddress> take_address(SettingsReader& settings, const std::string& prefix) {
  constexpr std::array<std::string_view, 3> kTypes{"fd", "inet", "unix"};
  const std::string type = settings.text(prefix + ".type");
  GivenAddress given;
  if (type == "inet") {
    KITE_ASSIGN(given.socket, inet_address(settings, prefix));
  } else if (type == "unix") {
    KITE_ASSIGN(given.socket, unix_address(settings, prefix));
  } else if (type == "fd") {
    KITE_ASSIGN(given.fd, settings.descriptor(prefix + ".str"));
  } else if (!type.empty()) {
    return fail("{}.type={}: there is no such kind of address{}", prefix, type, suggestion(type, kTypes));
  }
  return given;
}

Result<> wants_port(const SocketAddress& address, std::string_view prefix, bool needs_host) {
  if (address.is_unix()) return {};
  if (needs_host && address.host.empty()) return fail("{}.type=inet wants {}.host=HOST", prefix, prefix);
  if (address.port.empty()) return fail("{}.type=inet wants {}.port=PORT", prefix, prefix);
  return {};
}

// `reconnect` counts seconds, `reconnect-ms` milliseconds.
Result<int64_t> take_reconnect(SettingsReader& settings, bool server) {
  KITE_ASSIGN(const uint64_t seconds, settings.number("reconnect", 0, kMostSeconds));
  KITE_ASSIGN(const uint64_t milliseconds, settings.number("reconnect-ms", seconds * 1000, kMostSeconds * 1000));
  if (settings.has("reconnect") && settings.has("reconnect-ms"))
    return fail("it takes one of reconnect= and reconnect-ms=");
  if (server && milliseconds != 0) return fail("reconnect= is for a client; a server waits for the next peer anyway");
  return static_cast<int64_t>(milliseconds) * kMillisecond;
}

// --- dgram

Result<DatagramConfig> group_of(GivenAddress local, SocketAddress remote) {
  remote.ipv4 = true;
  DatagramConfig config{.type = "dgram", .fd = local.fd, .remote = std::move(remote), .multicast = true};
  if (!local.socket) return config;
  if (local.socket->is_unix() || !local.socket->port.empty())
    return fail("with a group as remote, local.host= is the address of an interface, without local.port=");
  config.local = std::move(*local.socket);
  return config;
}

}  // namespace

Result<SocketConfig> parse_socket_options(const Settings& settings) {
  SettingsReader reader("socket", settings);
  KITE_ASSIGN(SocketConfig config, in_form(reader));
  KITE_TRY(reader.finish());
  return config;
}

Result<StreamConfig> parse_stream_options(const Settings& settings) {
  SettingsReader reader("stream", settings);
  StreamConfig config{.type = "stream", .peers = {.address = {}}};
  SocketPeers::Config& peers = config.peers;
  KITE_ASSIGN(peers.server, reader.boolean("server", false));
  KITE_ASSIGN(GivenAddress given, take_address(reader, "addr"));
  KITE_ASSIGN(peers.reconnect_ns, take_reconnect(reader, peers.server));
  KITE_TRY(reader.finish());
  if (!given.socket && given.fd < 0) return fail("it wants addr.type=inet, unix or fd");
  if (given.fd >= 0 && peers.reconnect_ns != 0)
    return fail("reconnect= wants an address to connect to; a descriptor is one connection");
  peers.fd = given.fd;
  if (!given.socket) return config;
  KITE_TRY(wants_port(*given.socket, "addr", !peers.server));
  peers.address = std::move(*given.socket);
  return config;
}

Result<DatagramConfig> parse_dgram_options(const Settings& settings) {
  SettingsReader reader("dgram", settings);
  KITE_ASSIGN(GivenAddress local, take_address(reader, "local"));
  KITE_ASSIGN(GivenAddress remote, take_address(reader, "remote"));
  KITE_TRY(reader.finish());
  if (remote.fd >= 0) return fail("remote.type=fd: a descriptor is the end here; write local.type=fd");
  for (std::optional<SocketAddress>* const address : {&local.socket, &remote.socket})
    if (*address) (*address)->datagram = true;
  if (remote.socket) KITE_TRY(wants_port(*remote.socket, "remote", true));
  if (remote.socket && is_multicast(*remote.socket)) return group_of(std::move(local), std::move(*remote.socket));
  if (local.fd >= 0) {
    if (remote.socket) return fail("local.type=fd is connected already; leave the remote address out");
    return DatagramConfig{.type = "dgram", .fd = local.fd};
  }
  if (!local.socket) return fail("it wants local.type=inet, unix or fd, or a multicast group as the remote address");
  if (!remote.socket) return fail("local.type=inet and unix want a remote address of the same type");
  if (local.socket->is_unix() != remote.socket->is_unix())
    return fail("the local and the remote address are of different types");
  KITE_TRY(wants_port(*local.socket, "local", false));
  return DatagramConfig{.type = "dgram", .local = std::move(local.socket), .remote = std::move(remote.socket)};
}

}  // namespace kite::net

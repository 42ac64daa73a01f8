#include "net/net_registry.h"

#include <algorithm>

#include "net/socket_options.h"
#include "net/tap_backend.h"
#include "object/object_type.h"
#include "support/suggest.h"

namespace kite::net {

namespace {

using Made = Result<std::unique_ptr<NetBackend>>;

struct Place {
  std::string id;
  Executor& executor;
  Clock& clock;
  StreamBackend::Changed stream_changed;
};

Made make_user(Place place, const Settings& settings) {
  KITE_ASSIGN(const UserConfig config, parse_user_options(settings));
  KITE_ASSIGN(auto made, UserBackend::create(std::move(place.id), place.executor, place.clock, config));
  return made;
}

Made make_tap(Place place, const Settings& settings) {
  KITE_ASSIGN(const TapConfig config, parse_tap_options(settings));
  KITE_ASSIGN(auto made, TapBackend::create(std::move(place.id), place.executor, config));
  return made;
}

Made make_bridge(Place place, const Settings& settings) {
  KITE_ASSIGN(const TapConfig config, parse_bridge_options(settings));
  KITE_ASSIGN(auto made, TapBackend::create(std::move(place.id), place.executor, config));
  return made;
}

Made of_stream(Place place, const StreamConfig& config) {
  KITE_ASSIGN(auto made, StreamBackend::create(std::move(place.id), place.executor, place.clock, config,
                                               std::move(place.stream_changed)));
  return made;
}

Made of_datagrams(Place place, const DatagramConfig& config) {
  KITE_ASSIGN(auto made, DatagramBackend::create(std::move(place.id), place.executor, place.clock, config));
  return made;
}

Made make_socket(Place place, const Settings& settings) {
  KITE_ASSIGN(const SocketConfig config, parse_socket_options(settings));
  if (const auto* const stream = std::get_if<StreamConfig>(&config); stream != nullptr)
    return of_stream(std::move(place), *stream);
  return of_datagrams(std::move(place), std::get<DatagramConfig>(config));
}

Made make_stream(Place place, const Settings& settings) {
  KITE_ASSIGN(const StreamConfig config, parse_stream_options(settings));
  return of_stream(std::move(place), config);
}

Made make_dgram(Place place, const Settings& settings) {
  KITE_ASSIGN(const DatagramConfig config, parse_dgram_options(settings));
  return of_datagrams(std::move(place), config);
}

struct Type {
  std::string_view name, help;
  Made (*make)(Place place, const Settings& settings);
};
constexpr Type kTypes[] = {
    {"bridge", "a new tap interface on a bridge of the host's: [br=br0][,helper=PATH]", make_bridge},
    {"dgram",
     "a datagram a frame: local.type=inet,local.host=,local.port=,remote.type=inet,remote.host=,remote.port=, or unix "
     "with path=, or local.type=fd,local.str=, or a multicast group as remote",
     make_dgram},
    {"socket",
     "a cable to another machine, QEMU's included: listen=[HOST]:PORT, connect=HOST:PORT, mcast=GROUP:PORT, "
     "udp=HOST:PORT,localaddr=HOST:PORT or fd=NUMBER",
     make_socket},
    {"stream",
     "the same over TCP or a unix socket: [server=on,]addr.type=inet,addr.host=,addr.port=, or "
     "addr.type=unix,addr.path=, "
     "or addr.type=fd,addr.str=; [,reconnect=SECONDS]",
     make_stream},
    {"tap",
     "a tap interface of the host's: ifname=NAME[,br=BRIDGE][,script=PATH][,downscript=PATH], fd=NUMBER, or "
     "br=BRIDGE,helper=PATH",
     make_tap},
    {"user", "NAT in this process, with DHCP, DNS and port forwards; needs no rights", make_user},
};

constexpr std::string_view kMissing[] = {"vde", "l2tpv3", "netmap", "vhost-user", "vhost-vdpa", "hubport"};

const Type* find_type(std::string_view name) {
  const auto* const found = std::ranges::find(kTypes, name, &Type::name);
  return found == std::end(kTypes) ? nullptr : found;
}

Failure unknown_type(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Type& type : kTypes) names.push_back(type.name);
  if (std::ranges::find(kMissing, name) != std::end(kMissing))
    return fail("this version of Kite has no network back end '{}' yet; it has {}", name, fmt::join(names, ", "));
  return fail("there is no network back end '{}'{}", name, suggestion(name, names));
}

}  // namespace

std::string netdev_help() {
  std::string text = "Network back ends (all take id=ID):\n";
  for (const Type& type : kTypes) text += fmt::format("  {:<8} {}\n", type.name, type.help);
  return text;
}

std::vector<std::string> netdev_types() {
  std::vector<std::string> names;
  for (const Type& type : kTypes) names.emplace_back(type.name);
  return names;
}

bool is_netdev_descriptor(std::string_view setting) {
  constexpr std::string_view kNames[] = {"fd", "fds", "vhostfd", "vhostfds", "addr.str", "local.str"};
  return std::ranges::find(kNames, setting) != std::end(kNames);
}

NetRegistry::NetRegistry(Executor& executor) : executor_(executor) { executor_.attach(clock_); }

NetRegistry::~NetRegistry() {
  backends_.clear();
  executor_.detach(clock_);
}

Result<NetBackend*> NetRegistry::add(const Settings& settings) {
  std::string type, id;
  Settings rest;
  for (const auto& [name, value] : settings) {
    if (name == "type")
      type = value;
    else if (name == "id")
      id = value;
    else
      rest.emplace_back(name, value);
  }
  if (type.empty()) return fail("it wants type=, the kind of the back end");
  const Type* const known = find_type(type);
  if (known == nullptr) return unknown_type(type);
  if (id.empty()) return fail("it wants id=ID, by which a card names it");
  if (!valid_id(id)) return fail("id '{}': an id is a letter followed by letters, digits, '-', '.' and '_'", id);
  if (find(id) != nullptr) return fail("there is a network back end '{}' already", id);
  const auto changed = [this](const StreamBackend& backend) {
    if (stream_changed_ && backend.type() == "stream") stream_changed_(backend);
  };
  KITE_ASSIGN(
      auto made,
      known->make({.id = std::move(id), .executor = executor_, .clock = clock_, .stream_changed = changed}, rest));
  backends_.push_back(std::move(made));
  return backends_.back().get();
}

Result<> NetRegistry::remove(std::string_view id) {
  const auto at = std::ranges::find(backends_, id, [](const auto& backend) { return std::string_view(backend->id()); });
  if (at == backends_.end()) return fail("there is no network back end '{}'", id);
  const std::unique_ptr<NetBackend> gone = std::move(*at);
  backends_.erase(at);
  return {};
}

NetBackend* NetRegistry::find(std::string_view id) const {
  const auto at = std::ranges::find(backends_, id, [](const auto& backend) { return std::string_view(backend->id()); });
  return at == backends_.end() ? nullptr : at->get();
}

Result<NetBackend*> NetRegistry::claim(std::string_view id) const {
  NetBackend* const backend = find(id);
  if (backend == nullptr) {
    std::vector<std::string_view> names;
    names.reserve(backends_.size());
    for (const auto& known : backends_) names.push_back(known->id());
    return fail("there is no -netdev '{}'{}", id, suggestion(id, names));
  }
  if (backend->client() != nullptr)
    return fail("the -netdev '{}' is in use by the card '{}'", id, backend->client()->describe().name);
  return backend;
}

Result<UserBackend*> NetRegistry::find_user(std::string_view id) const {
  for (const auto& backend : backends_) {
    auto* const user = dynamic_cast<UserBackend*>(backend.get());
    if (user != nullptr && (id.empty() || user->id() == id)) return user;
  }
  return id.empty() ? fail("there is no -netdev user") : fail("there is no -netdev user with the id '{}'", id);
}

Result<> NetRegistry::set_link(std::string_view name, bool up) const {
  for (const auto& backend : backends_) {
    const bool card = backend->client() != nullptr && backend->client()->describe().name == name;
    if (!card && backend->id() != name) continue;
    backend->set_link(card ? NetBackend::End::kCard : NetBackend::End::kHost, up);
    return {};
  }
  return fail("there is no network card or back end '{}'", name);
}

Result<MacAddress> NetRegistry::mac_for(std::string_view text) {
  MacAddress mac{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
  if (!text.empty()) {
    KITE_ASSIGN(mac, parse_mac(text));
    if ((mac[0] & 1) != 0) return fail("'{}' is a group's address, which no card can have", text);
  } else {
    while (macs_.contains(mac)) {
      for (size_t at = mac.size(); at-- > 3;)
        if (++mac[at] != 0) break;
    }
  }
  macs_.insert(mac);
  return mac;
}

}  // namespace kite::net

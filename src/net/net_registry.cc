#include "net/net_registry.h"

#include <algorithm>

#include "net/tap_backend.h"
#include "object/object_type.h"
#include "support/suggest.h"

namespace kite::net {

namespace {

using Made = Result<std::unique_ptr<NetBackend>>;

Made make_user(std::string id, Executor& executor, Clock& clock, const Settings& settings) {
  KITE_ASSIGN(const UserConfig config, parse_user_options(settings));
  KITE_ASSIGN(auto made, UserBackend::create(std::move(id), executor, clock, config));
  return made;
}

Made make_tap(std::string id, Executor& executor, Clock&, const Settings& settings) {
  KITE_ASSIGN(const TapConfig config, parse_tap_options(settings));
  KITE_ASSIGN(auto made, TapBackend::create(std::move(id), executor, config));
  return made;
}

struct Type {
  std::string_view name, help;
  Made (*make)(std::string id, Executor& executor, Clock& clock, const Settings& settings);
};
constexpr Type kTypes[] = {
    {"tap", "a tap interface of the host's: ifname=NAME or fd=NUMBER; no scripts are run", make_tap},
    {"user", "NAT in this process, with DHCP, DNS and port forwards; needs no rights", make_user},
};

constexpr std::string_view kMissing[] = {"bridge", "socket", "stream",     "dgram",      "vde",
                                         "l2tpv3", "netmap", "vhost-user", "vhost-vdpa", "hubport"};

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
  KITE_ASSIGN(auto made, known->make(std::move(id), executor_, clock_, rest));
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

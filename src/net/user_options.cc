#include "net/user_options.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <optional>

#include "object/object_type.h"
#include "support/suggest.h"

namespace kite::net {

Result<Ipv4> parse_ipv4(std::string_view text) {
  in_addr address{};
  if (::inet_pton(AF_INET, std::string(text).c_str(), &address) != 1)
    return fail("'{}' is no IPv4 address; write four numbers, as 10.0.2.15", text);
  return ntohl(address.s_addr);
}

std::string ipv4_text(Ipv4 address) {
  return fmt::format("{}.{}.{}.{}", address >> 24, (address >> 16) & 0xff, (address >> 8) & 0xff, address & 0xff);
}

// --- forwards

namespace {

constexpr std::string_view kForwardForm = "[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT";

// What comes before `mark`, and the rest after it; nothing without one.
std::optional<std::string_view> take_until(std::string_view& rest, char mark) {
  const size_t at = rest.find(mark);
  if (at == std::string_view::npos) return {};
  const std::string_view part = rest.substr(0, at);
  rest.remove_prefix(at + 1);
  return part;
}

Result<uint16_t> parse_port(std::string_view whose, std::string_view text, uint64_t least) {
  const auto port = parse_unsigned(text);
  if (!port || *port < least || *port > 0xffff)
    return fail("the {}'s port '{}' is none; it is a number from {} to 65535", whose, text, least);
  return static_cast<uint16_t>(*port);
}

Result<bool> parse_is_udp(std::string_view text) {
  if (text.empty() || text == "tcp") return false;
  if (text == "udp") return true;
  return fail("'{}' is no protocol; tcp and udp can be forwarded", text);
}

Result<Ipv4> address_or_none(std::string_view text) {
  if (text.empty()) return Ipv4{0};
  return parse_ipv4(text);
}

Result<Forward> in_form(std::string_view text, std::string_view form, Result<Forward> parsed) {
  if (parsed) return parsed;
  return fail("'{}': {}; the form is {}", text, parsed.error().message, form);
}

Result<Forward> host_end(std::string_view text) {
  Forward forward;
  const auto protocol = take_until(text, ':'), address = protocol ? take_until(text, ':') : protocol;
  if (!address) return fail("a part is missing");
  KITE_ASSIGN(forward.udp, parse_is_udp(*protocol));
  KITE_ASSIGN(forward.host, address_or_none(*address));
  KITE_ASSIGN(forward.host_port, parse_port("host", text, 0));
  return forward;
}

Result<Forward> both_ends(std::string_view text) {
  const auto host = take_until(text, '-'), address = host ? take_until(text, ':') : host;
  if (!address) return fail("a part is missing");
  KITE_ASSIGN(Forward forward, host_end(*host));
  KITE_ASSIGN(forward.guest, address_or_none(*address));
  KITE_ASSIGN(forward.guest_port, parse_port("guest", text, 1));
  return forward;
}

}  // namespace

Result<Forward> parse_forward(std::string_view text) { return in_form(text, kForwardForm, both_ends(text)); }

Result<Forward> parse_forward_host(std::string_view text) {
  return in_form(text, "[tcp|udp]:[HOSTADDR]:HOSTPORT", host_end(text));
}

Result<std::string> forward_of_redirection(std::string_view text) {
  constexpr std::string_view kForm = "[tcp|udp]:HOSTPORT:[GUESTADDR]:GUESTPORT";
  std::string_view rest = text;
  const auto protocol = take_until(rest, ':'), port = protocol ? take_until(rest, ':') : protocol,
             guest = port ? take_until(rest, ':') : port;
  if (!guest) return fail("'{}': a part is missing; the form is {}", text, kForm);
  std::string forward = fmt::format("{}::{}-{}:{}", *protocol, *port, *guest, rest);
  KITE_TRY(in_form(text, kForm, both_ends(forward)));
  return forward;
}

std::string forward_text(const Forward& forward) {
  return fmt::format("{}:{}:{}-{}:{}", forward.udp ? "udp" : "tcp", forward.host == 0 ? "" : ipv4_text(forward.host),
                     forward.host_port, forward.guest == 0 ? "" : ipv4_text(forward.guest), forward.guest_port);
}

// --- the settings

namespace {

Result<> set_flag(bool& target, std::string_view value) {
  KITE_ASSIGN(target, parse_bool(value));
  return {};
}

Result<> set_text(std::string& target, std::string_view value, size_t most) {
  if (value.size() > most) return fail("it is {} characters long; {} are possible", value.size(), most);
  target = std::string(value);
  return {};
}

Result<> set_address(Ipv4& target, std::string_view value) {
  KITE_ASSIGN(target, parse_ipv4(value));
  return {};
}

Ipv4 mask_of_bits(unsigned bits) { return bits == 0 ? 0 : ~Ipv4{0} << (32 - bits); }

// "10.0.2.0/24", "10.0.2.0/255.255.255.0", or the network of the class that the address is of.
Result<> set_net(UserConfig& config, std::string_view value) {
  const auto address = take_until(value, '/');
  KITE_ASSIGN(config.net, parse_ipv4(address ? *address : value));
  if (!address) {
    const unsigned top = config.net >> 24;
    config.mask = mask_of_bits(top < 128 ? 8 : top < 192 ? 16 : 24);
  } else if (value.find('.') != std::string_view::npos) {
    KITE_ASSIGN(config.mask, parse_ipv4(value));
  } else {
    const auto bits = parse_unsigned(value);
    if (!bits || *bits < 4 || *bits > 28)
      return fail("'/{}' is no length of a prefix; 4 to 28 bits are possible", value);
    config.mask = mask_of_bits(static_cast<unsigned>(*bits));
  }
  const Ipv4 rest = ~config.mask;
  if ((rest & (rest + 1)) != 0 || rest < 15) return fail("'{}' is no mask of a network that has room", value);
  config.net &= config.mask;
  return {};
}

constexpr size_t kMostName = 32, kMostPath = 255;  // what DHCP's fields and their holders have room for

struct Option {
  std::string_view name;
  Result<> (*apply)(UserConfig& config, std::string_view value);
};
constexpr Option kOptions[] = {
    {"net", set_net},
    {"host", [](UserConfig& config, std::string_view value) { return set_address(config.host, value); }},
    {"dhcpstart", [](UserConfig& config, std::string_view value) { return set_address(config.dhcp_start, value); }},
    {"dns", [](UserConfig& config, std::string_view value) { return set_address(config.dns, value); }},
    {"hostname",
     [](UserConfig& config, std::string_view value) { return set_text(config.hostname, value, kMostName); }},
    {"domainname",
     [](UserConfig& config, std::string_view value) { return set_text(config.domain, value, kMostPath); }},
    {"dnssearch", [](UserConfig& config,
                     std::string_view value) { return set_text(config.dns_search.emplace_back(), value, kMostPath); }},
    {"restrict", [](UserConfig& config, std::string_view value) { return set_flag(config.restricted, value); }},
    {"ipv4", [](UserConfig& config, std::string_view value) { return set_flag(config.ipv4, value); }},
    {"ipv6", [](UserConfig& config, std::string_view value) { return set_flag(config.ipv6, value); }},
    {"tftp", [](UserConfig& config, std::string_view value) { return set_text(config.tftp, value, kMostPath); }},
    {"bootfile", [](UserConfig& config, std::string_view value) { return set_text(config.bootfile, value, 127); }},
    {"tftp-server-name",
     [](UserConfig& config, std::string_view value) { return set_text(config.tftp_server, value, 63); }},
    {"hostfwd",
     [](UserConfig& config, std::string_view value) -> Result<> {
       KITE_ASSIGN(const Forward forward, parse_forward(value));
       config.forwards.push_back(forward);
       return {};
     }},
};

struct MissingOption {
  std::string_view name, reason;
};
constexpr MissingOption kMissing[] = {
    {"guestfwd", "this version of Kite forwards no addresses of the guest's network to programs or chardevs yet"},
    {"smb", "this version of Kite has no SMB server yet; copy files with tftp= or over a port forward"},
    {"smbserver", "this version of Kite has no SMB server yet"},
    {"ipv6-prefix", "this version of Kite has the IPv6 network fec0::/64 only"},
    {"ipv6-prefixlen", "this version of Kite has the IPv6 network fec0::/64 only"},
    {"ipv6-host", "this version of Kite has the IPv6 network fec0::/64 only"},
    {"ipv6-dns", "this version of Kite has the IPv6 network fec0::/64 only"},
};

// Members of JSON lists have numbers: "hostfwd.0.str" is one of hostfwd.
std::string_view list_name(std::string_view name) {
  const size_t dot = name.find('.');
  return dot == std::string_view::npos ? name : name.substr(0, dot);
}

Result<> apply(UserConfig& config, std::string_view name, std::string_view value) {
  const auto* const option = std::ranges::find(kOptions, list_name(name), &Option::name);
  if (option != std::end(kOptions)) {
    auto done = option->apply(config, value);
    return done ? done : fail("{}={}: {}", option->name, value, done.error().message);
  }
  const auto* const missing = std::ranges::find(kMissing, list_name(name), &MissingOption::name);
  if (missing != std::end(kMissing)) return fail("{}={}: {}", name, value, missing->reason);
  std::vector<std::string_view> names;
  for (const Option& known : kOptions) names.push_back(known.name);
  return fail("user has no setting '{}'{}", name, suggestion(name, names));
}

// An address that was not given is made of the network; one that was has to be in it.
Result<> settle(const UserConfig& config, std::string_view name, Ipv4& address, Ipv4 usual) {
  if (address == 0) address = config.net | (usual & ~config.mask);
  const Ipv4 inside = address & ~config.mask;
  if ((address & config.mask) == config.net && inside != 0 && inside != ~config.mask) return {};
  return fail("{}={} is no host's address in the network {}/{}", name, ipv4_text(address), ipv4_text(config.net),
              ipv4_text(config.mask));
}

}  // namespace

Result<UserConfig> parse_user_options(const Settings& settings) {
  UserConfig config;
  for (const auto& [name, value] : settings) KITE_TRY(apply(config, name, value));
  if (!config.ipv4 && !config.ipv6) return fail("ipv4=off,ipv6=off leaves no kind of address");
  KITE_TRY(settle(config, "host", config.host, 0x0202));
  KITE_TRY(settle(config, "dns", config.dns, 0x0203));
  KITE_TRY(settle(config, "dhcpstart", config.dhcp_start, 0x020f));
  if (config.dns == config.host) return fail("dns={} is the host's address, too", ipv4_text(config.dns));
  if (config.dhcp_start == config.host || config.dhcp_start == config.dns)
    return fail("dhcpstart={} is the address of the host or of the name server", ipv4_text(config.dhcp_start));
  return config;
}

}  // namespace kite::net

// -spice.
#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <optional>
#include <vector>

#include "main/option_values.h"
#include "support/suggest.h"

namespace kite::main {

namespace {

using Text = std::string_view;
using display::SpiceTls;

// Options of -spice that QEMU has.
constexpr Text kNothing = "this version of Kite has no such option; leave it out";
struct Missing {
  Text name, why;
};
constexpr Missing kMissing[] = {
    {"sasl", kNothing},
    {"gl", kNothing},
    {"rendernode", kNothing},
    {"password", "use password-secret=ID, with -object secret,id=ID,file=PATH"},
};
constexpr std::array<Text, 10> kPlaces = {
    "port",        "tls-port",         "addr", "unix", "ipv4", "ipv6", "disable-ticketing", "password-secret",
    "tls-channel", "plaintext-channel"};

struct Given {
  std::string port, tls_port, addr;
  std::optional<bool> ipv4, ipv6;
  bool unix = false;
  std::string directory = ".";  // x509-dir
  SpiceTls files;
  std::string first_tls_option;  // one that is of no use without TLS
};

// What only a server with TLS looks at.
struct TlsOption {
  Text name;
  std::string& (*place)(Given& given);
};
constexpr TlsOption kTlsOptions[] = {
    {"x509-dir", [](Given& given) -> std::string& { return given.directory; }},
    {"x509-cacert-file", [](Given& given) -> std::string& { return given.files.authorities; }},
    {"x509-cert-file", [](Given& given) -> std::string& { return given.files.certificate; }},
    {"x509-key-file", [](Given& given) -> std::string& { return given.files.key; }},
    {"x509-key-password", [](Given& given) -> std::string& { return given.files.key_password; }},
    {"x509-dh-key-file", [](Given& given) -> std::string& { return given.files.dh_parameters; }},
    {"tls-ciphers", [](Given& given) -> std::string& { return given.files.ciphers; }},
};

Failure unknown_option(Text name) {
  std::vector<Text> known(kPlaces.begin(), kPlaces.end());
  std::ranges::copy(display::spice_options(), std::back_inserter(known));
  for (const TlsOption& option : kTlsOptions) known.push_back(option.name);
  return fail("-spice: {}: no such option{}", name, suggestion(name, known));
}

Result<> set_option(SpicePlan& plan, Given& given, const std::string& name, const std::string& value) {
  const auto boolean = [&]() -> Result<bool> {
    auto parsed = parse_bool(value);
    if (!parsed) return fail("-spice: {}={}: {}", name, value, parsed.error().message);
    return parsed;
  };
  if (const auto* const option = std::ranges::find(kTlsOptions, name, &TlsOption::name);
      option != std::end(kTlsOptions)) {
    option->place(given) = value;
    given.first_tls_option = name;
  } else if (name == "tls-channel" || name == "plaintext-channel") {
    plan.config.channel_rules.push_back({.channel = value, .tls = name == "tls-channel"});
    if (name == "tls-channel") given.first_tls_option = name;
  } else if (name == "port") {
    given.port = value;
  } else if (name == "tls-port") {
    given.tls_port = value;
  } else if (name == "addr") {
    given.addr = value;
  } else if (name == "password-secret") {
    plan.password_secret = value;
  } else if (name == "unix") {
    KITE_ASSIGN(given.unix, boolean());
  } else if (name == "disable-ticketing") {
    KITE_ASSIGN(const bool off, boolean());
    plan.config.ticketing = !off;
  } else if (name == "ipv4" || name == "ipv6") {
    KITE_ASSIGN(const bool on, boolean());
    (name == "ipv4" ? given.ipv4 : given.ipv6) = on;
  } else if (std::ranges::find(display::spice_options(), name) != display::spice_options().end()) {
    if (auto done = display::set_spice_option(plan.config, name, value); !done)
      return fail("-spice: {}", done.error().message);
  } else if (const auto* const missing = std::ranges::find(kMissing, name, &Missing::name);
             missing != std::end(kMissing)) {
    return fail("-spice: {}: {}", name, missing->why);
  } else {
    return unknown_option(name);
  }
  return {};
}

Result<SocketAddress> address_of(const Given& given, Text option, const std::string& port) {
  unsigned number = 0;
  const char* const last = port.data() + port.size();
  if (const auto [end, error] = std::from_chars(port.data(), last, number);
      error != std::errc{} || end != last || number == 0 || number > 65535)
    return fail("-spice: {}={}: a port is a number from 1 to 65535", option, port);
  return SocketAddress{.host = given.addr, .port = port, .ipv4 = given.ipv4, .ipv6 = given.ipv6};
}

// The files that were not named have QEMU's names.
void set_tls(SpicePlan& plan, const Given& given) {
  SpiceTls& tls = plan.config.tls.emplace(given.files);
  for (const auto& [file, name] :
       {std::pair(&tls.authorities, "ca-cert.pem"), std::pair(&tls.certificate, "server-cert.pem"),
        std::pair(&tls.key, "server-key.pem")})
    if (file->empty()) *file = fmt::format("{}/{}", given.directory, name);
}

Result<> set_place(SpicePlan& plan, const Given& given) {
  if (given.unix) {
    if (given.addr.empty() || !given.port.empty() || !given.tls_port.empty())
      return fail("-spice unix=on: give the socket's path, as addr=spice.sock, and no port");
    plan.address = SocketAddress{.path = given.addr};
  } else if (given.port.empty() && given.tls_port.empty()) {
    return fail("-spice: give a port, as port=5930 or tls-port=5931, or unix=on,addr=PATH");
  }
  if (!given.port.empty()) {
    KITE_ASSIGN(plan.address, address_of(given, "port", given.port));
  }
  if (!given.tls_port.empty()) {
    KITE_ASSIGN(plan.tls_address, address_of(given, "tls-port", given.tls_port));
    set_tls(plan, given);
  } else if (!given.first_tls_option.empty()) {
    return fail("-spice: {} is for TLS; give tls-port=, too", given.first_tls_option);
  }
  return {};
}

}  // namespace

Result<> apply_spice(OptionContext& context, Text text) {
  KITE_ASSIGN(const auto pairs, parse_options(text, ""));
  SpicePlan plan;
  Given given;
  for (const auto& [name, value] : pairs) KITE_TRY(set_option(plan, given, name, value));
  KITE_TRY(set_place(plan, given));
  if (!plan.config.ticketing && !plan.password_secret.empty())
    return fail("-spice: disable-ticketing=on and password-secret={}: leave one of them out", plan.password_secret);
  context.plan.spice = std::move(plan);
  return {};
}

}  // namespace kite::main

// -spice.
#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

#include "main/option_values.h"
#include "support/suggest.h"

namespace kite::main {

namespace {

using Text = std::string_view;

// Options of -spice that QEMU has.
constexpr Text kTls = "this version of Kite has no TLS for SPICE; leave it out, and tunnel the port, as by ssh";
constexpr Text kNothing = "this version of Kite has no such option; leave it out";
struct Missing {
  Text name, why;
};
constexpr Missing kMissing[] = {
    {"tls-port", kTls},         {"tls-ciphers", kTls},
    {"tls-channel", kTls},      {"x509-dir", kTls},
    {"x509-key-file", kTls},    {"x509-key-password", kTls},
    {"x509-cert-file", kTls},   {"x509-cacert-file", kTls},
    {"x509-dh-key-file", kTls}, {"plaintext-channel", "all channels are plain; leave it out"},
    {"sasl", kNothing},         {"gl", kNothing},
    {"rendernode", kNothing},   {"password", "use password-secret=ID, with -object secret,id=ID,file=PATH"},
};
constexpr std::array<Text, 7> kPlaces = {"port",           "addr", "unix", "ipv4", "ipv6", "disable-ticketing",
                                         "password-secret"};

struct Given {
  std::string port, addr;
  bool unix = false;
};

Result<> set_option(SpicePlan& plan, Given& given, const std::string& name, const std::string& value) {
  const auto boolean = [&]() -> Result<bool> {
    auto parsed = parse_bool(value);
    if (!parsed) return fail("-spice: {}={}: {}", name, value, parsed.error().message);
    return parsed;
  };
  if (name == "port") {
    given.port = value;
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
    (name == "ipv4" ? plan.address.ipv4 : plan.address.ipv6) = on;
  } else if (std::ranges::find(display::spice_options(), name) != display::spice_options().end()) {
    if (auto done = display::set_spice_option(plan.config, name, value); !done)
      return fail("-spice: {}", done.error().message);
  } else if (const auto* const missing = std::ranges::find(kMissing, name, &Missing::name);
             missing != std::end(kMissing)) {
    return fail("-spice: {}: {}", name, missing->why);
  } else {
    std::vector<Text> known(kPlaces.begin(), kPlaces.end());
    std::ranges::copy(display::spice_options(), std::back_inserter(known));
    return fail("-spice: {}: no such option{}", name, suggestion(name, known));
  }
  return {};
}

Result<> set_place(SpicePlan& plan, const Given& given) {
  if (given.unix) {
    if (given.addr.empty() || !given.port.empty())
      return fail("-spice unix=on: give the socket's path, as addr=spice.sock, and no port");
    plan.address.path = given.addr;
    return {};
  }
  if (given.port.empty()) return fail("-spice: give a port, as port=5930, or unix=on,addr=PATH");
  unsigned number = 0;
  const char* const last = given.port.data() + given.port.size();
  if (const auto [end, error] = std::from_chars(given.port.data(), last, number);
      error != std::errc{} || end != last || number == 0 || number > 65535)
    return fail("-spice: port={}: a port is a number from 1 to 65535", given.port);
  plan.address.port = given.port;
  plan.address.host = given.addr;
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

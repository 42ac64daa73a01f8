// -vga, -display and -vnc.
#include <algorithm>
#include <array>
#include <charconv>

#include "main/option_values.h"
#include "support/suggest.h"

namespace kite::main {

namespace {

using Text = std::string_view;
using Share = display::VncScreen::Share;

constexpr unsigned kFirstPort = 5900, kMostDisplay = 65535 - kFirstPort;

// Options of -vnc that QEMU has.
constexpr std::array<Text, 13> kMissing = {"tls-authz",    "sasl",          "sasl-authz",   "acl",     "websocket",
                                           "reverse",      "lossy",         "non-adaptive", "display", "head",
                                           "key-delay-ms", "power-control", "connections"};
constexpr std::array<Text, 8> kKnown = {"to",   "password", "password-secret", "tls-creds", "share",
                                        "ipv4", "ipv6",     "audiodev"};

Result<unsigned> display_number(Text option, Text text) {
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number > kMostDisplay)
    return fail("-vnc {}: '{}' is no display number; 0 stands for port {}", option, text, kFirstPort);
  return number;
}

// "HOST:N", ":N", "[::1]:N", "unix:PATH".
Result<> set_place(VncPlan& plan, Text place) {
  if (place.starts_with("unix:")) {
    plan.address.path = std::string(place.substr(5));
    return plan.address.path.empty() ? fail("-vnc unix: give the socket's path, as unix:vnc.sock") : Result<>{};
  }
  const size_t colon = place.rfind(':');
  if (colon == Text::npos)
    return fail("-vnc {}: give a display, as :0, 127.0.0.1:0 or unix:PATH; none for no VNC server", place);
  KITE_ASSIGN(plan.display, display_number(place, place.substr(colon + 1)));
  Text host = place.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  plan.address.host = std::string(host);
  plan.last_display = plan.display;
  return {};
}

Result<> set_option(VncPlan& plan, const std::string& name, const std::string& value) {
  const auto boolean = [&]() -> Result<bool> {
    auto parsed = parse_bool(value);
    if (!parsed) return fail("-vnc: {}={}: {}", name, value, parsed.error().message);
    return parsed;
  };
  if (name == "to") {
    KITE_ASSIGN(plan.last_display, display_number("to=", value));
    return {};
  }
  if (name == "password") {
    KITE_ASSIGN(plan.password, boolean());
    return {};
  }
  if (name == "password-secret") {
    plan.password = true;
    plan.password_secret = value;
    return {};
  }
  if (name == "share") {
    if (value == "allow-exclusive")
      plan.share = Share::kAllowExclusive;
    else if (value == "force-shared")
      plan.share = Share::kForceShared;
    else if (value == "ignore")
      plan.share = Share::kIgnore;
    else
      return fail("-vnc: share={}: give allow-exclusive, force-shared or ignore", value);
    return {};
  }
  if (name == "tls-creds") {
    plan.credentials = value;
    return {};
  }
  if (name == "audiodev") {
    plan.audio = value;
    return {};
  }
  if (name == "ipv4" || name == "ipv6") {
    KITE_ASSIGN(const bool on, boolean());
    (name == "ipv4" ? plan.address.ipv4 : plan.address.ipv6) = on;
    return {};
  }
  if (std::ranges::find(kMissing, name) != kMissing.end())
    return fail("-vnc: {}: this version of Kite has no such option; leave it out", name);
  return fail("-vnc: {}: no such option{}", name, suggestion(name, kKnown));
}

}  // namespace

Result<> apply_vnc(OptionContext& context, Text text) {
  if (text == "none") {
    context.plan.vnc.reset();
    return {};
  }
  KITE_ASSIGN(const auto pairs, parse_options(text, "vnc"));
  VncPlan plan;
  for (const auto& [name, value] : pairs) {
    KITE_TRY(name == "vnc" ? set_place(plan, value) : set_option(plan, name, value));
  }
  if (plan.last_display < plan.display)
    return fail("-vnc: to={}: it is the last display to try, and the first is {}", plan.last_display, plan.display);
  context.plan.vnc = std::move(plan);
  return {};
}

Result<> apply_display(OptionContext& context, Text text) {
  if (text == "none") {
    context.plan.display_none = true;
    return {};
  }
  if (text.starts_with("vnc=")) return apply_vnc(context, text.substr(4));
  constexpr std::array<Text, 2> kDisplays = {"none", "vnc"};
  const Text name = text.substr(0, text.find_first_of(",="));
  if (name == "vnc") return fail("-display vnc: give its place, as -display vnc=:0");
  return fail(
      "-display {}: this version of Kite shows its display over VNC and SPICE alone{}; use -vnc :0, -spice port=5930, "
      "-display none or -nographic (serial console)",
      name, suggestion(name, kDisplays));
}

Result<> apply_vga(OptionContext& context, Text text) {
  if (text == "none" || text == "std" || text == "virtio") {
    context.plan.vga = std::string(text);
    return {};
  }
  return fail("-vga {}: this version of Kite has no such graphics card; use -vga std, virtio or none", text);
}

}  // namespace kite::main

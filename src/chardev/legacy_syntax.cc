// The short forms of -serial, -monitor, -qmp and -qtest.
#include <algorithm>
#include <array>

#include "chardev/backend_options.h"
#include "chardev/socket_address.h"
#include "object/object_type.h"
#include "support/suggest.h"

namespace kite {
namespace {

constexpr std::array<std::string_view, 9> kForms{"stdio",     "mon:stdio", "pty",           "null",      "none",
                                                 "file:PATH", "unix:PATH", "tcp:HOST:PORT", "chardev:ID"};

struct MissingForm {
  std::string_view prefix;
  std::string_view reason;
};
constexpr std::array kMissingForms{
    MissingForm{"telnet:", "Kite does not speak telnet; use tcp:HOST:PORT and connect with nc or socat"},
    MissingForm{"websocket:", "Kite does not speak WebSocket here; use tcp:HOST:PORT behind a proxy as websockify"},
    MissingForm{"udp:", "Kite has no UDP back end; use tcp:HOST:PORT"},
    MissingForm{"pipe:", "Kite has no pipe back end; use unix:PATH, or file:PATH for output alone"},
    MissingForm{"vc", "Kite has no display for a virtual console; use stdio, pty or a socket"},
    MissingForm{"/dev/", "Kite does not drive the host's serial ports; use tcp: or unix: and socat"},
};

Result<OptionPairs> tcp_pairs(std::string_view text) {
  KITE_ASSIGN(const OptionPairs given, parse_options(text, "address"));
  if (given.empty() || given.front().first != "address") return fail("tcp: wants HOST:PORT, as in tcp:127.0.0.1:4444");
  const auto address = parse_host_port(given.front().second);
  if (!address) return fail("tcp: {}", address.error().message);
  OptionPairs pairs{{"backend", "socket"}, {"host", address->host}, {"port", address->port}};
  pairs.insert(pairs.end(), given.begin() + 1, given.end());
  return pairs;
}

Result<OptionPairs> unix_pairs(std::string_view text) {
  // The path is cut by hand: one with '=' in it is still a path.
  size_t end = text.find(',');
  while (end != std::string_view::npos && text.substr(end, 2) == ",,") end = text.find(',', end + 2);
  std::string path;
  for (size_t at = 0; at < std::min(end, text.size()); ++at) {
    path += text[at];
    if (text[at] == ',') ++at;
  }
  if (path.empty()) return fail("unix: wants a path, as in unix:/run/kite.sock");
  OptionPairs pairs{{"backend", "socket"}, {"path", path}};
  if (end == std::string_view::npos) return pairs;
  KITE_ASSIGN(const OptionPairs given, parse_options(text.substr(end + 1), ""));
  pairs.insert(pairs.end(), given.begin(), given.end());
  return pairs;
}

Result<OptionPairs> backend_pairs(std::string_view text) {
  if (text.starts_with("file:")) {
    if (text.size() == 5) return fail("file: wants a path, as in file:/tmp/serial.log");
    return OptionPairs{{"backend", "file"}, {"path", std::string(text.substr(5))}};
  }
  if (text.starts_with("unix:")) return unix_pairs(text.substr(5));
  if (text.starts_with("tcp:")) return tcp_pairs(text.substr(4));
  const std::string_view name = text.substr(0, text.find(','));
  if (name == "stdio" || name == "pty" || name == "null") return parse_options(text, "backend");
  for (const MissingForm& missing : kMissingForms) {
    if (text.starts_with(missing.prefix)) return fail("'{}': {}", text, missing.reason);
  }
  return fail("'{}' is no character device{}", text, suggestion(name, kForms));
}

}  // namespace

Result<LegacyChardev> parse_legacy_chardev(std::string_view text) {
  LegacyChardev legacy;
  if (text == "none") return legacy;
  if (text.starts_with("chardev:")) {
    legacy.kind = LegacyChardev::Kind::kReference;
    legacy.reference = text.substr(8);
    return legacy;
  }
  legacy.kind = LegacyChardev::Kind::kBackend;
  const bool muxed = text.starts_with("mon:");
  if (muxed) text.remove_prefix(4);
  KITE_ASSIGN(legacy.pairs, backend_pairs(text));
  if (muxed) {
    // With a monitor on the same terminal, Ctrl-C is the guest's unless it was asked for otherwise; Ctrl-A x ends.
    const bool terminal = legacy.pairs.front().second == "stdio";
    if (terminal) legacy.pairs.insert(legacy.pairs.begin() + 1, std::pair("signal", "off"));
    legacy.pairs.emplace_back("mux", "on");
  }
  return legacy;
}

}  // namespace kite

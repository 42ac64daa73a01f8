#include "chardev/backend_options.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "chardev/file_chardev.h"
#include "chardev/pty_chardev.h"
#include "chardev/socket_chardev.h"
#include "chardev/spice_chardev.h"
#include "chardev/stdio_chardev.h"
#include "object/object_type.h"
#include "support/fd_sets.h"
#include "support/log.h"
#include "support/suggest.h"
#include "tls/credentials_store.h"

namespace kite {
namespace {

struct Backend {
  std::string_view name;
  std::string_view help;
  std::span<const std::string_view> options;  // besides those that all have
};

constexpr std::array<std::string_view, 4> kCommonOptions{"id", "mux", "logfile", "logappend"};
constexpr std::array<std::string_view, 3> kFileOptions{"path", "append", "input-path"};
constexpr std::array<std::string_view, 1> kStdioOptions{"signal"};
constexpr std::array<std::string_view, 1> kSpiceOptions{"name"};
constexpr std::array<std::string_view, 14> kSocketOptions{"path",  "abstract", "tight",     "host",     "port",
                                                          "ipv4",  "ipv6",     "server",    "wait",     "nodelay",
                                                          "delay", "fd",       "reconnect", "tls-creds"};
constexpr std::array kBackends{
    Backend{"file", "output to a file: path=PATH[,append=on][,input-path=PATH]", kFileOptions},
    Backend{"null", "nothing: output is dropped", {}},
    Backend{"pty", "a new pseudo-terminal", {}},
    Backend{"socket",
            "path=PATH[,abstract=on] or host=HOST,port=PORT or fd=N; [,server=on[,wait=off]] or [,reconnect=SECONDS]; "
            "TCP also [,nodelay=off][,ipv4=on][,ipv6=on]; [,tls-creds=ID] with TLS",
            kSocketOptions},
    Backend{"spiceport", "a port of its own for SPICE clients: name=NAME, as org.spice-space.webdav.0", kSpiceOptions},
    Backend{"spicevmc", "the SPICE server's way to the agent in the guest: name=vdagent", kSpiceOptions},
    Backend{"stdio", "the terminal that Kite was started on: [signal=off] (Ctrl-C goes to the guest)", kStdioOptions},
};

struct MissingOption {
  std::string_view name;
  std::string_view reason;
};
constexpr std::array kMissingSocketOptions{
    MissingOption{"telnet", "Kite does not speak telnet; connect with a program for plain TCP, as nc or socat"},
    MissingOption{"tn3270", "Kite does not speak TN3270"},
    MissingOption{"websocket", "Kite does not speak WebSocket here; put a proxy as websockify before it"},
    MissingOption{"tls-authz", "Kite has no lists of those who may connect; let the authority of tls-creds= decide it"},
    MissingOption{"to", "Kite tries one port; use port=0 for any that is free"},
};

bool contains(std::span<const std::string_view> names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

const Backend* find_backend(std::string_view name) {
  const auto found = std::ranges::find(kBackends, name, &Backend::name);
  return found == kBackends.end() ? nullptr : &*found;
}

// What QEMU's sockets have and ours do not; it may be given when it is switched off.
const MissingOption* find_missing(const Backend& backend, std::string_view name) {
  if (backend.name != "socket") return nullptr;
  const auto found = std::ranges::find(kMissingSocketOptions, name, &MissingOption::name);
  return found == kMissingSocketOptions.end() ? nullptr : &*found;
}

Failure unknown_option(const Backend& backend, std::string_view name) {
  std::vector<std::string_view> names(kCommonOptions.begin(), kCommonOptions.end());
  names.insert(names.end(), backend.options.begin(), backend.options.end());
  return fail("the chardev back end '{}' has no option '{}'{}", backend.name, name, suggestion(name, names));
}

// Sets `name` to `value`; a later one counts.
void put(OptionPairs& pairs, std::string name, std::string value) {
  const auto found = std::ranges::find(pairs, name, &OptionPairs::value_type::first);
  if (found != pairs.end()) {
    found->second = std::move(value);
  } else {
    pairs.emplace_back(std::move(name), std::move(value));
  }
}

Result<Fd> open_log(const BackendOptions& options) {
  KITE_ASSIGN(const bool append, options.boolean("logappend", false));
  const std::string path = options.text("logfile");
  if (path.empty()) {
    if (append) return fail("logappend=on wants a logfile=");
    return Fd();
  }
  const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND | (append ? 0 : O_TRUNC);
  Fd log(open_or_take(path, flags, 0666));
  if (!log.valid()) return fail("cannot open the log file '{}': {}", path, errno_text(errno));
  return log;
}

Result<NewBackend> create_file(std::string id, const BackendOptions& options, Executor& executor, Fd log) {
  KITE_ASSIGN(const bool append, options.boolean("append", false));
  if (options.text("path").empty()) return fail("the chardev back end 'file' wants path=PATH");
  FileChardev::Config config{.path = options.text("path"), .append = append, .input_path = options.text("input-path")};
  KITE_ASSIGN(auto file, FileChardev::create(std::move(id), executor, std::move(log), std::move(config)));
  return NewBackend{.chardev = std::move(file)};
}

Result<NewBackend> create_stdio(std::string id, const BackendOptions& options, Executor& executor, Fd log) {
  KITE_ASSIGN(const bool signals, options.boolean("signal", true));
  KITE_ASSIGN(auto stdio,
              StdioChardev::create(std::move(id), executor, std::move(log), StdioChardev::Config{.signals = signals}));
  return NewBackend{.chardev = std::move(stdio)};
}

Result<NewBackend> create_pty(std::string id, Executor& executor, Fd log, Clock& clock) {
  KITE_ASSIGN(auto pty, PtyChardev::create(std::move(id), executor, std::move(log), clock));
  log::info("chardev '{}' is the terminal {}", pty->id(), pty->path());
  return NewBackend{.chardev = std::move(pty)};
}

Result<SocketAddress> socket_address(const BackendOptions& options, bool server) {
  SocketAddress address;
  address.path = options.text("path");
  KITE_ASSIGN(address.abstract, options.boolean("abstract", false));
  KITE_ASSIGN(const bool tight, options.boolean("tight", true));
  if (!tight) return fail("tight=off: Kite takes abstract socket names without padding only");
  address.host = options.text("host");
  address.port = options.text("port");
  for (const auto& [name, target] : {std::pair("ipv4", &address.ipv4), std::pair("ipv6", &address.ipv6)}) {
    if (!options.has(name)) continue;
    KITE_ASSIGN(*target, options.boolean(name, true));
  }
  const int places = !address.path.empty() + (options.has("host") || options.has("port")) + options.has("fd");
  if (places != 1) return fail("a socket wants one of path=PATH, host=HOST,port=PORT and fd=N");
  if (options.has("fd")) return address;
  if (address.path.empty() && address.port.empty())
    return fail("the socket on host '{}' wants port=PORT", address.host);
  if (address.ipv4 == false && address.ipv6 == false) return fail("ipv4=off,ipv6=off leaves no kind of address");
  if (!server && address.path.empty() && address.host.empty()) address.host = "localhost";
  return address;
}

Result<std::shared_ptr<const tls::Credentials>> socket_credentials(const BackendOptions& options,
                                                                   const BackendWiring& wiring, bool server) {
  const std::string id = options.text("tls-creds");
  if (id.empty()) return nullptr;
  if (wiring.credentials == nullptr) return fail("tls-creds={}: there is no -object of this kind here", id);
  return wiring.credentials->find(id, server ? tls::Endpoint::kServer : tls::Endpoint::kClient);
}

Result<NewBackend> create_socket(std::string id, const BackendOptions& options, const BackendWiring& wiring, Fd log) {
  constexpr uint64_t kLongestSeconds = 86'400;
  SocketChardev::Config config;
  SocketPeers::Config& peers = config.peers;
  KITE_ASSIGN(peers.server, options.boolean("server", false));
  KITE_ASSIGN(peers.address, socket_address(options, peers.server));
  KITE_ASSIGN(const bool delay, options.boolean("delay", false));
  KITE_ASSIGN(config.no_delay, options.boolean("nodelay", !delay));
  KITE_ASSIGN(config.wait, options.boolean("wait", peers.server));
  KITE_ASSIGN(const uint64_t seconds, options.number("reconnect", 0, kLongestSeconds));
  if (options.has("fd")) {
    KITE_ASSIGN(const uint64_t fd, options.number("fd", 0, INT32_MAX));
    peers.fd = static_cast<int>(fd);
  }
  if (peers.server && seconds != 0) return fail("reconnect= is for a client; a server waits for the next peer anyway");
  if (!peers.server && config.wait) return fail("wait=on is for a server; add server=on");
  peers.reconnect_ns = static_cast<int64_t>(seconds) * 1'000'000'000;
  KITE_ASSIGN(config.credentials, socket_credentials(options, wiring, peers.server));
  KITE_ASSIGN(auto socket,
              SocketChardev::create(std::move(id), wiring.executor, std::move(log), wiring.clock, std::move(config)));
  SocketChardev* raw = socket.get();
  return NewBackend{.chardev = std::move(socket), .socket = raw};
}

// What a spicevmc may carry, as QEMU has it, and why not here; "" for what may.
constexpr MissingOption kSpiceNames[] = {
    {"vdagent", ""},
    {"usbredir", "Kite has no usb-redir device for it; give the machine sticks with usb-storage, and leave this out"},
    {"smartcard", "Kite has no card reader for it; leave it out"},
};

Result<> check_spice_name(std::string_view backend, std::string_view name) {
  if (name.empty()) return fail("the chardev back end '{}' wants name=NAME", backend);
  if (backend == "spiceport") return {};
  const auto* const known = std::ranges::find(kSpiceNames, name, &MissingOption::name);
  if (known == std::end(kSpiceNames)) {
    constexpr std::string_view kNames[] = {"vdagent"};
    return fail("name={}: SPICE has no such thing; give vdagent{}", name, suggestion(name, kNames));
  }
  if (!known->reason.empty()) return fail("name={}: {}", name, known->reason);
  return {};
}

Result<NewBackend> create_spice(std::string id, const BackendOptions& options, Executor& executor, Fd log) {
  const std::string name = options.text("name");
  KITE_TRY(check_spice_name(options.backend(), name));
  const bool port = options.backend() == "spiceport";
  auto made = std::make_unique<SpiceChardev>(
      std::move(id), executor, std::move(log),
      SpiceChardev::Config{.subtype = port ? "port" : name, .port_name = port ? name : ""});
  SpiceChardev* raw = made.get();
  return NewBackend{.chardev = std::move(made), .spice = raw};
}

}  // namespace

std::string chardev_help() {
  std::string text = "Back ends (all take id=ID[,mux=on][,logfile=PATH[,logappend=on]]):\n";
  for (const Backend& backend : kBackends) text += fmt::format("  {:<9} {}\n", backend.name, backend.help);
  return text;
}

Result<BackendOptions> BackendOptions::parse(const OptionPairs& pairs) {
  BackendOptions options;
  const auto named = std::ranges::find(pairs, "backend", &OptionPairs::value_type::first);
  if (named != pairs.end()) options.backend_ = named->second;
  const Backend* backend = find_backend(options.backend_);
  if (backend == nullptr) {
    std::vector<std::string_view> names;
    for (const Backend& known : kBackends) names.push_back(known.name);
    return fail("there is no chardev back end '{}'{}", options.backend_, suggestion(options.backend_, names));
  }
  for (const auto& [name, value] : pairs) {
    if (name == "backend") continue;
    const auto known = [backend](std::string_view option) {
      return contains(kCommonOptions, option) || contains(backend->options, option);
    };
    if (known(name)) {
      put(options.values_, name, value);
    } else if (name.starts_with("no") && value == "on" && known(std::string_view(name).substr(2))) {
      put(options.values_, name.substr(2), "off");  // "nowait", as command lines have had it for long
    } else if (const MissingOption* missing = find_missing(*backend, name); missing == nullptr) {
      return unknown_option(*backend, name);
    } else if (value != "off") {
      return fail("chardev option {}={}: {}", name, value, missing->reason);
    }
  }
  return options;
}

const std::string* BackendOptions::find(std::string_view name) const {
  const auto found = std::ranges::find(values_, name, &OptionPairs::value_type::first);
  return found == values_.end() ? nullptr : &found->second;
}

std::string BackendOptions::text(std::string_view name) const {
  const std::string* value = find(name);
  return value == nullptr ? std::string() : *value;
}

Result<bool> BackendOptions::boolean(std::string_view name, bool otherwise) const {
  const std::string* value = find(name);
  if (value == nullptr) return otherwise;
  auto parsed = parse_bool(*value);
  if (!parsed) return fail("chardev option {}: {}", name, parsed.error().message);
  return parsed;
}

Result<uint64_t> BackendOptions::number(std::string_view name, uint64_t otherwise, uint64_t most) const {
  const std::string* value = find(name);
  if (value == nullptr) return otherwise;
  auto parsed = parse_unsigned(*value);
  if (!parsed) return fail("chardev option {}: {}", name, parsed.error().message);
  if (*parsed > most) return fail("chardev option {}: '{}' is out of range; 0 to {} is allowed", name, *value, most);
  return parsed;
}

Result<NewBackend> create_backend(std::string id, const BackendOptions& options, const BackendWiring& wiring) {
  Executor& executor = wiring.executor;
  KITE_ASSIGN(Fd log, open_log(options));
  const std::string_view backend = options.backend();
  if (backend == "file") return create_file(std::move(id), options, executor, std::move(log));
  if (backend == "pty") return create_pty(std::move(id), executor, std::move(log), wiring.clock);
  if (backend == "socket") return create_socket(std::move(id), options, wiring, std::move(log));
  if (backend == "spicevmc" || backend == "spiceport")
    return create_spice(std::move(id), options, executor, std::move(log));
  if (backend == "stdio") return create_stdio(std::move(id), options, executor, std::move(log));
  return NewBackend{.chardev = std::make_unique<NullChardev>(std::move(id), executor, std::move(log))};
}

}  // namespace kite

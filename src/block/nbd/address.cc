#include "block/nbd/address.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <coroutine>
#include <cstring>
#include <memory>
#include <vector>

#include "block/nbd/wire.h"
#include "block/timed.h"
#include "block/worker_pool.h"

namespace kite::block::nbd {
namespace {

constexpr int64_t kQueueFullNs = 10'000'000;

// "%41" is "A" ([RFC 3986] 2.1).
Result<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const auto digit = [&](size_t at) {
      const char c = at < text.size() ? text[at] : ' ';
      const size_t value = std::string_view("0123456789abcdef").find(static_cast<char>(c | 0x20));
      return value == std::string_view::npos || c == ' ' ? 16u : static_cast<unsigned>(value);
    };
    const unsigned high = digit(i + 1);
    const unsigned low = digit(i + 2);
    if (high > 15 || low > 15 || (high | low) == 0) return fail("'{}': '%' wants two hexadecimal digits", text);
    out += static_cast<char>(high << 4 | low);
    i += 2;
  }
  return out;
}

std::string percent_encoded(std::string_view text, std::string_view plain) {
  std::string out;
  for (const char c : text) {
    const bool safe = std::isalnum(static_cast<unsigned char>(c)) != 0 || plain.find(c) != std::string_view::npos;
    out += safe ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

Result<> check_target(const Target& target, std::string_view name) {
  if (target.export_name.size() > kLongestString) return fail("export name too long to send to server");
  if (target.export_name.find('\0') != std::string::npos) return fail("'{}': the export's name has a zero byte", name);
  if (target.address.path.empty() && target.address.host.empty()) return fail("'{}' names no server", name);
  return {};
}

// HOST[:PORT] or [IPV6][:PORT].
Result<Address> parse_host(std::string_view text, bool needs_port) {
  Address address;
  size_t end = 0;
  if (text.starts_with('[')) {
    end = text.find(']');
    if (end == std::string_view::npos) return fail("error parsing IPv6 address '{}'", text);
    address.host = text.substr(1, end - 1);
    ++end;
  } else {
    end = std::min(text.find(':'), text.size());
    address.host = text.substr(0, end);
  }
  address.port = std::to_string(kDefaultPort);
  if (end < text.size() && text[end] == ':') {
    address.port = text.substr(end + 1);
  } else if (end < text.size() || needs_port) {
    return fail("error parsing address '{}': HOST:PORT is expected", text);
  }
  const Result<uint64_t> port = parse_unsigned(address.port);
  if (!port || *port == 0 || *port > 65535) return fail("error parsing port in address '{}'", text);
  return address;
}

// What follows "nbd:".
Result<Target> parse_old(std::string_view name) {
  Target target;
  if (!name.starts_with("nbd:"))
    return fail("File name string for new protocols must start with \"nbd:\", not '{}'", name);
  std::string_view rest = name.substr(4);
  constexpr std::string_view kExport = ":exportname=";
  if (const size_t at = rest.find(kExport); at != std::string_view::npos) {
    target.export_name = rest.substr(at + kExport.size());
    rest = rest.substr(0, at);
  }
  if (rest.starts_with("unix:")) {
    target.address.path = rest.substr(5);
  } else {
    KITE_ASSIGN(target.address, parse_host(rest, true));
  }
  return target;
}

Result<Target> parse_uri(std::string_view name) {
  const size_t scheme_end = name.find("://");
  const std::string_view scheme = name.substr(0, scheme_end);
  std::string_view rest = name.substr(scheme_end + 3);
  std::string_view query;
  if (const size_t at = rest.find('?'); at != std::string_view::npos) {
    query = rest.substr(at + 1);
    rest = rest.substr(0, at);
  }
  const size_t slash = std::min(rest.find('/'), rest.size());
  const std::string_view authority = rest.substr(0, slash);
  Target target;
  KITE_ASSIGN(target.export_name, percent_decoded(slash < rest.size() ? rest.substr(slash + 1) : ""));
  if (scheme == "nbd+unix") {
    if (!authority.empty() || !query.starts_with("socket=") || query.find('&') != std::string_view::npos) {
      return fail("'{}': nbd+unix:///EXPORT?socket=PATH is expected", name);
    }
    KITE_ASSIGN(target.address.path, percent_decoded(query.substr(7)));
    return target;
  }
  if (scheme != "nbd" && scheme != "nbd+tcp") {
    return fail("'{}': the scheme '{}' is not one of nbd, nbd+tcp, nbd+unix (encrypted NBD is not supported)", name,
                scheme);
  }
  if (!query.empty()) return fail("'{}': a name of a TCP server has no '?' part", name);
  KITE_ASSIGN(target.address, parse_host(authority.empty() ? "localhost" : authority, false));
  return target;
}

// Waits until the descriptor can be written (a connect has ended), or the time is over.
struct Writable {
  Executor& executor;
  int fd;
  int64_t ns;
  bool ended = false, in_time = false;
  std::coroutine_handle<> waiter{};
  std::unique_ptr<Alarm> alarm{};

  [[nodiscard]] bool await_ready() const noexcept { return ns <= 0; }
  void await_suspend(std::coroutine_handle<> handle) {
    waiter = handle;
    executor.watch(fd, EPOLLOUT, [this](uint32_t) { end(true); });
    alarm = std::make_unique<Alarm>(executor, ns, [this] { end(false); });
  }
  [[nodiscard]] bool await_resume() const noexcept { return in_time; }

 private:
  // Not resumed from here: what calls us goes with the coroutine's frame.
  void end(bool ready) {
    if (std::exchange(ended, true)) return;
    in_time = ready;
    executor.unwatch(fd);
    executor.post([handle = waiter] { handle.resume(); });
  }
};

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

// What a name stands for; blocks while it asks.
Result<std::vector<SocketAddress>> resolve(const Address& address) {
  std::vector<SocketAddress> found;
  if (!address.path.empty()) {
    SocketAddress one;
    auto* unix_address = reinterpret_cast<sockaddr_un*>(&one.storage);
    if (address.path.size() >= sizeof unix_address->sun_path) {
      return fail("UNIX socket path '{}' is too long: at most {} bytes", address.path,
                  sizeof unix_address->sun_path - 1);
    }
    unix_address->sun_family = AF_UNIX;
    std::memcpy(unix_address->sun_path, address.path.data(), address.path.size());
    one.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.path.size() + 1);
    found.push_back(one);
    return found;
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &list);
  if (error != 0) {
    return fail("address resolution failed for {}:{}: {}", address.host, address.port, ::gai_strerror(error));
  }
  for (const addrinfo* at = list; at != nullptr; at = at->ai_next) {
    SocketAddress one;
    std::memcpy(&one.storage, at->ai_addr, at->ai_addrlen);
    one.length = at->ai_addrlen;
    found.push_back(one);
  }
  ::freeaddrinfo(list);
  return found;
}

// Connects to one address; answers the socket or an errno.
Task<IoResult<Fd>> connect_one(Executor& executor, SocketAddress to, int64_t deadline_ns) {
  const int family = to.storage.ss_family;
  Fd socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) co_return io_fail(errno);
  if (family != AF_UNIX) {
    const int on = 1;
    ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  }
  while (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&to.storage), to.length) != 0) {
    if (errno == EINPROGRESS) break;
    // [linux: man 2 connect] EAGAIN: a unix socket whose queue of connections is full at the moment.
    if (errno != EAGAIN || monotonic_ns() >= deadline_ns) co_return io_fail(errno);
    co_await sleep_ns(executor, kQueueFullNs);
  }
  const int64_t left_ns = std::max<int64_t>(deadline_ns - monotonic_ns(), 1);
  if (!co_await Writable{executor, socket.get(), left_ns}) co_return io_fail(ETIMEDOUT);
  int error = 0;
  socklen_t length = sizeof error;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error != 0) co_return io_fail(error);
  co_return IoResult<Fd>(std::move(socket));
}

}  // namespace

Result<Target> parse_target(std::string_view name) {
  Result<Target> target = name.find("://") != std::string_view::npos ? parse_uri(name) : parse_old(name);
  if (target) KITE_TRY(check_target(*target, name));
  return target;
}

Result<Address> take_address(BlockOptions& options) {
  BlockOptions server = options.take_child("server");
  const bool flat = server.empty();
  BlockOptions& from = flat ? options : server;
  // [QMP] SocketAddress: "type" decides which members there are; the older flat form has "path" or "host" and "port".
  std::string type = flat ? "" : from.take_string("type");
  if (flat) type = options.has("path") ? "unix" : "inet";
  Address address;
  if (type == "unix") {
    address.path = from.take_string("path");
    if (address.path.empty()) return fail("NBD server address missing: the option 'path' is needed");
    if (flat && (options.has("host") || options.has("port")))
      return fail("path and host may not be used at the same time");
  } else if (type == "inet") {
    address.host = from.take_string("host");
    address.port = from.take_string("port", std::to_string(kDefaultPort));
    if (address.host.empty()) return fail("NBD server address missing: 'server.type', or 'host', or 'path', is needed");
  } else {
    return fail("Parameter 'server.type' does not accept value '{}': inet or unix is expected", type);
  }
  if (!flat) KITE_TRY(server.all_taken("nbd"));
  return address;
}

std::string address_text(const Address& address) {
  return address.path.empty() ? address.host + ":" + address.port : address.path;
}

std::string target_uri(const Target& target) {
  const std::string name = percent_encoded(target.export_name, "-._~/");
  if (!target.address.path.empty()) {
    return fmt::format("nbd+unix://{}{}?socket={}", name.empty() ? "" : "/", name,
                       percent_encoded(target.address.path, "-._~/"));
  }
  const bool v6 = target.address.host.find(':') != std::string::npos;
  return fmt::format("nbd://{}{}{}:{}{}{}", v6 ? "[" : "", target.address.host, v6 ? "]" : "", target.address.port,
                     name.empty() ? "" : "/", name);
}

Task<Result<Fd>> connect_to(Executor& executor, Address address, int64_t deadline_ns) {
  Result<std::vector<SocketAddress>> found = fail("");
  if (address.path.empty()) {
    co_await run_in_worker(executor, [&] { found = resolve(address); });
  } else {
    found = resolve(address);
  }
  if (!found) co_return Failure(std::move(found).error());
  int error = ENOENT;
  for (const SocketAddress& to : *found) {
    IoResult<Fd> socket = co_await connect_one(executor, to, deadline_ns);
    if (socket) co_return Result<Fd>(std::move(*socket));
    error = socket.error().code;
  }
  co_return fail("Failed to connect to '{}': {}", address_text(address), errno_text(error));
}

}  // namespace kite::block::nbd

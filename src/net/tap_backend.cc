#include "net/tap_backend.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "object/object_type.h"
#include "support/log.h"
#include "support/suggest.h"

namespace kite::net {

// --- options

namespace {

constexpr std::string_view kOptions[] = {"ifname", "fd", "script", "downscript", "vhost", "vhostfd"};
constexpr std::string_view kMissing[] = {"fds",    "br",         "helper",   "sndbuf", "vnet_hdr",
                                         "queues", "vhostforce", "vhostfds", "poll-us"};

Result<> apply(TapConfig& config, std::string_view name, std::string_view value) {
  if (name == "ifname") {
    if (value.empty() || value.size() >= IFNAMSIZ)
      return fail("ifname={}: an interface's name has 1 to {} characters", value, IFNAMSIZ - 1);
    config.interface = std::string(value);
  } else if (name == "fd" || name == "vhostfd") {
    const auto number = parse_unsigned(value);
    if (!number || *number > INT32_MAX)
      return fail("{}={}: the number of a descriptor that this process was started with is expected", name, value);
    (name == "fd" ? config.fd : config.vhost_fd) = static_cast<int>(*number);
  } else if (name == "script" || name == "downscript") {
    if (value != "no" && !value.empty())
      return fail("{}={}: this version of Kite runs no scripts; set the interface up before, and write {}=no", name,
                  value, name);
  } else if (name == "vhost") {
    // A wish, as in QEMU: what insists on it is vhostforce.
    const auto wanted = parse_bool(value);
    if (!wanted) return fail("vhost={}: {}", value, wanted.error().message);
    config.vhost = *wanted;
  } else if (std::ranges::find(kMissing, name) != std::end(kMissing)) {
    return fail("{}={}: this version of Kite has no such setting of a tap yet", name, value);
  } else {
    return fail("tap has no setting '{}'{}", name, suggestion(name, kOptions));
  }
  return {};
}

}  // namespace

Result<TapConfig> parse_tap_options(const Settings& settings) {
  TapConfig config;
  for (const auto& [name, value] : settings) KITE_TRY(apply(config, name, value));
  if (config.fd >= 0 && !config.interface.empty()) return fail("it takes one of ifname= and fd=");
  return config;
}

// --- the interface

namespace {

Result<Fd> open_interface(const std::string& name) {
  constexpr const char* kDevice = "/dev/net/tun";
  Fd tap(::open(kDevice, O_RDWR | O_CLOEXEC));
  if (!tap.valid()) return fail("cannot open {}: {}", kDevice, errno_text(errno));
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (::ioctl(tap.get(), TUNSETIFF, &request) != 0)
    return fail(
        "ifname={}: the tap interface cannot be had: {}; root can make one for a user: ip tuntap add dev NAME "
        "mode tap user USER",
        name, errno_text(errno));
  return tap;
}

// What it is attached to, and what its frames start with.
struct Attached {
  std::string interface;
  size_t header_bytes;
};
Result<Attached> look_at(int fd) {
  ifreq request{};
  if (::ioctl(fd, TUNGETIFF, &request) != 0)
    return fail("descriptor {} is no tap interface: {}", fd, errno_text(errno));
  if ((request.ifr_flags & IFF_TAP) == 0 || (request.ifr_flags & IFF_NO_PI) == 0)
    return fail("descriptor {} is a tun interface or has packet information; IFF_TAP with IFF_NO_PI is wanted", fd);
  int header = 0;
  if ((request.ifr_flags & IFF_VNET_HDR) != 0 && ::ioctl(fd, TUNGETVNETHDRSZ, &header) != 0)
    return fail("descriptor {}: {}", fd, errno_text(errno));
  // Whole frames with their checksums, whoever had it before.
  (void)::ioctl(fd, TUNSETOFFLOAD, 0);
  return Attached{.interface = request.ifr_name, .header_bytes = static_cast<size_t>(header)};
}

}  // namespace

Result<std::unique_ptr<TapBackend>> TapBackend::create(std::string id, Executor& executor, const TapConfig& config) {
  if (config.fd >= 0 && ::fcntl(config.fd, F_GETFD) < 0) return fail("fd={}: there is no such descriptor", config.fd);
  Fd tap;
  if (config.fd < 0) {
    KITE_ASSIGN(tap, open_interface(config.interface));
  }
  const int fd = config.fd < 0 ? tap.get() : config.fd;
  KITE_ASSIGN(const Attached attached, look_at(fd));
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || ::fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
    return fail("the tap '{}': {}", attached.interface, errno_text(errno));
  // Another's descriptor is taken now that nothing can fail: a number that is something else stays open.
  if (config.fd >= 0) tap.reset(config.fd);
  if (config.vhost) log::warn("-netdev {}: there is no vhost-net here; frames go through this process", id);
  if (config.vhost_fd >= 0) ::close(config.vhost_fd);
  return std::make_unique<TapBackend>(std::move(id), executor, std::move(tap), attached.interface,
                                      attached.header_bytes);
}

TapBackend::TapBackend(std::string id, Executor& executor, Fd tap, std::string interface, size_t header_bytes)
    : NetBackend(std::move(id), "tap", executor),
      tap_(std::move(tap)),
      interface_(std::move(interface)),
      header_bytes_(header_bytes),
      buffer_(header_bytes + kMostFrameBytes) {
  this->executor().watch(tap_.get(), EPOLLIN, [this](uint32_t events) { ready(events); });
}

TapBackend::~TapBackend() { executor().unwatch(tap_.get()); }

std::string TapBackend::info() const { return fmt::format("ifname={},script=no,downscript=no", interface_); }

// --- frames

void TapBackend::update_interest() {
  const bool reads = !over_ && !backed_up();
  executor().modify(tap_.get(), (reads ? uint32_t{EPOLLIN} : 0) | (full_ && !over_ ? uint32_t{EPOLLOUT} : 0));
}

void TapBackend::ready(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) read_frames();
  if (full_ && (events & (EPOLLOUT | EPOLLERR)) != 0) {
    full_ = false;
    if (client() != nullptr) client()->writable();
  }
  update_interest();
}

void TapBackend::read_frames() {
  constexpr int kFramesATime = 64;  // others have their turn
  for (int count = 0; count < kFramesATime && !backed_up(); ++count) {
    const ssize_t got = ::read(tap_.get(), buffer_.data(), buffer_.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      over_ = true;
      log::warn("-netdev {}: the tap '{}' gives no frames any more: {}", id(), interface_,
                got == 0 ? "it is closed" : errno_text(errno));
      return;
    }
    const auto bytes = static_cast<size_t>(got);
    if (bytes >= header_bytes_ + kHeaderBytes) deliver(Frame(buffer_).subspan(header_bytes_, bytes - header_bytes_));
  }
}

Delivery TapBackend::do_send(Frame frame) {
  if (over_) return Delivery::kDropped;
  constexpr size_t kMostHeader = 64;
  static constexpr std::array<uint8_t, kMostHeader> kZeroes{};
  const std::array parts{
      iovec{.iov_base = const_cast<uint8_t*>(kZeroes.data()), .iov_len = std::min(header_bytes_, kMostHeader)},
      iovec{.iov_base = const_cast<uint8_t*>(frame.data()), .iov_len = frame.size()}};
  ssize_t wrote = 0;
  do wrote = ::writev(tap_.get(), parts.data(), static_cast<int>(parts.size()));
  while (wrote < 0 && errno == EINTR);
  if (wrote >= 0) return Delivery::kTaken;
  if (errno != EAGAIN && errno != ENOBUFS) return Delivery::kDropped;  // an interface that is down
  full_ = true;
  update_interest();
  return Delivery::kFull;
}

}  // namespace kite::net

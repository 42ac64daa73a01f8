#include "net/tap_device.h"

#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "net/program.h"

namespace kite::net {

namespace {

constexpr const char* kDevice = "/dev/net/tun";
constexpr const char* kUsualHelpers[] = {"/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper",
                                         "/usr/local/libexec/qemu-bridge-helper"};

ifreq request_of(const std::string& interface) {
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  return request;
}

bool for_want_of_rights(int error) { return error == EPERM || error == EACCES; }

// --- making one

struct Made {
  Fd fd;
  int error = 0;  // why there is none
};
Made make_interface(const TapConfig& config) {
  Fd tap(::open(kDevice, O_RDWR | O_CLOEXEC));
  if (!tap.valid()) return {.fd = {}, .error = errno};
  ifreq request = request_of(config.interface);
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | (config.virtio_header ? IFF_VNET_HDR : 0));
  if (::ioctl(tap.get(), TUNSETIFF, &request) != 0) return {.fd = {}, .error = errno};
  return {.fd = std::move(tap)};
}

Failure not_made(const TapConfig& config, int error) {
  return fail(
      "{}={}: the tap interface cannot be had ({}): {}; root can make one for a user: ip tuntap add dev NAME mode tap "
      "user USER",
      config.interface.empty() && !config.bridge.empty() ? "br" : "ifname",
      config.interface.empty() ? config.bridge : config.interface, kDevice, errno_text(error));
}

// --- bridges

Result<Fd> control_socket() {
  Fd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!control.valid()) return fail("cannot look at the host's interfaces: {}", errno_text(errno));
  return control;
}

// A bridge says so itself; /sys may be another network namespace's.
Result<> check_bridge(const std::string& bridge) {
  KITE_ASSIGN(const Fd control, control_socket());
  ifreq request = request_of(bridge);
  if (::ioctl(control.get(), SIOCGIFINDEX, &request) != 0)
    return fail("br={}: there is no such interface; root can make it: ip link add {} type bridge", bridge, bridge);
  ethtool_drvinfo driver{};
  driver.cmd = ETHTOOL_GDRVINFO;
  request.ifr_data = reinterpret_cast<char*>(&driver);
  const bool told = ::ioctl(control.get(), SIOCETHTOOL, &request) == 0;
  if (!told || std::strncmp(driver.driver, "bridge", sizeof driver.driver) != 0)
    return fail("br={}: this interface is no bridge of the kernel's", bridge);
  return {};
}

// An address of its own from far up, so that the bridge, which takes the lowest of its ports, keeps the one it has.
Result<> keep_address_of_bridge(int control, const std::string& interface) {
  ifreq request = request_of(interface);
  if (::ioctl(control, SIOCGIFHWADDR, &request) == 0) {
    request.ifr_hwaddr.sa_data[0] = static_cast<char>(0xfe);
    if (::ioctl(control, SIOCSIFHWADDR, &request) == 0) return {};
  }
  return fail("the tap interface '{}' takes no address: {}", interface, errno_text(errno));
}

// Makes the interface a port of the bridge, and sets it up. Answers an errno, 0 when all is well.
int join_bridge(int control, const std::string& bridge, const std::string& interface) {
  ifreq size = request_of(bridge);
  if (::ioctl(control, SIOCGIFMTU, &size) == 0) {
    interface.copy(size.ifr_name, IFNAMSIZ - 1);
    size.ifr_name[interface.size()] = 0;
    if (::ioctl(control, SIOCSIFMTU, &size) != 0) return errno;
  }
  ifreq port = request_of(bridge);
  port.ifr_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
  if (::ioctl(control, SIOCBRADDIF, &port) != 0) return errno;
  ifreq flags = request_of(interface);
  if (::ioctl(control, SIOCGIFFLAGS, &flags) != 0) return errno;
  flags.ifr_flags = static_cast<short>(flags.ifr_flags | IFF_UP);
  return ::ioctl(control, SIOCSIFFLAGS, &flags) != 0 ? errno : 0;
}

Result<> put_on_bridge(const std::string& bridge, int tap) {
  KITE_ASSIGN(const Fd control, control_socket());
  ifreq request{};
  if (::ioctl(tap, TUNGETIFF, &request) != 0) return fail("br={}: {}", bridge, errno_text(errno));
  const std::string interface = request.ifr_name;
  KITE_TRY(keep_address_of_bridge(control.get(), interface));
  if (const int error = join_bridge(control.get(), bridge, interface); error != 0)
    return fail("br={}: the tap interface '{}' does not become a port of this bridge: {}{}", bridge, interface,
                errno_text(error), for_want_of_rights(error) ? "; the right CAP_NET_ADMIN is needed" : "");
  return {};
}

Result<Fd> from_usual_helper(const std::string& bridge) {
  for (const char* const helper : kUsualHelpers)
    if (::access(helper, X_OK) == 0) return run_bridge_helper(helper, bridge);
  return fail(
      "br={}: this process has not the right to make a tap interface (CAP_NET_ADMIN), and there is no helper as {}; "
      "name one with helper=PATH",
      bridge, kUsualHelpers[0]);
}

Result<Fd> on_bridge(const TapConfig& config) {
  KITE_TRY(check_bridge(config.bridge));
  Made made = make_interface(config);
  if (!made.fd.valid() && config.usual_helper && for_want_of_rights(made.error))
    return from_usual_helper(config.bridge);
  if (!made.fd.valid()) return not_made(config, made.error);
  KITE_TRY(put_on_bridge(config.bridge, made.fd.get()));
  return std::move(made.fd);
}

// --- what it is

// What it is attached to, and what its frames start with.
Result<> look_at(int fd, const TapConfig& config, TapDevice& device) {
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
  device.interface = request.ifr_name;
  device.header_bytes = static_cast<size_t>(header);
  if (config.send_buffer && ::ioctl(fd, TUNSETSNDBUF, &*config.send_buffer) != 0)
    return fail("sndbuf={}: the tap interface '{}' does not take it: {}", *config.send_buffer, device.interface,
                errno_text(errno));
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || ::fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
    return fail("the tap '{}': {}", device.interface, errno_text(errno));
  return {};
}

Result<Fd> make(const TapConfig& config) {
  if (!config.helper.empty()) return run_bridge_helper(config.helper, config.bridge);
  if (!config.bridge.empty()) return on_bridge(config);
  Made made = make_interface(config);
  if (!made.fd.valid()) return not_made(config, made.error);
  return std::move(made.fd);
}

}  // namespace

Result<TapDevice> open_tap(const TapConfig& config) {
  TapDevice device;
  if (config.fd < 0) {
    KITE_ASSIGN(device.fd, make(config));
  }
  KITE_TRY(look_at(config.fd < 0 ? device.fd.get() : config.fd, config, device));
  // Another's descriptor is taken now that nothing can fail: a number that is something else stays open.
  if (config.fd >= 0) device.fd.reset(config.fd);
  return device;
}

}  // namespace kite::net

#include "display/spice/spice_device.h"

#include <spice/protocol.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "support/log.h"

namespace kite::display {

SpiceDevice::SpiceDevice(Executor& executor, SpiceServer& server, std::string subtype, std::string port_name,
                         std::function<void(Fd)> socket_made)
    : executor_(executor),
      server_(server),
      subtype_(std::move(subtype)),
      port_name_(std::move(port_name)),
      socket_made_(std::move(socket_made)) {
  library_.instance.base.sif = interface();
  library_.instance.subtype = subtype_.c_str();
  library_.instance.portname = is_port() ? port_name_.c_str() : nullptr;
  library_.owner = this;
  if (is_port()) enter();
}

SpiceDevice::~SpiceDevice() {
  leave();
  drop();
}

void SpiceDevice::enter() {
  known_ = spice_server_add_interface(&server_, &library_.instance.base) == 0;
  if (known_) return;
  drop();
  log::warn("SPICE: the library takes no device '{}'; there can be one agent", subtype_);
}

void SpiceDevice::leave() {
  if (std::exchange(known_, false)) spice_server_remove_interface(&library_.instance.base);
}

void SpiceDevice::set_open(bool open, Fd socket) {
  if (known_) spice_server_char_device_wakeup(&library_.instance);  // what the guest said before comes first
  if (is_port()) {
    if (known_ && std::exchange(open_, open) != open)
      spice_server_port_event(&library_.instance, open ? SPICE_PORT_EVENT_OPENED : SPICE_PORT_EVENT_CLOSED);
    return;
  }
  leave();
  drop();
  if (!open || !socket.valid()) return;
  take(std::move(socket));
  enter();
}

// --- the socket

void SpiceDevice::take(Fd socket) {
  drop();
  socket_ = std::move(socket);
  executor_.watch(socket_.get(), EPOLLIN, [this](uint32_t events) { ready(events); });
  awaited_ = EPOLLIN;
}

void SpiceDevice::drop() {
  if (!socket_.valid()) return;
  executor_.unwatch(socket_.get());
  socket_.reset();
}

void SpiceDevice::wait_for(uint32_t events) {
  if ((awaited_ & events) == events) return;
  awaited_ |= events;
  executor_.modify(socket_.get(), awaited_);
}

// The library asks again for what it is told of, and does not when it has no use for it yet.
void SpiceDevice::ready(uint32_t events) {
  const bool ended = (events & (EPOLLHUP | EPOLLERR)) != 0;
  awaited_ = ended ? 0u : awaited_ & ~events;
  executor_.modify(socket_.get(), awaited_);
  if (known_) spice_server_char_device_wakeup(&library_.instance);
}

// --- what the library calls

// A client has opened the port or is gone; an agent has done what the library does not put up with, which closes its
// socket.
void SpiceDevice::state(bool connected) {
  if (!connected) return drop();
  if (!is_port()) return;
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
    return log::error("SPICE: port '{}': cannot make a pair of sockets: {}", port_name_, errno_text(errno));
  take(Fd(ends[0]));
  socket_made_(Fd(ends[1]));
}

// What nobody is there for is lost.
int SpiceDevice::write(const uint8_t* bytes, int length) {
  if (!socket_.valid() || length <= 0) return std::max(length, 0);
  const ssize_t count = ::send(socket_.get(), bytes, static_cast<size_t>(length), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (count < 0 && errno != EAGAIN && errno != EINTR) return length;
  if (count < length) wait_for(EPOLLOUT);
  return static_cast<int>(std::max<ssize_t>(count, 0));
}

int SpiceDevice::read(uint8_t* bytes, int length) {
  if (!socket_.valid() || length <= 0) return 0;
  const ssize_t count = ::recv(socket_.get(), bytes, static_cast<size_t>(length), MSG_DONTWAIT);
  // Not all of the library's devices ask until nothing is left.
  if (count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR))) wait_for(EPOLLIN);
  return static_cast<int>(std::max<ssize_t>(count, 0));
}

const SpiceBaseInterface* SpiceDevice::interface() {
  static const SpiceCharDeviceInterface table = {
      .base = {.type = SPICE_INTERFACE_CHAR_DEVICE,
               .description = "Kite's character device",
               .major_version = SPICE_INTERFACE_CHAR_DEVICE_MAJOR,
               .minor_version = SPICE_INTERFACE_CHAR_DEVICE_MINOR},
      .state = [](SpiceCharDeviceInstance* device,
                  int connected) { reinterpret_cast<Instance*>(device)->owner->state(connected != 0); },
      .write = [](SpiceCharDeviceInstance* device, const uint8_t* bytes,
                  int length) { return reinterpret_cast<Instance*>(device)->owner->write(bytes, length); },
      .read = [](SpiceCharDeviceInstance* device, uint8_t* bytes,
                 int length) { return reinterpret_cast<Instance*>(device)->owner->read(bytes, length); },
      .event = [](SpiceCharDeviceInstance*, uint8_t) {},  // breaks, which none of these devices has
      .flags = SPICE_CHAR_DEVICE_NOTIFY_WRITABLE};
  return &table.base;
}

}  // namespace kite::display

#include "devices/usb/usb_bus.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "support/suggest.h"

namespace kite::devices {

namespace {

std::optional<usb::Speed> speed_at(const UsbDevice& device, const UsbBus::Port& port) {
  for (const usb::Speed speed : port.speeds)
    if (device.runs_at(speed)) return speed;
  return {};
}

}  // namespace

std::string_view usb_speed_name(usb::Speed speed) {
  constexpr std::string_view kNames[] = {"1.5", "12", "480", "5000"};
  return kNames[static_cast<size_t>(speed)];
}

bool UsbBus::taken(std::string_view connector) const {
  return std::ranges::any_of(ports_,
                             [&](const Port& port) { return port.name == connector && port.device != nullptr; });
}

bool UsbBus::has_free_port() const {
  return std::ranges::any_of(ports_, [this](const Port& port) { return !taken(port.name); });
}

// The side of a free connector at which the device is fastest.
const UsbBus::Port* UsbBus::best_free(const UsbDevice& device, std::string_view name) const {
  const Port* best = nullptr;
  for (const Port& port : ports_) {
    const auto speed = speed_at(device, port);
    if (!speed || taken(port.name) || (!name.empty() && port.name != name)) continue;
    if (best == nullptr || (best->name == port.name && *speed > *speed_at(device, *best))) best = &port;
  }
  return best;
}

Result<> UsbBus::attach(UsbDevice& device, std::string_view name) {
  std::vector<std::string_view> names;
  for (const Port& port : ports_) names.push_back(port.name);
  if (!name.empty() && std::ranges::find(names, name) == names.end())
    return fail("bus '{}' has no port '{}'{}", name_, name, suggestion(name, names));
  const Port* const found = best_free(device, name);
  if (found == nullptr && !name.empty() && taken(name)) return fail("port '{}' of bus '{}' is taken", name, name_);
  if (found == nullptr) return fail("bus '{}' has no free port for it", name_);
  const auto number = static_cast<unsigned>(found - ports_.data());
  device.plugged(&controller_, number, *speed_at(device, *found));
  ports_[number].device = &device;
  controller_.port_attached(number);
  return {};
}

void UsbBus::detach(UsbDevice& device) {
  const auto at = std::ranges::find(ports_, &device, &Port::device);
  if (at == ports_.end()) return;
  at->device = nullptr;
  device.plugged(nullptr, 0, device.speed());
  controller_.port_detached(static_cast<unsigned>(at - ports_.begin()));
}

std::string UsbBus::boot_path(const UsbDevice& device) const {
  const std::string& connector = ports_[device.port()].name;
  unsigned number = 0;
  std::from_chars(connector.data(), connector.data() + connector.size(), number);
  return fmt::format("storage@{:x}", number);
}

}  // namespace kite::devices

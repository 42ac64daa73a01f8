// Virtio functions of a PC that are neither disks nor network cards: the memory balloon, the random number generator,
// the serial device with its ports, which are devices that come and go by themselves.
#include <algorithm>

#include "devices/virtio/virtio_balloon_types.h"
#include "devices/virtio/virtio_rng_types.h"
#include "devices/virtio/virtio_serial_types.h"
#include "machine/pc/pc_chassis.h"
#include "support/suggest.h"

namespace kite::machine {

namespace {

using devices::VirtioBalloon;
using devices::VirtioPci;
using devices::VirtioSerial;
using devices::VirtioSerialPort;

// The virtio device of this kind in a function; null: it is something else.
template <class T>
T* virtio_in(bus::Device& device) {
  auto* const function = dynamic_cast<VirtioPci*>(&device);
  return function == nullptr ? nullptr : dynamic_cast<T*>(&function->device());
}

bool is_kind(std::string_view type, std::string_view base) {
  return type == base || (type.starts_with(base) && type.substr(base.size()).starts_with("-pci"));
}

}  // namespace

bool PcChassis::is_virtio_device(std::string_view type) {
  return is_kind(type, "virtio-balloon") || is_kind(type, "virtio-rng") || is_kind(type, "virtio-serial");
}

Result<std::unique_ptr<bus::PciDevice>> PcChassis::make_virtio_device(const DeviceConfig& device,
                                                                      const std::string& path, const bus::PciBus& bus) {
  if (context_.executor == nullptr) return fail("-device {}: this machine has nobody to serve it", device.type);
  Result<std::unique_ptr<VirtioPci>> made = is_kind(device.type, "virtio-balloon") ? make_balloon(device, path, bus)
                                            : is_kind(device.type, "virtio-rng")   ? make_rng(device, path, bus)
                                                                                   : make_serial(device, path, bus);
  if (!made) return Failure(std::move(made).error());
  return std::unique_ptr<bus::PciDevice>(std::move(*made));
}

// --- the balloon

VirtioBalloon* PcChassis::balloon() {
  for (const auto& device : user_devices_)
    if (auto* const balloon = virtio_in<VirtioBalloon>(*device); balloon != nullptr) return balloon;
  return nullptr;
}

Result<std::unique_ptr<VirtioPci>> PcChassis::make_balloon(const DeviceConfig& device, const std::string& path,
                                                           const bus::PciBus& bus) {
  if (balloon() != nullptr) return fail("-device {}: the machine has a memory balloon; there is only one", device.type);
  return devices::make_virtio_balloon(
      device.type, path, device.properties, bus, context_.config.ram_bytes,
      {.clock = context_.clock, .realtime = context_.realtime_clock, .changed = context_.requests.balloon_changed},
      guest_memory_, *context_.executor);
}

// --- random numbers

Result<std::unique_ptr<VirtioPci>> PcChassis::make_rng(const DeviceConfig& device, const std::string& path,
                                                       const bus::PciBus& bus) {
  const std::string id = device.properties.string("rng");
  Result<std::unique_ptr<entropy::EntropySource>> source = std::make_unique<entropy::KernelSource>();
  if (context_.entropy != nullptr) source = context_.entropy->open(id);
  if (!source) return fail("-device {}: rng={}: {}", device.type, id, source.error().message);
  return devices::make_virtio_rng(device.type, path, device.properties, bus, std::move(*source), context_.clock,
                                  guest_memory_, *context_.executor);
}

// --- serial ports

std::vector<VirtioSerial*> PcChassis::serial_controllers() {
  std::vector<VirtioSerial*> all;
  for (const auto& device : user_devices_)
    if (auto* const serial = virtio_in<VirtioSerial>(*device); serial != nullptr) all.push_back(serial);
  return all;
}

Result<std::unique_ptr<VirtioPci>> PcChassis::make_serial(const DeviceConfig& device, const std::string& path,
                                                          const bus::PciBus& bus) {
  constexpr std::string_view kNameless = "virtio-serial-bus.";
  const auto before = std::ranges::count_if(
      serial_controllers(), [&](const VirtioSerial* serial) { return serial->bus_name().starts_with(kNameless); });
  std::string bus_name = device.id.empty() ? fmt::format("{}{}", kNameless, before) : device.id + ".0";
  return devices::make_virtio_serial(device.type, path, std::move(bus_name), device.properties, bus, guest_memory_,
                                     *context_.executor);
}

Result<VirtioSerial*> PcChassis::serial_bus_for(const DeviceConfig& device) {
  const std::string name = device.properties.string("bus");
  const bool console = device.type == "virtconsole";
  std::vector<std::string_view> names;
  for (VirtioSerial* const serial : serial_controllers()) {
    names.push_back(serial->bus_name());
    if (name.empty() ? serial->has_room(console) : names.back() == name || names.back() == name + ".0") return serial;
  }
  if (names.empty())
    return fail("-device {}: there is no virtio-serial bus for it; put -device virtio-serial-pci before it",
                device.type);
  if (name.empty())
    return fail("-device {}: no virtio-serial bus has room for it; there are {}", device.type, fmt::join(names, ", "));
  return fail("-device {}: there is no virtio-serial bus '{}'{}; there are {}", device.type, name,
              suggestion(name, names), fmt::join(names, ", "));
}

Result<> PcChassis::add_serial_port(const DeviceConfig& device, const std::string& path) {
  KITE_ASSIGN(VirtioSerial * serial, serial_bus_for(device));
  Chardev* chardev = device.chardev;
  const std::string id = device.properties.string("chardev");
  const bool claimed = chardev == nullptr && !id.empty() && context_.chardevs != nullptr;
  if (claimed) {
    auto found = context_.chardevs->claim(id);
    if (!found) return fail("-device {}: {}", device.type, found.error().message);
    chardev = *found;
  }
  std::function<void(bool open)> changed;
  if (!device.id.empty() && context_.requests.port_changed)
    changed = [tell = context_.requests.port_changed, path](bool open) { tell(path, open); };
  auto made =
      devices::make_virtio_serial_port(device.type, path, device.properties, chardev, *serial, std::move(changed));
  if (!made) {
    if (claimed) context_.chardevs->give_back(*chardev);
    return Failure(std::move(made).error());
  }
  user_devices_.push_back(std::move(*made));
  return {};
}

std::vector<std::unique_ptr<bus::Device>> PcChassis::take_serial_port(std::string_view path) {
  std::vector<std::unique_ptr<bus::Device>> out;
  const auto at = std::ranges::find_if(user_devices_, [path](const auto& device) {
    return device->path() == path && dynamic_cast<const VirtioSerialPort*>(device.get()) != nullptr;
  });
  if (at == user_devices_.end()) return out;
  const Chardev* const chardev = dynamic_cast<const VirtioSerialPort&>(**at).chardev();
  if (chardev != nullptr && context_.chardevs != nullptr) context_.chardevs->give_back(*chardev);
  out.push_back(std::move(*at));
  user_devices_.erase(at);
  return out;
}

std::vector<std::string> PcChassis::serial_ports_of(bus::PciDevice& function) {
  std::vector<std::string> paths;
  if (const auto* const serial = virtio_in<VirtioSerial>(function); serial != nullptr)
    for (const VirtioSerialPort* const port : serial->ports()) paths.push_back(port->path());
  return paths;
}

}  // namespace kite::machine

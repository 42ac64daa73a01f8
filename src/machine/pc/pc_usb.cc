// USB of a PC: controllers, and what is plugged into their ports when the machine starts or while it runs.
#include <algorithm>

#include "devices/usb/usb_hid.h"
#include "devices/usb/usb_storage.h"
#include "devices/usb/usb_types.h"
#include "machine/pc/pc_chassis.h"
#include "support/suggest.h"

namespace kite::machine {

using devices::UsbBus;

bool PcChassis::is_usb_device(const DeviceConfig& device) { return devices::is_usb_device(device.type); }

std::vector<UsbBus*> PcChassis::usb_buses() {
  std::vector<UsbBus*> buses;
  for (const UsbPlace& place : usb_places_) buses.push_back(place.bus);
  return buses;
}

Result<std::unique_ptr<bus::PciDevice>> PcChassis::make_usb_controller(const DeviceConfig& device,
                                                                       const std::string& path,
                                                                       const bus::PciBus& bus) {
  const auto taken = [this](const std::string& name) {
    return std::ranges::any_of(usb_places_, [&](const UsbPlace& place) { return place.bus->name() == name; });
  };
  std::string name = device.id + ".0";
  for (size_t number = 0; device.id.empty(); ++number)
    if (name = fmt::format("usb-bus.{}", number); !taken(name)) break;
  KITE_ASSIGN(auto made, devices::make_usb_controller(device.type, path, std::move(name), device.properties, bus,
                                                      guest_memory_, context_.clock));
  usb_places_.push_back({.bus = made.bus, .controller = made.function.get()});
  return std::move(made.function);
}

void PcChassis::forget_usb_controller(bus::Device& device) {
  std::erase_if(usb_places_, [&](const UsbPlace& place) { return place.controller == &device; });
}

Result<UsbBus*> PcChassis::usb_bus_for(const DeviceConfig& device, const devices::UsbDevice& made) {
  const std::string name = device.properties.string("bus");
  if (usb_places_.empty())
    return fail("-device {}: the machine has no USB; add -usb, or a controller as -device qemu-xhci", device.type);
  std::vector<std::string> names;
  for (const UsbPlace& place : usb_places_) {
    names.push_back(place.bus->name());
    // "xhci" stands for the bus of the controller with that id.
    if (name.empty() ? place.bus->has_room(made) : names.back() == name || names.back() == name + ".0")
      return place.bus;
  }
  if (name.empty())
    return fail("-device {}: no USB port is free for it; the buses are {}", device.type, fmt::join(names, ", "));
  const std::vector<std::string_view> known(names.begin(), names.end());
  return fail("-device {}: there is no USB bus '{}'{}; there are {}", device.type, name, suggestion(name, known),
              fmt::join(names, ", "));
}

Result<UsbBus*> PcChassis::plug_usb(const DeviceConfig& device, devices::UsbDevice& made) {
  KITE_ASSIGN(UsbBus * bus, usb_bus_for(device, made));
  made.reset();
  if (auto attached = bus->attach(made, device.properties.string("port")); !attached)
    return fail("-device {}: {}", device.type, attached.error().message);
  return bus;
}

Result<> PcChassis::add_usb_device(const DeviceConfig& device, const std::string& path) {
  if (device.type == devices::kUsbStorage) return add_usb_storage(device, path);
  auto made = devices::make_usb_input(device.type, path, context_.clock);
  KITE_ASSIGN(UsbBus * bus, plug_usb(device, *made));
  if (context_.console != nullptr) {
    if (auto* const keyboard = dynamic_cast<display::Keyboard*>(made.get()); keyboard != nullptr)
      context_.console->add_keyboard(*keyboard);
    if (auto* const pointer = dynamic_cast<display::Pointer*>(made.get()); pointer != nullptr)
      context_.console->add_pointer(*pointer);
  }
  usb_devices_.push_back({.device = std::move(made), .bus = bus});
  return {};
}

// A drive with media=cdrom is one of discs.
Result<> PcChassis::add_usb_storage(DeviceConfig device, const std::string& path) {
  const std::string drive = device.properties.string("drive");
  const DriveStore::Entry* const entry = context_.drives == nullptr ? nullptr : context_.drives->find(drive);
  const bool cdrom = entry != nullptr && entry->spec.id == drive && entry->spec.cdrom;
  KITE_TRY(claim_drive(device, cdrom ? DriveNeed::kCdrom : DriveNeed::kDisk));
  auto plugged = plug_usb_storage(device, path, cdrom);
  if (!plugged) {
    give_back(device.drive);
    return Failure(std::move(plugged).error());
  }
  const UsbPlug& plug = usb_devices_.emplace_back(std::move(*plugged));
  if (auto* const removable = dynamic_cast<devices::Removable*>(plug.device.get()); removable != nullptr)
    removable->set_tray_hook(
        [moved = context_.requests.tray_moved, drive = device.drive](bool open) { moved(drive, open); });
  own_drive(device, path);
  const auto place = std::ranges::find_if(usb_places_, [&](const UsbPlace& place) { return place.bus == plug.bus; });
  const auto& storage = dynamic_cast<const devices::UsbStorage&>(*plug.device);
  return note_boot_place(device, path,
                         fmt::format("{}/{}/{}", pci_boot_path(dynamic_cast<bus::PciDevice&>(*place->controller)),
                                     plug.bus->boot_path(storage), storage.boot_path()));
}

Result<PcChassis::UsbPlug> PcChassis::plug_usb_storage(const DeviceConfig& device, const std::string& path,
                                                       bool cdrom) {
  KITE_ASSIGN(const devices::DiskConfig disk,
              devices::make_disk_config(device.type, device.id, device.properties, device.drive));
  KITE_ASSIGN(auto made, devices::make_usb_storage(path, device.properties, disk, cdrom, context_.clock));
  KITE_ASSIGN(UsbBus * bus, plug_usb(device, *made));
  return UsbPlug{.device = std::move(made), .bus = bus};
}

void PcChassis::unplug_usb(UsbPlug& plug) {
  if (context_.console != nullptr) {
    if (auto* const keyboard = dynamic_cast<display::Keyboard*>(plug.device.get()); keyboard != nullptr)
      context_.console->remove_keyboard(*keyboard);
    if (auto* const pointer = dynamic_cast<display::Pointer*>(plug.device.get()); pointer != nullptr)
      context_.console->remove_pointer(*pointer);
  }
  plug.bus->detach(*plug.device);
}

std::vector<std::unique_ptr<bus::Device>> PcChassis::take_usb(std::string_view path) {
  std::vector<std::unique_ptr<bus::Device>> out;
  const auto at =
      std::ranges::find_if(usb_devices_, [path](const UsbPlug& plug) { return plug.device->path() == path; });
  if (at == usb_devices_.end()) return out;
  boot_order_.remove(path);
  unplug_usb(*at);
  out.push_back(std::move(at->device));
  usb_devices_.erase(at);
  return out;
}

}  // namespace kite::machine

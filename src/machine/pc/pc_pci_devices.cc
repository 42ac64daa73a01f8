// PCI devices that a user adds to a PC, when it starts or while it runs: where they go, and taking them out again.
#include <algorithm>
#include <charconv>

#include "boot/image_bytes.h"
#include "devices/e1000/e1000_types.h"
#include "devices/pci_bridges/pcie_root_port.h"
#include "devices/pci_bridges/plain_bridge.h"
#include "devices/pci_testdev/pci_testdev.h"
#include "devices/usb/usb_types.h"
#include "devices/virtio/virtio_net_types.h"
#include "devices/virtio/virtio_serial_types.h"
#include "machine/pc/pc_chassis.h"
#include "support/log.h"
#include "support/suggest.h"

namespace kite::machine {

namespace {

using devices::PcieRootPort;
using devices::PlainBridge;

struct Address {
  uint8_t slot = 0, function = 0;
};

// A number in hexadecimal with or without "0x", up to `most`.
bool parse_hex(std::string_view text, unsigned most, uint8_t& value) {
  if (text.starts_with("0x") || text.starts_with("0X")) text.remove_prefix(2);
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, 16);
  if (error != std::errc{} || end != text.data() + text.size() || number > most) return false;
  value = static_cast<uint8_t>(number);
  return true;
}

// "1c.0", "0x2.0x1", "5".
Result<Address> parse_address(const DeviceConfig& device, std::string_view text) {
  Address address;
  const size_t dot = text.find('.');
  const bool good = parse_hex(text.substr(0, dot), 31, address.slot) &&
                    (dot == std::string_view::npos || parse_hex(text.substr(dot + 1), 7, address.function));
  if (!good)
    return fail("-device {}: addr={}: give slot and function in hexadecimal, as 1c.0 (slots 0-1f, functions 0-7)",
                device.type, text);
  return address;
}

void collect_buses(bus::PciBus& from, std::vector<bus::PciBus*>& all) {
  all.push_back(&from);
  for (bus::PciDevice* device : from.devices())
    if (device->as_bridge() != nullptr) collect_buses(device->as_bridge()->secondary(), all);
}

bool is_network_card(std::string_view type) { return devices::is_virtio_net(type) || devices::is_e1000(type); }

bool is_pci(std::string_view type) {
  constexpr std::string_view kTypes[] = {"pci-testdev",      "pcie-root-port", "ioh3420",
                                         "i82801b11-bridge", "pci-bridge",     "pcie-pci-bridge"};
  if (std::find(std::begin(kTypes), std::end(kTypes), type) != std::end(kTypes)) return true;
  if (is_network_card(type) || devices::is_usb_controller(type)) return true;
  const DiskMaker* const maker = find_disk_maker(type);
  return maker != nullptr && maker->place == DiskMaker::Place::kPci;
}

PcieRootPort* slot_above(const bus::PciBus& bus) { return dynamic_cast<PcieRootPort*>(bus.bridge()); }

}  // namespace

bool PcChassis::is_pci_device(const DeviceConfig& device) {
  return is_pci(device.type) || is_display(device.type) || is_virtio_device(device.type);
}

Result<bus::PciBus*> PcChassis::bus_for(const DeviceConfig& device) {
  const std::string name = device.properties.string("bus");
  if (name.empty()) return pci_.get();
  std::vector<bus::PciBus*> buses;
  collect_buses(*pci_, buses);
  std::vector<std::string_view> names;
  for (bus::PciBus* bus : buses) {
    if (bus->name() == name) return bus;
    names.push_back(bus->name());
  }
  return fail("-device {}: there is no PCI bus '{}'{}; a bus has the id of its bridge, the first is '{}'", device.type,
              name, suggestion(name, names), pci_->name());
}

Result<std::unique_ptr<bus::PciDevice>> PcChassis::make_pci_device(const DeviceConfig& device, const std::string& path,
                                                                   const bus::PciBus& bus) {
  using Made = std::unique_ptr<bus::PciDevice>;
  const PropertyMap& properties = device.properties;
  if (find_disk_maker(device.type) != nullptr) return make_pci_disk(device, path);
  if (is_display(device.type)) return make_display(device, path, bus);
  if (is_network_card(device.type)) return make_network_card(device, path, bus);
  if (is_virtio_device(device.type)) return make_virtio_device(device, path, bus);
  if (devices::is_usb_controller(device.type)) return make_usb_controller(device, path, bus);
  if (device.type == "pci-testdev") return Made(std::make_unique<devices::PciTestdev>(path));
  if (device.type == "pcie-root-port" || device.type == "ioh3420") {
    if (&bus != pci_.get() || !bus.express())
      return fail("-device {}: a root port belongs on the root complex, bus=pcie.0 of the q35 board", device.type);
    PcieRootPort::Config config{
        .model = device.type == "ioh3420" ? PcieRootPort::Model::kIoh3420 : PcieRootPort::Model::kGeneric,
        .bus_name = path,
        .port = static_cast<uint8_t>(properties.integer("port")),
        .slot = static_cast<uint16_t>(properties.integer("slot")),
        .hotplug = properties.boolean("hotplug")};
    return Made(std::make_unique<PcieRootPort>(
        path, std::move(config), PcieRootPort::Wiring{.eject = [this, path] { context_.requests.eject(path); }}));
  }
  if (device.type == "i82801b11-bridge")
    return Made(std::make_unique<PlainBridge>(path, PlainBridge::Model::kI82801b11, path));
  if (device.type == "pci-bridge")
    return Made(std::make_unique<PlainBridge>(path, PlainBridge::Model::kPciToPci, path));
  if (!bus.express())
    return fail("-device {}: it belongs on a PCI Express bus, and '{}' is none; pci-bridge goes there", device.type,
                bus.name());
  return Made(std::make_unique<PlainBridge>(path, PlainBridge::Model::kPcieToPci, path));
}

Result<std::unique_ptr<bus::PciDevice>> PcChassis::make_network_card(const DeviceConfig& device,
                                                                     const std::string& path, const bus::PciBus& bus) {
  if (context_.nets == nullptr || context_.executor == nullptr)
    return fail("-device {}: this machine has no network", device.type);
  net::NetBackend* backend = nullptr;
  if (const std::string id = device.properties.string("netdev"); !id.empty()) {
    auto claimed = context_.nets->claim(id);
    if (!claimed) return fail("-device {}: {}", device.type, claimed.error().message);
    backend = *claimed;
  } else {
    log::warn("-device {}: its cable goes nowhere; add netdev=ID of a -netdev", device.type);
  }
  const auto mac = context_.nets->mac_for(device.properties.string("mac"));
  if (!mac) return fail("-device {}: mac: {}", device.type, mac.error().message);
  if (devices::is_e1000(device.type)) {
    devices::E1000::Config config{.mac = *mac, .backend = backend, .rom = {}};
    if (device.properties.integer("rombar") != 0) {
      KITE_ASSIGN(config.rom, card_rom(device));
    }
    KITE_ASSIGN(auto card,
                devices::E1000::create(path, std::move(config),
                                       {.memory = guest_memory_, .clock = context_.clock, .home = *context_.executor}));
    return std::unique_ptr<bus::PciDevice>(std::move(card));
  }
  KITE_ASSIGN(auto made, devices::make_virtio_net(device.type, path, device.properties, bus, *mac, backend,
                                                  guest_memory_, *context_.executor));
  return made;
}

// The usual firmware of a network card is for booting from it: a host without it has a card that does everything else.
Result<std::vector<uint8_t>> PcChassis::card_rom(const DeviceConfig& device) const {
  const std::string name = device.properties.string("romfile");
  if (name.empty()) return std::vector<uint8_t>{};
  const auto file = find_firmware(name, context_.config.firmware.directories);
  if (file) return boot::read_file(*file, "card firmware", devices::E1000::kMostRom);
  if (name != devices::kE1000Rom) return fail("-device {},romfile={}: {}", device.type, name, file.error().message);
  const PropertyValue* const index = device.properties.find("bootindex");
  const int64_t* const place = index == nullptr ? nullptr : std::get_if<int64_t>(index);
  if (place != nullptr && *place >= 0)
    log::warn("-device {}: it cannot be booted from without its firmware {} (Debian's package ipxe-qemu)", device.type,
              name);
  return std::vector<uint8_t>{};
}

Result<> PcChassis::add_pci_device(const DeviceConfig& device, const std::string& path, bool running) {
  KITE_ASSIGN(bus::PciBus * bus, bus_for(device));
  PcieRootPort* const port = slot_above(*bus);
  const bool takes_more = port != nullptr ? port->hotplug() : takes_functions(*bus);
  if (running && !takes_more)
    return fail(
        "Bus '{}' does not support hotplugging; put a pcie-root-port there before the machine starts (q35 board) and "
        "use the port's id as bus",
        bus->name());
  if (running && is_display(device.type))
    return fail("{}: a display adapter cannot be added while the machine runs; add it before the start", device.type);
  Address address;
  if (const std::string text = device.properties.string("addr"); !text.empty()) {
    KITE_ASSIGN(address, parse_address(device, text));
  } else {
    KITE_ASSIGN(address.slot, bus->free_slot());
  }
  KITE_ASSIGN(auto made, make_pci_device(device, path, *bus));
  if (running && made->as_bridge() != nullptr)
    return fail("{}: a bridge cannot be added while the machine runs; add it before the start", device.type);
  made->reset();
  if (auto attached = bus->attach(*made, address.slot, address.function); !attached) {
    forget_disk_device(*made);
    forget_usb_controller(*made);
    made.reset();
    const auto* const entry = context_.drives != nullptr ? context_.drives->find_owned_by(path) : nullptr;
    if (entry != nullptr) give_back(entry->drive.get());
    return attached;
  }
  if (device.properties.boolean("multifunction")) made->mark_multifunction();
  if (const DiskMaker* const maker = find_disk_maker(device.type); maker != nullptr && !maker->boot_rest.empty())
    KITE_TRY(note_boot_place(device, path, pci_boot_path(*made) + std::string(maker->boot_rest)));
  if (is_network_card(device.type)) KITE_TRY(note_boot_place(device, path, pci_boot_path(*made) + "/ethernet-phy@0"));
  const bus::PciDevice& function = *made;
  user_devices_.push_back(std::move(made));
  if (!running) return {};
  if (port != nullptr)
    port->plugged();
  else
    plugged(function);
  return {};
}

// --- while the machine runs

Result<> PcChassis::plug(const DeviceConfig& device) {
  KITE_ASSIGN(const std::string path, free_path(device));
  if (is_pci_device(device)) return add_pci_device(device, path, true);
  if (find_disk_on_bus(device.type) != nullptr) return add_disk_on_bus(device, path, true);
  if (devices::is_virtio_serial_port(device.type)) return add_serial_port(device, path);
  if (is_usb_device(device)) return add_usb_device(device, path);
  return fail("{}: only PCI devices, USB devices, disks and ports of virtio-serial can be added while the machine runs",
              device.type);
}

Result<> PcChassis::request_unplug(std::string_view id) {
  for (const DiskPlace& disk : disks_) {
    if (disk.device->path() != id) continue;
    if (!disk.bus->hotplug()) return fail("Bus '{}' does not support hotplugging", disk.bus->name());
    context_.requests.eject(std::string(id));
    return {};
  }
  if (std::ranges::any_of(usb_devices_, [id](const UsbPlug& plug) { return plug.device->path() == id; })) {
    context_.requests.eject(std::string(id));  // a plug can be pulled at any time
    return {};
  }
  for (const auto& device : user_devices_) {
    if (device->path() != id) continue;
    if (dynamic_cast<const devices::VirtioSerialPort*>(device.get()) != nullptr) {
      context_.requests.eject(std::string(id));
      return {};
    }
    auto* const pci = dynamic_cast<bus::PciDevice*>(device.get());
    if (pci != nullptr && stays(*pci))
      return fail("'{}' is a {} and stays for as long as the machine does", id,
                  pci->as_bridge() != nullptr ? "bridge" : "display adapter");
    PcieRootPort* const port = pci == nullptr ? nullptr : slot_above(*pci->bus());
    if (port != nullptr) return port->request_unplug();
    if (pci == nullptr || !takes_functions(*pci->bus()))
      return fail("'{}' is in no slot of a pcie-root-port and stays for as long as the machine does", id);
    return request_function_unplug(*pci);
  }
  return fail("there is no device with the id '{}'", id);
}

std::vector<std::unique_ptr<bus::Device>> PcChassis::take_function(bus::PciDevice& function) {
  std::vector<std::unique_ptr<bus::Device>> out;
  // What sits on its buses goes first.
  for (const std::string& path : serial_ports_of(function))
    std::ranges::move(take_serial_port(path), std::back_inserter(out));
  std::vector<std::string> behind, plugs;
  for (const UsbPlug& plug : usb_devices_)
    for (const UsbPlace& place : usb_places_)
      if (place.bus == plug.bus && place.controller == &function) plugs.push_back(plug.device->path());
  for (const std::string& path : plugs) std::ranges::move(take_usb(path), std::back_inserter(out));
  for (const DiskPlace& disk : disks_)
    for (const BusPlace& place : disk_buses_)
      if (place.bus == disk.bus && place.controller == &function) behind.push_back(disk.device->path());
  for (const std::string& path : behind) std::ranges::move(take_disk(path), std::back_inserter(out));
  forget_disk_device(function);
  forget_usb_controller(function);
  boot_order_.remove(function.path());
  function.bus()->detach(function);
  const auto at = std::ranges::find_if(user_devices_, [&](const auto& device) { return device.get() == &function; });
  if (at == user_devices_.end()) return out;
  out.push_back(std::move(*at));
  user_devices_.erase(at);
  return out;
}

std::vector<std::unique_ptr<bus::Device>> PcChassis::take_out(std::string_view slot) {
  if (auto disk = take_disk(slot); !disk.empty()) return disk;
  if (auto port = take_serial_port(slot); !port.empty()) return port;
  if (auto plug = take_usb(slot); !plug.empty()) return plug;
  for (const auto& device : user_devices_) {
    if (device->path() != slot) continue;
    auto* const port = dynamic_cast<PcieRootPort*>(device.get());
    auto* const function = dynamic_cast<bus::PciDevice*>(device.get());
    if (port == nullptr) return function != nullptr ? take_function(*function) : decltype(take_disk(slot)){};
    std::vector<std::unique_ptr<bus::Device>> out;
    if (port->secondary().devices().empty()) return out;
    for (bus::PciDevice* gone : port->secondary().devices())
      std::ranges::move(take_function(*gone), std::back_inserter(out));
    port->unplugged();
    return out;
  }
  return {};
}

}  // namespace kite::machine

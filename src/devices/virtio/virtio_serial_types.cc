#include "devices/virtio/virtio_serial_types.h"

#include <algorithm>

namespace kite::devices {

using namespace virtio_serial;

namespace {

constexpr uint64_t kNumberUnset = UINT32_MAX;
constexpr std::string_view kConsoleType = "virtconsole", kPortType = "virtserialport";

void add_port_type(TypeRegistry& registry, std::string_view name, std::string_view description) {
  registry.add({.name = std::string(name),
                .parent = "device",
                .description = std::string(description),
                .bus = "virtio-serial-bus",
                .properties = {
                    property::string("bus", "the virtio-serial bus; the first one with room"),
                    property::unsigned_integer("nr", "port number; 4294967295: the first free one", kNumberUnset, 0,
                                               kNumberUnset),
                    property::string("name", "what the guest finds the port by"),
                    property::link("chardev", "where its bytes go", "chardev"),
                }});
}

}  // namespace

void register_virtio_serial_types(TypeRegistry& registry) {
  add_virtio_pci_types(
      registry, "virtio-serial-pci", "virtio serial ports and consoles",
      {property::unsigned_integer("max_ports", "ports that there can be", 31, 1, kMostPorts),
       property::boolean("emergency-write", "the guest can write single characters before its driver runs", true)});
  add_short_virtio_name(registry, "virtio-serial");
  add_port_type(registry, kPortType, "Port of virtio-serial");
  add_port_type(registry, kConsoleType, "Console on a port of virtio-serial");
}

bool is_virtio_serial_port(std::string_view type) { return type == kPortType || type == kConsoleType; }

Result<std::unique_ptr<VirtioPci>> make_virtio_serial(std::string_view type, const std::string& path,
                                                      std::string bus_name, const PropertyMap& properties,
                                                      const bus::PciBus& pci, GuestMemory& memory, Executor& home) {
  VirtioSerial::Config config{.name = path,
                              .bus_name = std::move(bus_name),
                              .ports = static_cast<uint32_t>(properties.integer("max_ports")),
                              .emergency_write = properties.boolean("emergency-write")};
  const auto vectors = static_cast<uint16_t>(config.ports + 1);
  KITE_ASSIGN(VirtioPci::Config transport, make_virtio_pci_config(type, properties, pci, vectors));
  transport.legacy_device_id = kLegacyDeviceId;
  transport.class_code = kClass;
  auto device = std::make_unique<VirtioSerial>(std::move(config), memory, home, make_virtio_options(properties));
  return std::make_unique<VirtioPci>(path, transport, std::move(device));
}

Result<std::unique_ptr<VirtioSerialPort>> make_virtio_serial_port(std::string_view type, const std::string& path,
                                                                  const PropertyMap& properties, Chardev* chardev,
                                                                  VirtioSerial& serial,
                                                                  std::function<void(bool open)> changed) {
  const uint64_t wanted = properties.integer("nr");
  const bool console = type == kConsoleType;
  const auto number = serial.number_for(wanted == kNumberUnset ? std::optional<uint64_t>{} : wanted, console);
  if (!number) return fail("-device {}: {}", type, number.error().message);
  const std::string name = properties.string("name");
  if (name.size() > kMostNameBytes)
    return fail("-device {}: name: it has {} characters, and at most {} are possible", type, name.size(),
                kMostNameBytes);
  const auto ports = serial.ports();
  if (!name.empty() && std::ranges::any_of(ports, [&](const auto* port) { return port->name() == name; }))
    return fail("-device {}: name={}: a port of '{}' has this name already", type, name, serial.bus_name());
  auto port = std::make_unique<VirtioSerialPort>(
      path,
      VirtioSerialPort::Config{.name = name, .console = console, .chardev = chardev, .changed = std::move(changed)});
  port->plug_into(serial, *number);
  return port;
}

}  // namespace kite::devices

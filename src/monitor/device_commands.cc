#include "monitor/device_commands.h"

#include <algorithm>

#include "bus/pci.h"

namespace kite::monitor {

namespace {

namespace pci = bus::pci;

uint32_t config(bus::PciDevice& device, uint16_t offset, unsigned size) { return device.config_read(offset, size); }

// [PCI 3.0] appendix D, for what a machine here can have.
std::string_view class_name(uint32_t class_code) {
  switch (class_code) {
    case 0x0100: return "SCSI controller";
    case 0x0101: return "IDE controller";
    case 0x0106: return "SATA controller";
    case 0x0108: return "NVMe controller";
    case 0x0200: return "Ethernet controller";
    case 0x0300: return "VGA controller";
    case 0x0380: return "Display controller";
    case 0x0600: return "Host bridge";
    case 0x0601: return "ISA bridge";
    case 0x0604: return "PCI bridge";
    case 0x0680: return "Bridge";
    case 0x0780: return "Communication controller";
    case 0x0c03: return "USB controller";
    case 0x0c05: return "SMBus";
    default: return "";
  }
}

Json range_json(const bus::PciBridge::Window& window) { return {{"limit", window.limit}, {"base", window.base}}; }

Json regions_json(bus::PciDevice& device) {
  Json regions = Json::array();
  for (unsigned index = 0; index < bus::PciDevice::kBars; ++index) {
    const auto info = device.bar(index);
    if (info.size == 0) continue;
    Json region{{"bar", index}};
    if (!info.io) region["prefetch"] = info.prefetchable;
    region["address"] = device.bar_address(index);
    region["size"] = info.size;
    if (!info.io) region["mem_type_64"] = info.is_64;
    region["type"] = info.io ? "io" : "memory";
    regions.push_back(std::move(region));
  }
  return regions;
}

Json bus_json(bus::PciBus& bus);

Json device_json(bus::PciDevice& device) {
  const uint32_t class_code = config(device, pci::kClassCode + 1, 2);
  Json class_info{{"class", class_code}};
  if (const auto name = class_name(class_code); !name.empty()) class_info["desc"] = name;
  Json id{{"device", config(device, pci::kDeviceId, 2)}, {"vendor", config(device, pci::kVendorId, 2)}};
  Json json{{"bus", device.bus()->number()}, {"qdev_id", device.path()}};
  const uint8_t pin = device.interrupt_pin();
  if (pin != 0) json["irq"] = config(device, pci::kInterruptLine, 1);
  json["slot"] = device.devfn() >> 3;
  json["class_info"] = std::move(class_info);
  if (auto* const bridge = device.as_bridge(); bridge != nullptr) {
    json["pci_bridge"] = {{"bus",
                           {{"number", device.bus()->number()},
                            {"secondary", bridge->secondary_number()},
                            {"subordinate", bridge->subordinate_number()},
                            {"io_range", range_json(bridge->io_window())},
                            {"memory_range", range_json(bridge->memory_window())},
                            {"prefetchable_range", range_json(bridge->prefetchable_window())}}}};
    if (Json behind = bus_json(bridge->secondary()); !behind.empty()) json["pci_bridge"]["devices"] = std::move(behind);
  } else {
    id["subsystem"] = config(device, pci::kSubsystemId, 2);
    id["subsystem-vendor"] = config(device, pci::kSubsystemVendorId, 2);
  }
  json["id"] = std::move(id);
  json["function"] = device.devfn() & 7;
  json["irq_pin"] = pin;
  json["regions"] = regions_json(device);
  return json;
}

Json bus_json(bus::PciBus& bus) {
  Json devices = Json::array();
  for (bus::PciDevice* device : bus.devices()) devices.push_back(device_json(*device));
  return devices;
}

std::string window_text(std::string_view name, const bus::PciBridge::Window& window) {
  return fmt::format("      {} range [{:#x}, {:#x}]{}\n", name, window.base, window.limit,
                     window.enabled ? "" : " (closed)");
}

void describe_bus(bus::PciBus& bus, std::string& text) {
  for (bus::PciDevice* device : bus.devices()) {
    const uint32_t class_code = config(*device, pci::kClassCode + 1, 2);
    const std::string_view name = class_name(class_code);
    text +=
        fmt::format("  Bus {:2}, device {:3}, function {}:\n", bus.number(), device->devfn() >> 3, device->devfn() & 7);
    text += fmt::format("    {}: PCI device {:04x}:{:04x}\n",
                        name.empty() ? fmt::format("Class {:04x}", class_code) : std::string(name),
                        config(*device, pci::kVendorId, 2), config(*device, pci::kDeviceId, 2));
    if (const uint8_t pin = device->interrupt_pin(); pin != 0)
      text += fmt::format("      IRQ {}, pin {}\n", config(*device, pci::kInterruptLine, 1),
                          static_cast<char>('A' + pin - 1));
    auto* const bridge = device->as_bridge();
    if (bridge != nullptr) {
      text += fmt::format("      BUS {}.\n      secondary bus {}.\n      subordinate bus {}.\n", bus.number(),
                          bridge->secondary_number(), bridge->subordinate_number());
      text += window_text("IO", bridge->io_window()) + window_text("memory", bridge->memory_window()) +
              window_text("prefetchable memory", bridge->prefetchable_window());
    }
    for (unsigned index = 0; index < bus::PciDevice::kBars; ++index) {
      const auto info = device->bar(index);
      if (info.size == 0) continue;
      const uint64_t address = device->bar_address(index);
      const std::string kind =
          info.io ? "I/O"
                  : fmt::format("{} bit{} memory", info.is_64 ? 64 : 32, info.prefetchable ? " prefetchable" : "");
      text += fmt::format("      BAR{}: {} at {:#x} [{:#x}].\n", index, kind, address, address + info.size - 1);
    }
    text += fmt::format("      id \"{}\"\n", device->path());
    if (bridge != nullptr) describe_bus(bridge->secondary(), text);
  }
}

void show_tree(bus::PciBus& bus, std::string indent, std::string& text) {
  text += fmt::format("{}bus: {}\n{}  type {}\n", indent, bus.name(), indent, bus.express() ? "PCIE" : "PCI");
  indent += "  ";
  for (bus::PciDevice* device : bus.devices()) {
    text += fmt::format("{}dev: {}, addr {:02x}.{}, {:04x}:{:04x}\n", indent, device->path(), device->devfn() >> 3,
                        device->devfn() & 7, config(*device, pci::kVendorId, 2), config(*device, pci::kDeviceId, 2));
    if (device->as_bridge() != nullptr) show_tree(device->as_bridge()->secondary(), indent + "  ", text);
  }
}

}  // namespace

QmpReply query_pci(MonitorContext& context, const Json&) {
  Json buses = Json::array();
  if (bus::PciBus* const root = context.machine.board().pci(); root != nullptr)
    buses.push_back({{"bus", 0}, {"devices", bus_json(*root)}});
  return buses;
}

QmpReply device_add(MonitorContext& context, const Json& arguments) {
  const auto options = parse_object_options(arguments.dump(), "driver");
  if (!options) return qmp_fail("{}", options.error().message);
  if (auto done = context.machine.add_device(*options); !done) return qmp_fail("{}", done.error().message);
  return Json::object();
}

QmpReply device_del(MonitorContext& context, const Json& arguments) {
  const std::string id = arguments.at("id");
  if (auto done = context.machine.remove_device(id); !done) {
    const auto devices = context.machine.board().devices();
    const bool there = std::ranges::any_of(devices, [&](const bus::Device* device) { return device->path() == id; });
    if (!there) return std::unexpected(QmpError{"DeviceNotFound", fmt::format("Device '{}' not found", id)});
    return qmp_fail("{}", done.error().message);
  }
  return Json::object();
}

std::string info_pci(MonitorContext& context, std::string_view) {
  std::string text;
  if (bus::PciBus* const root = context.machine.board().pci(); root != nullptr) describe_bus(*root, text);
  return text.empty() ? "PCI is not there\n" : text;
}

std::string info_qtree(MonitorContext& context, std::string_view) {
  std::string text = "bus: main-system-bus\n  type System\n";
  for (const bus::Device* device : context.machine.board().devices())
    if (dynamic_cast<const bus::PciDevice*>(device) == nullptr) text += fmt::format("  dev: {}\n", device->path());
  if (bus::PciBus* const root = context.machine.board().pci(); root != nullptr) show_tree(*root, "  ", text);
  return text;
}

std::string human_device_add(MonitorContext& context, std::string_view rest) {
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
  const auto options = parse_object_options(rest, "driver");
  if (!options) return fmt::format("Error: {}\n", options.error().message);
  const auto done = context.machine.add_device(*options);
  return done ? std::string{} : fmt::format("Error: {}\n", done.error().message);
}

std::string human_device_del(MonitorContext& context, std::string_view rest) {
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
  const QmpReply reply = device_del(context, Json{{"id", std::string(rest)}});
  return reply ? std::string{} : fmt::format("Error: {}\n", reply.error().description);
}

}  // namespace kite::monitor

#include "devices/usb/usb_types.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "devices/storage/mmc.h"
#include "devices/uhci/uhci.h"
#include "devices/usb/usb_hid.h"
#include "devices/usb/usb_storage.h"
#include "devices/xhci/xhci.h"

namespace kite::devices {

namespace {

struct XhciModel {
  std::string_view type, description;
  uint16_t vendor, device;
  uint8_t revision;
};
constexpr XhciModel kXhciModels[] = {
    {"qemu-xhci", "USB 2 and USB 3 controller (xHCI)", 0x1b36, 0x000d, 1},
    {"nec-usb-xhci", "The same with the numbers of NEC's uPD720200", 0x1033, 0x0194, 3},
};
const XhciModel* find_xhci(std::string_view type) {
  const auto* const found = std::ranges::find(kXhciModels, type, &XhciModel::type);
  return found == std::end(kXhciModels) ? nullptr : found;
}

struct InputType {
  std::string_view type, description;
};
constexpr InputType kInputs[] = {{"usb-kbd", "USB keyboard"},
                                 {"usb-mouse", "USB mouse"},
                                 {"usb-tablet", "USB tablet: a pointer that is where the user points"}};

}  // namespace

void register_usb_types(TypeRegistry& registry) {
  for (const Uhci::Model& model : Uhci::models())
    registry.add(
        {.name = std::string(model.type),
         .parent = "pci-device",
         .description = fmt::format("USB 1.1 controller (UHCI) of the {}", model.type.substr(0, model.type.find('-'))),
         .bus = "PCI",
         .properties = {}});
  for (const XhciModel& model : kXhciModels)
    registry.add({.name = std::string(model.type),
                  .parent = "pci-device",
                  .description = std::string(model.description),
                  .bus = "PCI",
                  .properties = {
                      property::unsigned_integer("p2", "USB 2 ports", 4, 0, xhci::kMostPortsOfKind),
                      property::unsigned_integer("p3", "USB 3 ports", 4, 0, xhci::kMostPortsOfKind),
                  }});
  registry.add({.name = "usb-device",
                .parent = "device",
                .description = "A device on a USB port",
                .bus = "usb-bus",
                .abstract = true,
                .user_creatable = false,
                .properties = {property::string("bus", "the USB bus: the id of its controller; the first with room"),
                               property::string("port", "the port; the first that is free")}});
  for (const InputType& input : kInputs)
    registry.add({.name = std::string(input.type),
                  .parent = "usb-device",
                  .description = std::string(input.description),
                  .bus = "usb-bus",
                  .properties = {}});
  std::vector<Property> storage{property::boolean("removable", "the medium can be taken out", false)};
  for (Property& one : disk_properties()) storage.push_back(std::move(one));
  registry.add({.name = std::string(kUsbStorage),
                .parent = "usb-device",
                .description = "USB stick: a disk (or with media=cdrom a CD drive) on the Bulk-Only Transport",
                .bus = "usb-bus",
                .properties = std::move(storage)});
}

bool is_usb_controller(std::string_view type) {
  return Uhci::find_model(type) != nullptr || find_xhci(type) != nullptr;
}

bool is_usb_device(std::string_view type) {
  return type == kUsbStorage || std::ranges::find(kInputs, type, &InputType::type) != std::end(kInputs);
}

Result<MadeUsbController> make_usb_controller(std::string_view type, const std::string& path, std::string bus_name,
                                              const PropertyMap& properties, const bus::PciBus& pci,
                                              GuestMemory& memory, Clock& clock) {
  if (const Uhci::Model* const model = Uhci::find_model(type); model != nullptr) {
    auto made = std::make_unique<Uhci>(path, *model,
                                       Uhci::Wiring{.memory = memory, .clock = clock, .bus_name = std::move(bus_name)});
    UsbBus* const bus = &made->usb();
    return MadeUsbController{.function = std::move(made), .bus = bus};
  }
  const XhciModel& model = *find_xhci(type);
  Xhci::Config config{.bus_name = std::move(bus_name),
                      .vendor = model.vendor,
                      .device = model.device,
                      .revision = model.revision,
                      .ports2 = static_cast<unsigned>(properties.integer("p2")),
                      .ports3 = static_cast<unsigned>(properties.integer("p3")),
                      .express = {}};
  if (config.ports2 + config.ports3 == 0) return fail("-device {}: p2=0,p3=0: it needs a port", type);
  if (pci.express())
    config.express = pci.bridge() == nullptr ? bus::PcieType::kIntegratedEndpoint : bus::PcieType::kEndpoint;
  auto made = std::make_unique<Xhci>(path, std::move(config), memory, clock);
  UsbBus* const bus = &made->usb();
  return MadeUsbController{.function = std::move(made), .bus = bus};
}

std::unique_ptr<UsbDevice> make_usb_input(std::string_view type, const std::string& path, Clock& clock) {
  if (type == "usb-kbd") return std::make_unique<UsbKeyboard>(path, clock);
  return std::make_unique<UsbPointer>(path, type == "usb-tablet", clock);
}

Result<std::unique_ptr<UsbDevice>> make_usb_storage(const std::string& path, const PropertyMap& properties,
                                                    const DiskConfig& disk, bool cdrom, Clock& clock) {
  constexpr size_t kLongestSerial = 126;  // [USB 2.0] 9.6.7
  const auto printable = [](unsigned char letter) { return std::isprint(letter) != 0; };
  if (disk.serial.size() > kLongestSerial || !std::ranges::all_of(disk.serial, printable))
    return fail("-device {}: serial='{}' is no USB serial number: up to {} ASCII characters", kUsbStorage, disk.serial,
                kLongestSerial);
  if (cdrom && disk.logical_block_bytes != 512 && disk.logical_block_bytes != mmc::kSectorBytes)
    return fail("-device {}: logical_block_size={} is no disc's; leave it out, or give 2048", kUsbStorage,
                disk.logical_block_bytes);
  if (disk.discard_granularity > INT32_MAX)
    return fail("-device {}: discard_granularity={} is above 2 GiB", kUsbStorage, disk.discard_granularity);
  const UsbStorage::Config config{.disk = disk, .cdrom = cdrom, .removable = properties.boolean("removable")};
  if (cdrom || config.removable) return std::make_unique<UsbStorageWithTray>(path, config, clock);
  return std::make_unique<UsbStorage>(path, config, clock);
}

}  // namespace kite::devices

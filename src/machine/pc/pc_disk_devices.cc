#include "machine/pc/pc_disk_devices.h"

#include <algorithm>
#include <span>

#include "devices/ahci/ahci_types.h"
#include "devices/fdc/fdc.h"
#include "devices/ide/ide_types.h"
#include "devices/ide/piix_ide_regs.h"
#include "devices/nvme/nvme_types.h"
#include "devices/virtio/virtio_scsi_types.h"
#include "devices/virtio/virtio_types.h"

namespace kite::machine {

namespace {

// --- makers, by type

Result<MadeDevice> make_virtio_blk(const DiskParts& parts) {
  KITE_ASSIGN(devices::DiskConfig disk, parts.disk());
  KITE_ASSIGN(auto made, devices::make_virtio_blk(parts.device.type, parts.path, parts.device.properties,
                                                  *parts.pci_bus, std::move(disk), parts.cpu_count, parts.memory));
  return MadeDevice{.device = std::move(made), .buses = {}};
}

Result<MadeDevice> make_virtio_scsi(const DiskParts& parts) {
  if (parts.block_executor == nullptr) return fail("-device {}: this machine has no drives", parts.device.type);
  KITE_ASSIGN(auto made, devices::make_virtio_scsi(parts.device.type, parts.path, parts.bus_name("scsi", 0),
                                                   parts.device.properties, *parts.pci_bus, parts.cpu_count,
                                                   parts.memory, *parts.block_executor));
  return MadeDevice{.device = std::move(made.function), .buses = {made.bus}};
}

Result<MadeDevice> make_nvme(const DiskParts& parts) {
  std::optional<bus::PcieType> express;
  if (parts.pci_bus->express())
    express = parts.pci_bus->bridge() == nullptr ? bus::PcieType::kIntegratedEndpoint : bus::PcieType::kEndpoint;
  KITE_ASSIGN(const devices::DiskConfig disk, parts.disk());
  KITE_ASSIGN(auto persistent, parts.memory_backend(parts.device.properties.string("pmrdev")));
  KITE_ASSIGN(auto made,
              devices::make_nvme_controller(parts.path, parts.bus_name("nvme-bus", 0), parts.device.properties, disk,
                                            parts.memory, express, std::move(persistent)));
  devices::DiskBus* const bus = &made->bus_of_namespaces();
  return MadeDevice{.device = std::move(made), .buses = {bus}};
}

// The legacy ports and interrupts can be one function's only.
Result<MadeDevice> make_piix_ide(const DiskParts& parts) {
  namespace regs = devices::piix_ide_regs;
  for (const bus::PciDevice* other : parts.pci_bus->devices())
    if (dynamic_cast<const devices::PiixIde*>(other) != nullptr)
      return fail("-device {}: '{}' has the ports of IDE already", parts.device.type, other->path());
  auto made = devices::make_piix_ide(parts.device.type, parts.path,
                                     {.memory = parts.memory,
                                      .irqs = {parts.isa_irq(regs::kPrimaryIrq), parts.isa_irq(regs::kSecondaryIrq)},
                                      .bus_names = {parts.bus_name("ide", 0), parts.bus_name("ide", 1)}});
  parts.map_port(regs::kPrimaryPorts, made->command_ports(0));
  parts.map_port(regs::kPrimaryControl, made->control_port(0));
  parts.map_port(regs::kSecondaryPorts, made->command_ports(1));
  parts.map_port(regs::kSecondaryControl, made->control_port(1));
  std::vector<devices::DiskBus*> buses{&made->bus(0), &made->bus(1)};
  return MadeDevice{.device = std::move(made), .buses = std::move(buses)};
}

Result<MadeDevice> make_ahci(const DiskParts& parts) {
  devices::Ahci::Wiring wiring{.memory = parts.memory, .bus_names = {}};
  for (unsigned port = 0; port < devices::ahci::kPorts; ++port) wiring.bus_names[port] = parts.bus_name("ide", port);
  auto made = std::make_unique<devices::Ahci>(parts.path, std::move(wiring));
  std::vector<devices::DiskBus*> buses;
  for (unsigned port = 0; port < devices::ahci::kPorts; ++port) buses.push_back(&made->bus(port));
  return MadeDevice{.device = std::move(made), .buses = std::move(buses)};
}

Result<MadeDevice> make_isa_fdc(const DiskParts& parts) {
  const PropertyMap& properties = parts.device.properties;
  const auto base = static_cast<uint16_t>(properties.integer("iobase"));
  constexpr uint16_t kInputPort = 7;  // the port between belongs to the hard disks
  auto made = std::make_unique<devices::Fdc>(
      parts.path,
      devices::Fdc::Config{.bus_name = parts.bus_name("floppy-bus", 0),
                           .dma_channel = static_cast<unsigned>(properties.integer("dma")),
                           .fallback = devices::parse_floppy_type(properties.string("fallback"))},
      devices::Fdc::Wiring{.irq = parts.isa_irq(static_cast<uint32_t>(properties.integer("irq"))), .dma = parts.dma});
  parts.map_port(base, made->region());
  parts.map_port(static_cast<uint16_t>(base + kInputPort), made->input_region());
  devices::DiskBus* const bus = &made->drive_bus();
  return MadeDevice{.device = std::move(made), .buses = {bus}};
}

// --- the table

using enum DriveNeed;
using Place = DiskMaker::Place;

std::span<const DiskMaker> makers() {
  static const std::vector<DiskMaker> kMakers = {
      {"ahci", Place::kPci, kNone, "", &make_ahci},
      {"ich9-ahci", Place::kPci, kNone, "", &make_ahci},
      {"piix3-ide", Place::kPci, kNone, "", &make_piix_ide},
      {"piix4-ide", Place::kPci, kNone, "", &make_piix_ide},
      {"isa-fdc", Place::kIsa, kNone, "/fdc@03f0", &make_isa_fdc},
      {"nvme", Place::kPci, kOptional, "/namespace@1,0", &make_nvme},
      {"virtio-blk-pci", Place::kPci, kDisk, "/disk@0,0", &make_virtio_blk},
      {"virtio-blk-pci-transitional", Place::kPci, kDisk, "/disk@0,0", &make_virtio_blk},
      {"virtio-blk-pci-non-transitional", Place::kPci, kDisk, "/disk@0,0", &make_virtio_blk},
      {"virtio-scsi", Place::kPci, kNone, "", &make_virtio_scsi},
      {"virtio-scsi-pci", Place::kPci, kNone, "", &make_virtio_scsi},
      {"virtio-scsi-pci-transitional", Place::kPci, kNone, "", &make_virtio_scsi},
      {"virtio-scsi-pci-non-transitional", Place::kPci, kNone, "", &make_virtio_scsi},
  };
  return kMakers;
}

constexpr DiskOnBus kOnBus[] = {
    {"floppy", "floppy-bus", kFloppy}, {"ide-cd", "IDE", kCdrom},   {"ide-hd", "IDE", kDisk},
    {"nvme-ns", "nvme-bus", kDisk},    {"scsi-cd", "SCSI", kCdrom}, {"scsi-hd", "SCSI", kDisk},
};

}  // namespace

const DiskMaker* find_disk_maker(std::string_view type) {
  const auto all = makers();
  const auto found = std::ranges::find(all, type, &DiskMaker::type);
  return found == all.end() ? nullptr : &*found;
}

const DiskOnBus* find_disk_on_bus(std::string_view type) {
  const auto* found = std::ranges::find(kOnBus, type, &DiskOnBus::type);
  return found == std::end(kOnBus) ? nullptr : found;
}

}  // namespace kite::machine

#include "devices/nvme/nvme_types.h"

#include <algorithm>
#include <bit>

#include "devices/nvme/namespace_bus.h"

namespace kite::devices {
namespace {

constexpr uint64_t kMostCmbMib = 64;  // as much as saved state holds in one piece

std::vector<Property> with(std::vector<Property> properties, std::vector<Property> more) {
  properties.insert(properties.end(), more.begin(), more.end());
  return properties;
}

std::vector<Property> identity_properties() {
  return {
      property::string("uuid", "UUID of the namespace; none when empty"),
      property::unsigned_integer("eui64", "EUI-64 of the namespace; 0: made from the serial number", 0, 0, UINT64_MAX),
  };
}

// Namespaces have no serial number of their own.
std::vector<Property> namespace_properties() {
  std::vector<Property> properties = disk_properties();
  std::erase_if(properties, [](const Property& one) { return one.name == "serial"; });
  return properties;
}

}  // namespace

void register_nvme_types(TypeRegistry& registry) {
  constexpr unsigned kQueues = NvmeController::kMostQueues;
  registry.add(
      {.name = "nvme",
       .parent = "pci-device",
       .description = "NVM Express controller",
       .bus = "PCI",
       .properties = with(
           with(disk_properties(), identity_properties()),
           {
               property::unsigned_integer("max_ioqpairs", "pairs of I/O queues", kQueues, 1, kQueues),
               property::unsigned_integer("msix_qsize", "MSI-X vectors", kQueues + 1, 1, kQueues + 1),
               property::unsigned_integer("mdts", "most bytes of a command: 4 KiB times 2^mdts; 0: no limit", 7, 0, 15),
               property::link("pmrdev", "memory of the persistent memory region: a memory-backend-ram",
                              "memory-backend"),
               property::unsigned_integer("cmb_size_mb",
                                          "controller memory buffer, in MiB (a power of two); "
                                          "0: none",
                                          0, 0, kMostCmbMib),
           })});
  registry.add({.name = "nvme-ns",
                .parent = "device",
                .description = "Namespace of an NVM Express controller",
                .bus = "nvme-bus",
                .properties = with(with(namespace_properties(), identity_properties()),
                                   {
                                       property::string("bus", "the controller's bus, named by its id; the last one"),
                                       property::unsigned_integer("nsid", "namespace id; 0: the first that is free", 0,
                                                                  0, NvmeNamespace::kMostNamespaces),
                                   })});
}

Result<std::unique_ptr<NvmeController>> make_nvme_controller(std::string path, std::string bus_name,
                                                             const PropertyMap& properties, const DiskConfig& disk,
                                                             GuestMemory& memory, std::optional<bus::PcieType> express,
                                                             std::shared_ptr<RamBlock> persistent) {
  const uint64_t cmb_mib = properties.integer("cmb_size_mb");
  if ((cmb_mib & (cmb_mib - 1)) != 0)
    return fail("-device nvme: cmb_size_mb={} is no power of two, as the size of a PCI BAR is", cmb_mib);
  if (persistent != nullptr && (!std::has_single_bit(persistent->size()) || persistent->size() > kMostCmbMib << 20))
    return fail("-device nvme: pmrdev={} has {} bytes; a persistent memory region is a power of two up to {} MiB",
                properties.string("pmrdev"), persistent->size(), kMostCmbMib);
  NvmeController::Config config{.serial = properties.string("serial"),
                                .name = std::move(bus_name),
                                .queues = static_cast<unsigned>(properties.integer("max_ioqpairs")),
                                .vectors = static_cast<unsigned>(properties.integer("msix_qsize")),
                                .mdts = static_cast<unsigned>(properties.integer("mdts")),
                                .cmb_bytes = cmb_mib << 20,
                                .persistent = std::move(persistent),
                                .express = express};
  NvmeNamespace::Identity identity{.nsid = 1, .eui64 = properties.integer("eui64")};
  if (identity.eui64 == 0) identity.eui64 = make_eui64(config.serial, identity.nsid);
  KITE_ASSIGN(identity.uuid, parse_uuid("nvme", properties.string("uuid")));
  KITE_ASSIGN(auto made, NvmeController::create(std::move(path), std::move(config), memory));
  if (disk.drive != nullptr) KITE_TRY(made->add_own_namespace(disk, identity));
  return made;
}

}  // namespace kite::devices

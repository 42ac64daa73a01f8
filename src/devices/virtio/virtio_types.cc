// The types virtio-*-pci and their properties.
#include "devices/virtio/virtio_types.h"

#include <algorithm>

#include "devices/virtio/virtio_pci.h"

namespace kite::devices {

namespace {

constexpr uint64_t kVectorsUnset = 0xffffffff;
constexpr uint64_t kMostVectors = 2048;

Property on_off_auto(std::string name, std::string description) {
  return property::choice(std::move(name), std::move(description), "auto", {"on", "off", "auto"});
}

}  // namespace

std::vector<Property> virtio_pci_properties() {
  return {
      property::unsigned_integer("vectors", "MSI-X vectors; 0: none, 4294967295: as many as the device has use for",
                                 kVectorsUnset, 0, kVectorsUnset),
      property::boolean("ioeventfd", "the driver's notifications reach the device without the CPU's detour", true),
      property::boolean("page-per-vq", "every queue is notified in a page of its own", false),
      property::boolean("ats", "address translation services (PCI Express)", false),
      property::boolean("indirect_desc", "offers descriptors in tables of their own", true),
      property::boolean("event_idx", "offers interrupts and notifications by index", true),
      property::boolean("notify_on_empty", "offers an interrupt when a queue runs empty (legacy)", true),
      property::boolean("any_layout", "offers requests of any layout (legacy)", true),
      property::boolean("iommu_platform", "the driver must use the platform's addresses", false),
      property::boolean("packed", "offers packed rings", false),
      property::boolean("queue_reset", "offers the reset of single queues", true),
  };
}

void add_virtio_pci_types(TypeRegistry& registry, const std::string& base, const std::string& description,
                          std::vector<Property> own) {
  std::vector<Property> properties = virtio_pci_properties();
  std::ranges::move(own, std::back_inserter(properties));
  const auto add = [&](const char* suffix, const char* interfaces, const std::vector<Property>& all) {
    registry.add({.name = base + suffix,
                  .parent = "pci-device",
                  .description = description + interfaces,
                  .bus = "PCI",
                  .properties = all});
  };
  add("-transitional", ", legacy and modern interface", properties);
  add("-non-transitional", ", modern interface only", properties);
  properties.push_back(on_off_auto("disable-legacy", "no legacy interface; auto: on behind a PCI Express port"));
  properties.push_back(property::boolean("disable-modern", "no modern interface", false));
  add("", "", properties);
}

void add_short_virtio_name(TypeRegistry& registry, const std::string& base) {
  registry.add({.name = base,
                .parent = base + "-pci",
                .description = base + "-pci by its short name",
                .bus = "PCI",
                .properties = {}});
}

VirtioModel virtio_model(std::string_view type) {
  if (type.ends_with("-non-transitional")) return VirtioModel::kNonTransitional;
  return type.ends_with("-transitional") ? VirtioModel::kTransitional : VirtioModel::kGeneric;
}

Result<VirtioPci::Config> make_virtio_pci_config(std::string_view type, const PropertyMap& properties,
                                                 const bus::PciBus& bus, uint16_t vectors) {
  return make_virtio_pci_config(type, properties, bus, vectors, virtio_model(type));
}

Result<VirtioPci::Config> make_virtio_pci_config(std::string_view type, const PropertyMap& properties,
                                                 const bus::PciBus& bus, uint16_t vectors, VirtioModel model) {
  const bool behind_port = bus.express() && bus.bridge() != nullptr;
  const std::string choice = properties.string("disable-legacy");
  VirtioPci::Config config{.legacy = model == VirtioModel::kTransitional,
                           .modern = true,
                           .doorbells = properties.boolean("ioeventfd"),
                           .page_per_queue = properties.boolean("page-per-vq"),
                           .express = behind_port && model != VirtioModel::kTransitional,
                           .ats = properties.boolean("ats")};
  if (model == VirtioModel::kGeneric) {
    config.legacy = choice == "auto" ? !behind_port : choice == "off";
    config.modern = !properties.boolean("disable-modern");
  }
  if (!config.legacy && !config.modern)
    return fail(
        "-device {}: it has neither a legacy nor a modern interface; set disable-legacy=off or "
        "disable-modern=off",
        type);
  if (properties.boolean("iommu_platform") && config.legacy)
    return fail("-device {}: iommu_platform=on needs a device without the legacy interface; add disable-legacy=on",
                type);
  if (properties.boolean("packed") && !config.modern)
    return fail("-device {}: packed=on needs the modern interface; set disable-modern=off", type);
  if (config.ats && !config.express)
    return fail("-device {}: ats=on needs a PCI Express slot; put the device behind a pcie-root-port", type);
  const uint64_t wanted = properties.integer("vectors");
  if (wanted != kVectorsUnset && wanted > kMostVectors)
    return fail("-device {}: vectors={}: there are at most {}", type, wanted, kMostVectors);
  config.vectors = wanted == kVectorsUnset ? vectors : static_cast<uint16_t>(wanted);
  return config;
}

VirtioDevice::Options make_virtio_options(const PropertyMap& properties) {
  return {.indirect = properties.boolean("indirect_desc"),
          .event_index = properties.boolean("event_idx"),
          .notify_on_empty = properties.boolean("notify_on_empty"),
          .any_layout = properties.boolean("any_layout"),
          .packed = properties.boolean("packed"),
          .queue_reset = properties.boolean("queue_reset"),
          .access_platform = properties.boolean("iommu_platform")};
}

// --- virtio-blk

namespace {

std::vector<Property> blk_properties() {
  std::vector<Property> properties = disk_properties();
  std::ranges::move(geometry_properties(), std::back_inserter(properties));
  const std::vector<Property> own{
      property::unsigned_integer("num-queues", "request queues; 65535: one a CPU", kQueuePerCpu, 1, kQueuePerCpu),
      property::unsigned_integer("queue-size", "requests that a queue holds, a power of two", 256, 4,
                                 virtio::kMostQueueSize),
      property::boolean("seg-max-adjust", "requests may have as many segments as a queue has room for", true),
      property::boolean("config-wce", "the guest may switch the write cache", true),
      property::boolean("scsi", "SCSI commands are passed through; not supported", false),
      property::boolean("discard", "offers to discard blocks", true),
      property::boolean("write-zeroes", "offers to write zeroes", true),
      property::boolean("report-discard-granularity", "tells the guest how discards are aligned", true),
      property::unsigned_integer("max-discard-sectors", "most sectors of a discard", VirtioBlk::kMostSectors, 1,
                                 VirtioBlk::kMostSectors),
      property::unsigned_integer("max-write-zeroes-sectors", "most sectors to be zeroed at once",
                                 VirtioBlk::kMostSectors, 1, VirtioBlk::kMostSectors),
  };
  properties.insert(properties.end(), own.begin(), own.end());
  return properties;
}

constexpr uint64_t kMostAutomaticQueues = 64;
constexpr uint32_t kSegmentsOfOld = 126;

}  // namespace

void register_virtio_types(TypeRegistry& registry) {
  add_virtio_pci_types(registry, "virtio-blk-pci", "virtio disk", blk_properties());
}

Result<std::unique_ptr<VirtioPci>> make_virtio_blk(std::string_view type, const std::string& path,
                                                   const PropertyMap& properties, const bus::PciBus& bus,
                                                   DiskConfig disk, uint32_t cpu_count, GuestMemory& memory) {
  if (disk.drive == nullptr)
    return fail("-device {}: it needs a disk: add drive=ID of a -drive if=none or a -blockdev", type);
  if (properties.boolean("scsi"))
    return fail("-device {}: scsi=on: SCSI commands are not passed through; use virtio-scsi-pci", type);
  if (disk.serial.size() > kMostSerialBytes)
    return fail("-device {}: serial={}: it has at most {} characters", type, disk.serial, kMostSerialBytes);
  const uint64_t queue_size = properties.integer("queue-size"), queues = properties.integer("num-queues");
  if ((queue_size & (queue_size - 1)) != 0)
    return fail("-device {}: queue-size={} is no power of two", type, queue_size);
  if (queues > virtio::kMostQueues && queues != kQueuePerCpu)
    return fail("-device {}: num-queues={}: there are at most {}", type, queues, virtio::kMostQueues);
  VirtioBlk::Config config{
      .disk = std::move(disk),
      .queues =
          static_cast<uint16_t>(queues != kQueuePerCpu ? queues : std::min<uint64_t>(cpu_count, kMostAutomaticQueues)),
      .queue_size = static_cast<uint16_t>(queue_size),
      .config_wce = properties.boolean("config-wce"),
      .discard = properties.boolean("discard"),
      .write_zeroes = properties.boolean("write-zeroes"),
      .report_discard_granularity = properties.boolean("report-discard-granularity"),
      .segments = properties.boolean("seg-max-adjust") ? 0 : kSegmentsOfOld,
      .max_discard_sectors = static_cast<uint32_t>(properties.integer("max-discard-sectors")),
      .max_write_zeroes_sectors = static_cast<uint32_t>(properties.integer("max-write-zeroes-sectors"))};
  KITE_ASSIGN(VirtioPci::Config transport,
              make_virtio_pci_config(type, properties, bus, static_cast<uint16_t>(config.queues + 1)));
  transport.legacy_device_id = virtio_blk::kLegacyDeviceId;
  transport.class_code = virtio_blk::kClass;
  auto device = std::make_unique<VirtioBlk>(path, std::move(config), memory, make_virtio_options(properties));
  return std::make_unique<VirtioPci>(path, transport, std::move(device));
}

}  // namespace kite::devices

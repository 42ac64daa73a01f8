#include "devices/virtio/virtio_scsi_types.h"

#include <algorithm>

namespace kite::devices {
namespace {

constexpr uint64_t kQueuePerCpu = UINT32_MAX;
constexpr uint64_t kMostQueues = virtio::kMostQueues - virtio_scsi::kFirstRequestQueue;
constexpr uint64_t kMostAutomaticQueues = 64;
constexpr uint32_t kSegmentsOfOld = 126;

std::vector<Property> scsi_properties() {
  return {
      property::unsigned_integer("num_queues", "request queues; 4294967295: one a CPU", kQueuePerCpu, 1, kQueuePerCpu),
      property::unsigned_integer("virtqueue_size", "requests that a queue holds, a power of two", 256, 4,
                                 virtio::kMostQueueSize),
      property::boolean("seg_max_adjust", "requests may have as many segments as a queue has room for", true),
      property::unsigned_integer("max_sectors", "sectors of 512 bytes of the longest transfer", 0xffff, 1, UINT32_MAX),
      property::unsigned_integer("cmd_per_lun", "commands that the driver should send a unit at once", 128, 1,
                                 UINT32_MAX),
      property::boolean("hotplug", "units may come and go while the machine runs", true),
      property::boolean("param_change", "the driver hears when a unit changes", true),
  };
}

}  // namespace

void register_virtio_scsi_types(TypeRegistry& registry) {
  add_virtio_pci_types(registry, "virtio-scsi-pci", "virtio SCSI host adapter", scsi_properties());
  add_short_virtio_name(registry, "virtio-scsi");
}

Result<VirtioScsiMade> make_virtio_scsi(std::string_view type, const std::string& path, std::string bus_name,
                                        const PropertyMap& properties, const bus::PciBus& pci, uint32_t cpu_count,
                                        GuestMemory& memory, Executor& home) {
  const uint64_t queues = properties.integer("num_queues"), queue_size = properties.integer("virtqueue_size");
  if ((queue_size & (queue_size - 1)) != 0)
    return fail("-device {}: virtqueue_size={} is no power of two", type, queue_size);
  if (queues != kQueuePerCpu && queues > kMostQueues)
    return fail("-device {}: num_queues={}: there are at most {}", type, queues, kMostQueues);
  VirtioScsi::Config config{.bus_name = std::move(bus_name),
                            .queues = static_cast<uint16_t>(
                                queues != kQueuePerCpu ? queues : std::min<uint64_t>(cpu_count, kMostAutomaticQueues)),
                            .queue_size = static_cast<uint16_t>(queue_size),
                            .segments = properties.boolean("seg_max_adjust") ? 0 : kSegmentsOfOld,
                            .max_sectors = static_cast<uint32_t>(properties.integer("max_sectors")),
                            .commands_per_unit = static_cast<uint32_t>(properties.integer("cmd_per_lun")),
                            .hotplug = properties.boolean("hotplug"),
                            .parameter_change = properties.boolean("param_change")};
  const auto vectors = static_cast<uint16_t>(config.queues + virtio_scsi::kFirstRequestQueue + 1);
  KITE_ASSIGN(VirtioPci::Config transport, make_virtio_pci_config(type, properties, pci, vectors));
  transport.legacy_device_id = virtio_scsi::kLegacyDeviceId;
  transport.class_code = virtio_scsi::kClass;
  auto device = std::make_unique<VirtioScsi>(home, path, std::move(config), memory, make_virtio_options(properties));
  ScsiBus* const bus = &device->bus();
  return VirtioScsiMade{.function = std::make_unique<VirtioPci>(path, transport, std::move(device)), .bus = bus};
}

}  // namespace kite::devices

#include "machine/pc/pc_disk_devices.h"

#include <algorithm>
#include <span>

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

// --- the table

using enum DriveNeed;
using Place = DiskMaker::Place;

std::span<const DiskMaker> makers() {
  static const std::vector<DiskMaker> kMakers = {
      {"virtio-blk-pci", Place::kPci, kDisk, "/disk@0,0", &make_virtio_blk},
      {"virtio-blk-pci-transitional", Place::kPci, kDisk, "/disk@0,0", &make_virtio_blk},
      {"virtio-blk-pci-non-transitional", Place::kPci, kDisk, "/disk@0,0", &make_virtio_blk},
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

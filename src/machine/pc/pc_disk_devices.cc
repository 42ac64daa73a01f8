#include "machine/pc/pc_disk_devices.h"

#include <algorithm>
#include <span>

namespace kite::machine {

namespace {

// --- makers, by type

// --- the table

using enum DriveNeed;
using Place = DiskMaker::Place;

std::span<const DiskMaker> makers() {
  static const std::vector<DiskMaker> kMakers = {};
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

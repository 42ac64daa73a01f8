// DriveSpec: one -drive taken apart and checked: where its disk goes, and how its image is opened.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/drive.h"
#include "block/graph.h"
#include "block/options.h"
#include "block/throttle.h"
#include "support/result.h"

namespace kite::machine {

enum class DriveInterface : uint8_t { kIde, kScsi, kVirtio, kFloppy, kNone };
std::string_view drive_interface_name(DriveInterface interface);

struct DriveSpec {
  std::string id;  // id=, or "ide0-hd0", "virtio0", ...
  DriveInterface interface = DriveInterface::kNone;
  unsigned bus = 0, unit = 0;  // place on the interface
  bool cdrom = false;          // media=cdrom
  bool has_image = false;      // else a drive without a medium
  block::BlockGraph::FileRequest request;
  bool write_cache = true;  // of the drive: cache.writeback
  bool snapshot = false;    // writes go to a temporary overlay
  bool copy_on_read = false;
  block::ThrottleLimits throttle;
  std::string throttle_group;                             // who shares the limits; "": nobody
  std::optional<block::OnError> read_error, write_error;  // what -drive says; the device may say more
  bool is_default = false;                                // nobody asked for it: -nodefaults would have none
};

// What the other -drive options took already, and what holds for all.
struct DrivePlan {
  std::span<const DriveSpec> drives;
  unsigned ide_units = 2;   // of a bus: 1 where IDE disks are on AHCI ports
  bool snapshot = false;    // -snapshot
  bool is_default = false;  // for DriveSpec::is_default
};
// The settings of one -drive; those that are no drive's own go to the image's format. if=pflash is not for here. The
// message names the setting; the caller names the option.
Result<DriveSpec> parse_drive(const std::vector<std::pair<std::string, std::string>>& settings, const DrivePlan& plan);

}  // namespace kite::machine

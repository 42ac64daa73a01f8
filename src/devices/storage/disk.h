// What every disk device is told, whatever bus it sits on: its drive and the facts that a guest asks a disk for.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "block/drive.h"
#include "object/object_type.h"
#include "support/result.h"

namespace kite::devices {

// Cylinders, heads and sectors as old software sees a disk. All 0: chosen from the drive's length (guess_geometry()).
struct DiskGeometry {
  enum class Translation : uint8_t { kAuto, kNone, kLba, kLarge, kRechs };  // what the BIOS makes of it
  uint32_t cylinders = 0, heads = 0, sectors = 0;
  Translation translation = Translation::kAuto;
};

// Sizes in bytes. Checked by make_disk_config(); a device may trust them.
struct DiskConfig {
  std::string id;                 // of the device: for events and messages
  block::Drive* drive = nullptr;  // outlives the device; without a medium when removable. Null: no drive at all
  uint32_t logical_block_bytes = 512, physical_block_bytes = 512;  // powers of two, 512 .. 32768 and 2 MiB
  uint32_t min_io_bytes = 0, opt_io_bytes = 0;
  int64_t discard_granularity = -1;  // -1: not given, 0: no discard
  std::string serial, model, version;
  uint64_t wwn = 0;  // 0: none
  DiskGeometry geometry;
};

// The properties that make_disk_config() reads: drive, logical_block_size, physical_block_size, min_io_size,
// opt_io_size, discard_granularity, write-cache, share-rw, rerror, werror, bootindex, serial. The geometry's (cyls,
// heads, secs, bios-chs-trans) and model, ver, wwn are the device types' own to declare where they have them.
std::vector<Property> disk_properties();
// cyls, heads, secs, bios-chs-trans; and lcyls, lheads, lsecs, which are the board's: it tells firmware.
std::vector<Property> geometry_properties();

// Reads and checks them; `drive` is what the property "drive" names, or null. The device's own "serial", "model",
// "ver", "wwn" and geometry come in when declared. `what` is the type, for messages.
Result<DiskConfig> make_disk_config(std::string_view what, std::string id, const PropertyMap& properties,
                                    block::Drive* drive);

// A geometry for a disk of that many bytes: from the partition table in its first sector (`first`, 512 bytes, may be
// empty) when that was made for one, else one that covers at most 16383 cylinders, 16 heads, 63 sectors.
DiskGeometry guess_geometry(uint64_t bytes, std::span<const uint8_t> first);

}  // namespace kite::devices

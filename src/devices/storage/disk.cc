#include "devices/storage/disk.h"

#include <bit>

namespace kite::devices {
namespace {

constexpr uint64_t kLargestBlock = 2 << 20;

Result<uint32_t> block_size(std::string_view what, const PropertyMap& properties, const char* name) {
  const uint64_t bytes = properties.integer(name);
  if (bytes < 512 || bytes > kLargestBlock || !std::has_single_bit(bytes))
    return fail("-device {}: {}={} is no block size; it is a power of two from 512 to 2097152", what, name, bytes);
  return static_cast<uint32_t>(bytes);
}

DiskGeometry::Translation parse_translation(const std::string& text) {
  using Translation = DiskGeometry::Translation;
  if (text == "none") return Translation::kNone;
  if (text == "lba") return Translation::kLba;
  if (text == "large") return Translation::kLarge;
  if (text == "rechs") return Translation::kRechs;
  return Translation::kAuto;
}

}  // namespace

std::vector<Property> disk_properties() {
  const std::vector<std::string> policies{"auto", "report", "ignore", "enospc", "stop"};
  return {
      property::link("drive", "the -drive or node with its data", "drive"),
      property::size("logical_block_size", "bytes of a block as commands count them", 512),
      property::size("physical_block_size", "bytes that the disk writes at once", 512),
      property::size("min_io_size", "bytes of the smallest request that goes well; 0: says nothing", 0),
      property::size("opt_io_size", "bytes of the request that goes best; 0: says nothing", 0),
      property::signed_integer("discard_granularity", "bytes that can be discarded at once; 0: no discard", -1),
      property::choice("write-cache", "the disk has a write cache that the guest flushes", "auto",
                       {"on", "off", "auto"}),
      property::boolean("share-rw", "other devices may write the same node", false),
      property::choice("rerror", "what a failed read does", "auto", policies),
      property::choice("werror", "what a failed write does", "auto", policies),
      property::signed_integer("bootindex", "place in the boot order, the lowest first; -1: none", -1),
      property::string("serial", "serial number, up to 20 characters"),
  };
}

std::vector<Property> geometry_properties() {
  return {
      property::unsigned_integer("cyls", "cylinders; 0: chosen by size", 0, 0, 65535),
      property::unsigned_integer("heads", "heads; 0: chosen by size", 0, 0, 255),
      property::unsigned_integer("secs", "sectors a track; 0: chosen by size", 0, 0, 255),
      property::unsigned_integer("lcyls", "cylinders as the BIOS shows them; 0: it decides", 0, 0, 65535),
      property::unsigned_integer("lheads", "heads as the BIOS shows them", 0, 0, 255),
      property::unsigned_integer("lsecs", "sectors a track as the BIOS shows them", 0, 0, 255),
      property::choice("bios-chs-trans", "how the BIOS translates the geometry", "auto",
                       {"auto", "none", "lba", "large", "rechs"}),
  };
}

Result<DiskConfig> make_disk_config(std::string_view what, std::string id, const PropertyMap& properties,
                                    block::Drive* drive) {
  DiskConfig disk;
  disk.id = std::move(id);
  disk.drive = drive;
  KITE_ASSIGN(disk.logical_block_bytes, block_size(what, properties, "logical_block_size"));
  KITE_ASSIGN(disk.physical_block_bytes, block_size(what, properties, "physical_block_size"));
  if (disk.physical_block_bytes < disk.logical_block_bytes) disk.physical_block_bytes = disk.logical_block_bytes;
  for (const char* name : {"min_io_size", "opt_io_size"}) {
    const uint64_t bytes = properties.integer(name);
    if (bytes % disk.logical_block_bytes != 0 || bytes > UINT32_MAX)
      return fail("-device {}: {}={} is no multiple of logical_block_size={} below 4 GiB", what, name, bytes,
                  disk.logical_block_bytes);
  }
  disk.min_io_bytes = static_cast<uint32_t>(properties.integer("min_io_size"));
  disk.opt_io_bytes = static_cast<uint32_t>(properties.integer("opt_io_size"));
  disk.discard_granularity = properties.find("discard_granularity") == nullptr
                                 ? -1
                                 : std::get<int64_t>(*properties.find("discard_granularity"));
  disk.serial = properties.string("serial");
  disk.model = properties.string("model");
  disk.version = properties.string("ver");
  disk.wwn = properties.integer("wwn");
  disk.geometry = {.cylinders = static_cast<uint32_t>(properties.integer("cyls")),
                   .heads = static_cast<uint32_t>(properties.integer("heads")),
                   .sectors = static_cast<uint32_t>(properties.integer("secs")),
                   .translation = parse_translation(properties.string("bios-chs-trans"))};
  return disk;
}

DiskGeometry guess_geometry(uint64_t bytes, std::span<const uint8_t> first) {
  constexpr uint32_t kMostCylinders = 16383, kHeads = 16, kSectors = 63;
  const uint64_t blocks = bytes / 512;
  const auto fit = [&](uint32_t heads, uint32_t sectors) {
    const uint64_t cylinders = blocks / (uint64_t{heads} * sectors);
    return static_cast<uint32_t>(cylinders > kMostCylinders ? kMostCylinders : cylinders < 2 ? 2 : cylinders);
  };
  using Translation = DiskGeometry::Translation;
  // A partition's last sector tells how many heads and sectors its maker believed in.
  if (first.size() >= 512 && first[510] == 0x55 && first[511] == 0xaa) {
    for (size_t entry = 0x1be; entry < 0x1fe; entry += 16) {
      const uint32_t length =
          static_cast<uint32_t>(first[entry + 12] | first[entry + 13] << 8 | first[entry + 14] << 16) |
          static_cast<uint32_t>(first[entry + 15]) << 24;
      const uint32_t heads = first[entry + 5] + 1u, sectors = first[entry + 6] & 63u;
      if (length == 0 || first[entry + 5] == 0 || sectors == 0) continue;
      if (blocks / (uint64_t{heads} * sectors) < 1) continue;
      if (heads > 16)  // made through a translation: the disk itself has the usual 16 heads
        return {fit(kHeads, kSectors), kHeads, kSectors,
                uint64_t{fit(kHeads, kSectors)} * kHeads <= 131072 ? Translation::kLarge : Translation::kLba};
      return {fit(heads, sectors), heads, sectors, Translation::kNone};
    }
  }
  const uint32_t cylinders = fit(kHeads, kSectors);
  return {cylinders, kHeads, kSectors, cylinders <= 1024 ? Translation::kNone : Translation::kLba};
}

}  // namespace kite::devices

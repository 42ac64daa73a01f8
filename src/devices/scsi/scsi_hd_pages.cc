// What a disk says of itself: mode pages, vital product data, properties.
#include <algorithm>

#include "devices/scsi/scsi_bus.h"
#include "devices/scsi/scsi_cd.h"
#include "devices/scsi/scsi_hd.h"
#include "support/bytes.h"

namespace kite::devices {
namespace {

// Mode pages. [SBC-3] 6.5, [SPC-4] 7.5; 04h: [SBC-2] 6.3.6.
constexpr uint8_t kErrorRecovery = 0x01, kGeometry = 0x04, kCaching = 0x08, kControl = 0x0a, kExceptions = 0x1c;
constexpr std::array<uint8_t, 5> kModePages{kErrorRecovery, kGeometry, kCaching, kControl, kExceptions};
constexpr uint8_t kWce = 0x04;        // caching, byte 2
constexpr uint8_t kDescSense = 0x04;  // control, byte 2

constexpr uint8_t kBlockLimits = 0xb0, kCharacteristics = 0xb1, kProvisioning = 0xb2;
constexpr std::array<uint8_t, 3> kVitalPages{kBlockLimits, kCharacteristics, kProvisioning};

uint32_t saturated(uint64_t value) { return static_cast<uint32_t>(std::min<uint64_t>(value, UINT32_MAX)); }

}  // namespace

std::vector<uint8_t> ScsiHd::mode_page(uint8_t code, uint8_t control) const {
  const auto page = [code](uint8_t length) {
    std::vector<uint8_t> bytes(2u + length);
    bytes[0] = code;
    bytes[1] = length;
    return bytes;
  };
  const bool changeable = control == kChangeable;
  switch (code) {
    case kErrorRecovery: {
      constexpr uint8_t kWritesReassign = 0x80;
      std::vector<uint8_t> bytes = page(0x0a);
      if (!changeable) bytes[2] = kWritesReassign;
      return bytes;
    }
    case kGeometry: {
      std::vector<uint8_t> bytes = page(0x16);
      if (changeable) return bytes;
      const DiskGeometry shape = geometry();
      store_be32(&bytes[1], shape.cylinders & 0xffffff);  // three bytes at 2
      bytes[1] = 0x16;
      bytes[5] = static_cast<uint8_t>(shape.heads);
      // No cylinder has write precompensation or reduced current; no landing zone.
      constexpr uint16_t kUsualSpeed = 5400;
      store_be16(&bytes[20], config_.rotation_rate > 1 ? config_.rotation_rate : kUsualSpeed);
      return bytes;
    }
    case kCaching: {
      std::vector<uint8_t> bytes = page(0x12);
      const bool on = control == kDefault ? write_cache_default_ : state_.write_cache;
      bytes[2] = changeable || on ? kWce : 0;
      return bytes;
    }
    case kControl: {
      constexpr uint8_t kReorders = 0x10;
      std::vector<uint8_t> bytes = page(0x0a);
      bytes[2] = changeable || (control == kCurrent && state_.descriptor_sense) ? kDescSense : 0;
      if (!changeable) bytes[3] = kReorders;
      return bytes;
    }
    case kExceptions: {
      constexpr uint8_t kDisabled = 0x08;
      std::vector<uint8_t> bytes = page(0x0a);
      if (!changeable) bytes[2] = kDisabled;
      return bytes;
    }
    default: return {};
  }
}

std::vector<uint8_t> ScsiHd::mode_pages(uint8_t page, uint8_t control) const {
  if (page != kAllPages) return mode_page(page, control);
  std::vector<uint8_t> all;
  for (const uint8_t code : kModePages) {
    const std::vector<uint8_t> bytes = mode_page(code, control);
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  return all;
}

void ScsiHd::take_mode_page(std::span<const uint8_t> page, State& next) const {
  if (page[0] == kCaching) next.write_cache = (page[2] & kWce) != 0;
  if (page[0] == kControl) next.descriptor_sense = (page[2] & kDescSense) != 0;
}

// [SBC-3] 6.5.2.
std::vector<uint8_t> ScsiHd::block_descriptor(bool long_lba) const {
  if (long_lba) {
    std::vector<uint8_t> bytes(16);
    store_be64(&bytes[0], blocks());
    store_be32(&bytes[12], block_bytes());
    return bytes;
  }
  std::vector<uint8_t> bytes(8);
  store_be32(&bytes[4], block_bytes() & 0xffffff);
  store_be32(&bytes[0], saturated(blocks()));
  return bytes;
}

uint8_t ScsiHd::device_parameter() const {
  constexpr uint8_t kWriteProtected = 0x80, kDpoFua = 0x10;
  return static_cast<uint8_t>((read_only() ? kWriteProtected : 0) | (config_.dpofua ? kDpoFua : 0));
}

std::span<const uint8_t> ScsiHd::vital_pages() const { return kVitalPages; }

// [SBC-3] 6.6.4.
std::vector<uint8_t> ScsiHd::block_limits() const {
  constexpr uint32_t kMostUnmapDescriptors = 255;
  const DiskConfig& disk = config_.disk;
  const uint32_t block = block_bytes();
  std::vector<uint8_t> page(60);
  const auto at = [&](size_t byte) { return &page[byte - 4]; };  // as the standard counts, with the header
  store_be16(at(6), static_cast<uint16_t>(std::min<uint32_t>(disk.min_io_bytes / block, UINT16_MAX)));
  store_be32(at(8), saturated(config_.max_io_bytes / block));
  store_be32(at(12), disk.opt_io_bytes / block);
  if (thin()) {
    store_be32(at(20), saturated(config_.max_unmap_bytes / block));
    store_be32(at(24), kMostUnmapDescriptors);
    store_be32(at(28), std::max(discard_bytes_ / block, 1u));
  }
  return page;
}

std::optional<std::vector<uint8_t>> ScsiHd::vital_page(uint8_t page) const {
  switch (page) {
    case kBlockLimits: return block_limits();
    case kCharacteristics: {
      std::vector<uint8_t> bytes(60);
      store_be16(bytes.data(), config_.rotation_rate);
      return bytes;
    }
    case kProvisioning: {
      // [SBC-3] 6.6.7: UNMAP and WRITE SAME unmap; the medium is thin.
      constexpr uint8_t kAllThree = 0xe0, kThin = 2;
      return thin() ? std::vector<uint8_t>{0, kAllThree, kThin, 0} : std::vector<uint8_t>{0, 0, 0, 0};
    }
    default: return ScsiDevice::vital_page(page);
  }
}

// Properties.

namespace {

std::vector<Property> unit_properties() {
  return {
      property::unsigned_integer("channel", "channel of the bus", 0, 0, UINT32_MAX),
      property::unsigned_integer("scsi-id", "target; 4294967295: the next free one", UINT32_MAX, 0, UINT32_MAX),
      property::unsigned_integer("lun", "unit of the target; 4294967295: the next free one", UINT32_MAX, 0, UINT32_MAX),
      property::string("ver", "revision of INQUIRY, up to 4 characters"),
      property::string("vendor", "vendor of INQUIRY, up to 8 characters"),
      property::string("product", "product of INQUIRY, up to 16 characters"),
      property::string("device_id", "designator of the unit; the serial number or the drive's id when not given"),
      property::unsigned_integer("wwn", "world wide name of the unit; 0: none", 0, 0, UINT64_MAX),
      property::unsigned_integer("port_wwn", "world wide name of its port; 0: none", 0, 0, UINT64_MAX),
      property::unsigned_integer("port_index", "relative number of its port; 0: none", 0, 0, UINT16_MAX),
      property::unsigned_integer("scsi_version", "version of SPC that INQUIRY claims; 5 is SPC-3", 5, 0, 7),
      property::unsigned_integer("max_io_size", "bytes of the longest request", INT32_MAX, 512, INT32_MAX),
  };
}

std::vector<Property> joined(std::initializer_list<std::vector<Property>> lists) {
  std::vector<Property> all;
  for (const std::vector<Property>& list : lists)
    for (const Property& one : list)
      if (std::ranges::none_of(all, [&](const Property& other) { return other.name == one.name; })) all.push_back(one);
  return all;
}

Result<std::string> text_property(const DiskDevice& device, const char* name, size_t most, std::string otherwise) {
  const std::string text = device.properties.string(name);
  if (text.size() > most)
    return fail("-device {}: {}='{}' is longer than the {} characters that INQUIRY has", device.type, name, text, most);
  return text.empty() ? otherwise : text;
}

constexpr size_t kLongestId = 255 - 8;

Result<ScsiUnitConfig> unit_config(const DiskDevice& device, bool cdrom) {
  const PropertyMap& given = device.properties;
  ScsiUnitConfig config = usual_scsi_unit(device.disk, cdrom);
  KITE_ASSIGN(config.vendor, text_property(device, "vendor", 8, config.vendor));
  KITE_ASSIGN(config.product, text_property(device, "product", 16, config.product));
  KITE_ASSIGN(config.version, text_property(device, "ver", 4, config.version));
  const std::string id = given.string("device_id");
  if (id.size() > kLongestId)
    return fail("-device {}: device_id has {} characters; it may have {}", device.type, id.size(), kLongestId);
  if (!id.empty()) config.device_id = id;
  config.disk.wwn = given.integer("wwn");
  config.port_wwn = given.integer("port_wwn");
  config.port_index = static_cast<uint16_t>(given.integer("port_index"));
  config.version_code = static_cast<uint8_t>(given.integer("scsi_version"));
  config.max_io_bytes = given.integer("max_io_size");
  return config;
}

}  // namespace

ScsiUnitConfig usual_scsi_unit(const DiskConfig& disk, bool cdrom) {
  ScsiUnitConfig config;
  config.disk = disk;
  config.vendor = "QEMU";
  config.product = cdrom ? "QEMU CD-ROM" : "QEMU HARDDISK";
  config.version = "2.5+";
  config.removable = cdrom;
  // The names under /dev/disk/by-id come from here.
  config.device_id = disk.serial.substr(0, 20);
  if (config.device_id.empty() && disk.drive != nullptr) config.device_id = disk.drive->id().substr(0, kLongestId);
  return config;
}

Result<ScsiUnitConfig> scsi_hd_config(const DiskDevice& device) {
  if (device.disk.drive == nullptr)
    return fail("-device scsi-hd: it has no drive; give drive=ID of a -drive if=none or a -blockdev");
  KITE_ASSIGN(ScsiUnitConfig config, unit_config(device, false));
  config.rotation_rate = static_cast<uint16_t>(device.properties.integer("rotation_rate"));
  config.dpofua = device.properties.boolean("dpofua");
  config.removable = device.properties.boolean("removable");
  config.max_unmap_bytes = device.properties.integer("max_unmap_size");
  const DiskGeometry& shape = config.disk.geometry;
  if (shape.cylinders != 0 && (shape.heads == 0 || shape.sectors == 0))
    return fail("-device scsi-hd: cyls={} needs heads and secs too", shape.cylinders);
  if (config.disk.discard_granularity > INT32_MAX)
    return fail("-device scsi-hd: discard_granularity={} is above 2 GiB", config.disk.discard_granularity);
  return config;
}

Result<ScsiUnitConfig> scsi_cd_config(const DiskDevice& device) {
  KITE_ASSIGN(ScsiUnitConfig config, unit_config(device, true));
  if (config.disk.logical_block_bytes != mmc::kSectorBytes)
    return fail("-device scsi-cd: logical_block_size={} is no disc's; leave it out, or give 2048",
                config.disk.logical_block_bytes);
  return config;
}

void register_scsi_types(TypeRegistry& registry) {
  registry.add({.name = "scsi-device",
                .parent = "device",
                .description = "A logical unit on a SCSI bus",
                .bus = "SCSI",
                .abstract = true,
                .user_creatable = false,
                .properties = {property::string("bus", "the SCSI bus: CONTROLLER.0; the first one with room")}});
  const std::vector<Property> disk_own{
      property::unsigned_integer("rotation_rate", "turns a minute; 0: not told, 1: does not turn", 0, 0, UINT16_MAX),
      property::boolean("dpofua", "MODE SENSE says that FUA and DPO are honoured", false),
      property::boolean("removable", "the medium can be taken out", false),
      property::unsigned_integer("max_unmap_size", "bytes that one UNMAP may name", 1 << 30, 512, UINT64_MAX),
  };
  registry.add({.name = "scsi-hd",
                .parent = "scsi-device",
                .description = "SCSI disk",
                .bus = "SCSI",
                .properties = joined({disk_own, unit_properties(), disk_properties(), geometry_properties()})});
  const std::vector<Property> disc_own{property::size("logical_block_size", "bytes of a block: 2048", 2048)};
  registry.add({.name = "scsi-cd",
                .parent = "scsi-device",
                .description = "SCSI CD/DVD-ROM drive",
                .bus = "SCSI",
                .properties = joined({disc_own, unit_properties(), disk_properties()})});
}

}  // namespace kite::devices

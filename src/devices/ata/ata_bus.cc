#include "devices/ata/ata_bus.h"

#include "devices/ata/ata_disk.h"
#include "devices/ata/atapi_cdrom.h"

namespace kite::devices {
namespace {

constexpr uint64_t kAnyUnit = 0xff;

// The first sector, for the geometry that its partition table may tell. Waits for the drive's executor.
std::vector<uint8_t> first_sector(block::Drive& drive) {
  struct Read {
    static Task<void> run(block::Drive& drive, std::vector<uint8_t>& bytes) {
      if (!co_await drive.read(0, block::IoSlice(std::span(bytes)))) bytes.clear();
    }
  };
  std::vector<uint8_t> bytes(ata::kSectorBytes);
  if (drive.length() < bytes.size()) return {};
  TaskScope scope;
  scope.spawn(Read::run(drive, bytes));
  scope.wait_idle();
  return bytes;
}

Result<> check_text(const DiskDevice& device, std::string_view name, const std::string& text, size_t most) {
  if (text.size() <= most) return {};
  return fail("-device {}: {}={} has {} characters; {} are possible", device.type, name, text, text.size(), most);
}

}  // namespace

bool AtaBus::has_room() const {
  for (unsigned i = 0; i < config_.units; ++i)
    if (devices_[i] == nullptr) return true;
  return false;
}

Result<unsigned> AtaBus::choose_unit(const DiskDevice& device) const {
  const uint64_t wanted = device.properties.integer("unit");
  if (wanted == kAnyUnit) {
    for (unsigned i = 0; i < config_.units; ++i)
      if (devices_[i] == nullptr) return i;
    return fail("-device {}: the bus '{}' is full", device.type, config_.name);
  }
  if (wanted >= config_.units)
    return fail("-device {}: unit={}: the bus '{}' has {} unit{}, counted from 0", device.type, wanted, config_.name,
                config_.units, config_.units == 1 ? "" : "s");
  if (devices_[wanted] != nullptr)
    return fail("-device {}: unit={} of the bus '{}' is taken by '{}'", device.type, wanted, config_.name,
                devices_[wanted]->path());
  return static_cast<unsigned>(wanted);
}

Result<std::unique_ptr<AtaDevice>> AtaBus::make(const DiskDevice& device, unsigned unit) {
  const DiskConfig& disk = device.disk;
  const AtaWiring wiring{
      .host = host_, .lock = lock_, .serial = config_.serial, .unit = config_.number * config_.units + unit};
  KITE_TRY(check_text(device, "serial", disk.serial, 20));
  KITE_TRY(check_text(device, "model", disk.model, 40));
  KITE_TRY(check_text(device, "ver", disk.version, 8));
  if (device.type == "ide-cd") return std::unique_ptr<AtaDevice>(new AtapiCdrom(device.path, disk, wiring));
  if (device.type != "ide-hd")
    return fail("-device {}: it does not belong on an IDE bus; ide-hd and ide-cd do", device.type);
  if (disk.drive == nullptr) return fail("-device ide-hd: it needs a drive; give drive=ID of a -drive or -blockdev");
  if (!disk.drive->has_medium()) return fail("-device ide-hd: the drive '{}' is empty", disk.drive->id());
  if (disk.drive->read_only())
    return fail("-device ide-hd: the drive '{}' is read-only, which an IDE disk cannot be", disk.drive->id());
  if (disk.logical_block_bytes != ata::kSectorBytes)
    return fail("-device ide-hd: logical_block_size={}: an IDE disk has blocks of 512 bytes", disk.logical_block_bytes);
  if (disk.drive->length() < ata::kSectorBytes)
    return fail("-device ide-hd: the drive '{}' is smaller than a block of 512 bytes", disk.drive->id());
  const DiskGeometry& given = disk.geometry;
  if (given.heads > 16 || given.sectors > 63)
    return fail("-device ide-hd: heads={},secs={}: an IDE disk has at most 16 heads and 63 sectors", given.heads,
                given.sectors);
  const bool complete = given.cylinders != 0 && given.heads != 0 && given.sectors != 0;
  const std::vector<uint8_t> first = complete ? std::vector<uint8_t>{} : first_sector(*disk.drive);
  const auto rate = static_cast<uint16_t>(device.properties.integer("rotation_rate"));
  return std::unique_ptr<AtaDevice>(new AtaDisk(device.path, {.disk = disk, .rotation_rate = rate}, wiring, first));
}

Result<std::unique_ptr<bus::Device>> AtaBus::attach(const DiskDevice& device) {
  KITE_ASSIGN(const unsigned unit, choose_unit(device));
  KITE_ASSIGN(std::unique_ptr<AtaDevice> made, make(device, unit));
  {
    const std::lock_guard lock(lock_);
    devices_[unit] = made.get();
  }
  if (changed_) changed_();
  return std::unique_ptr<bus::Device>(std::move(made));
}

void AtaBus::detach(bus::Device& device) {
  for (AtaDevice*& here : devices_) {
    if (here != &device) continue;
    here->finish_requests();
    const std::lock_guard lock(lock_);
    here = nullptr;
  }
  if (changed_) changed_();
}

std::string AtaBus::boot_path(const bus::Device& device) const {
  for (unsigned i = 0; i < config_.units; ++i)
    if (devices_[i] == &device) return fmt::format("drive@{:x}/disk@{:x}", config_.number, i);
  return "";
}

void register_ata_types(TypeRegistry& registry) {
  const auto common = [] {
    std::vector<Property> properties = disk_properties();
    properties.push_back(
        property::unsigned_integer("unit", "place on the bus; 255: the first free one", kAnyUnit, 0, 255));
    properties.push_back(property::string("bus", "the IDE channel or AHCI port; the first with room"));
    properties.push_back(property::string("ver", "firmware version, up to 8 characters"));
    properties.push_back(property::string("model", "model, up to 40 characters"));
    properties.push_back(property::unsigned_integer("wwn", "world wide name; 0: none", 0, 0, ~uint64_t{0}));
    return properties;
  };
  registry.add({.name = "ide-device",
                .parent = "device",
                .description = "A drive with an IDE or Serial ATA interface",
                .bus = "IDE",
                .abstract = true,
                .user_creatable = false,
                .properties = common()});
  std::vector<Property> disk = geometry_properties();
  disk.push_back(property::unsigned_integer(
      "rotation_rate", "rotations a minute; 1: no rotating medium, 0: does not tell", 0, 0, 65535));
  registry.add({.name = "ide-hd",
                .parent = "ide-device",
                .description = "IDE or Serial ATA hard disk",
                .bus = "IDE",
                .properties = std::move(disk)});
  registry.add({.name = "ide-cd",
                .parent = "ide-device",
                .description = "IDE or Serial ATA CD/DVD-ROM drive",
                .bus = "IDE",
                .properties = {}});
}

}  // namespace kite::devices

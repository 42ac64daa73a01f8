#include "devices/fdc/floppy_drive.h"

#include "devices/section.h"

namespace kite::devices {
namespace {

struct FloppyDriveV1 {
  static constexpr uint32_t kVersion = 1;
  uint8_t track;
  bool changed;
};
template <class Codec>
void visit(Codec& codec, FloppyDriveV1& wire) {
  codec.field(1, wire.track);
  codec.field(2, wire.changed);
}

}  // namespace

Fdc::FloppyDrive::FloppyDrive(Fdc& owner, std::string path, unsigned unit, FloppyType type, block::Drive& drive)
    : Device(std::move(path)),
      owner_(owner),
      unit_(unit),
      type_(type),
      drive_(drive),
      format_(usual_floppy_format(type)) {
  look_at_disk();
}

void Fdc::FloppyDrive::look_at_disk() {
  // A disk of an unknown size is taken for one that the drive is made for; what it does not have cannot be read.
  format_ = find_floppy_format(drive_.length(), type_).value_or(usual_floppy_format(type_));
}

void Fdc::FloppyDrive::move_to(uint8_t track) {
  if (track != track_ && has_disk()) changed_ = false;
  track_ = track;
}

void Fdc::FloppyDrive::reset() {
  const std::lock_guard lock(owner_.lock_);
  track_ = 0;
  changed_ = true;
  look_at_disk();
}

void Fdc::FloppyDrive::medium_changed() {
  const std::lock_guard lock(owner_.lock_);
  changed_ = true;
  look_at_disk();
}

void Fdc::FloppyDrive::save(StateWriter& writer) {
  const std::lock_guard lock(owner_.lock_);
  save_section(writer, path(), FloppyDriveV1{.track = track_, .changed = changed_});
}

void Fdc::FloppyDrive::restore(StateReader& reader) {
  FloppyDriveV1 wire{};
  if (!restore_section(reader, path(), wire)) return;
  const std::lock_guard lock(owner_.lock_);
  track_ = wire.track;
  changed_ = wire.changed;
  look_at_disk();
}

// --- the cable

bool Fdc::DriveBus::has_room() const { return owner_.drives_[0] == nullptr || owner_.drives_[1] == nullptr; }

Result<std::unique_ptr<bus::Device>> Fdc::DriveBus::attach(const DiskDevice& device) {
  const PropertyValue* const given = device.properties.find("unit");
  const int64_t wanted = given == nullptr ? -1 : std::get<int64_t>(*given);
  if (wanted >= static_cast<int64_t>(kDrives))
    return fail("-device floppy: unit={}: the controller has units 0 and 1", wanted);
  const unsigned unit = wanted >= 0 ? static_cast<unsigned>(wanted) : owner_.drives_[0] == nullptr ? 0u : 1u;
  if (owner_.drives_[unit] != nullptr)
    return fail("-device floppy: unit {} of '{}' is in use{}", unit, name(),
                has_room() ? fmt::format("; unit {} is free", 1 - unit) : "");
  if (device.disk.drive == nullptr) return fail("-device floppy: it needs a drive");
  if (device.disk.logical_block_bytes != 512 || device.disk.physical_block_bytes != 512)
    return fail("-device floppy: sectors have 512 bytes, so logical_block_size and physical_block_size are 512");
  block::Drive& disk = *device.disk.drive;
  FloppyType type = parse_floppy_type(device.properties.string("drive-type"));
  if (type == FloppyType::kNone) {
    const auto format = disk.has_medium() ? find_floppy_format(disk.length(), FloppyType::kNone) : std::nullopt;
    type = format ? format->drive : owner_.config_.fallback;
  }
  auto made = std::make_unique<FloppyDrive>(owner_, device.path, unit, type, disk);
  const std::lock_guard lock(owner_.lock_);
  owner_.drives_[unit] = made.get();
  return made;
}

void Fdc::DriveBus::detach(bus::Device& device) {
  quiesce();
  const std::lock_guard lock(owner_.lock_);
  for (FloppyDrive*& drive : owner_.drives_)
    if (drive == &device) drive = nullptr;
}

void Fdc::DriveBus::quiesce() {
  {
    const std::lock_guard lock(owner_.lock_);
    ++owner_.life_;
    for (const FloppyDrive* drive : owner_.drives_)
      if (drive != nullptr && owner_.under_way_ != 0) drive->disk().cancel();
  }
  owner_.tasks_.wait_idle();
}

std::string Fdc::DriveBus::boot_path(const bus::Device& device) const {
  for (const FloppyDrive* drive : owner_.drives_)
    if (drive == &device) return fmt::format("floppy@{:x}", drive->unit());
  return "";
}

}  // namespace kite::devices

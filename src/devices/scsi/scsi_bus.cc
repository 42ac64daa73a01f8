#include "devices/scsi/scsi_bus.h"

#include <algorithm>

#include "devices/scsi/scsi_cd.h"
#include "devices/scsi/scsi_hd.h"
#include "devices/scsi/with_tray.h"
#include "support/bytes.h"

namespace kite::devices {
namespace {

constexpr uint64_t kAnyPlace = UINT32_MAX;  // the default of "scsi-id" and "lun"
constexpr uint8_t kNoUnit = 0x7f;           // peripheral qualifier 011b, type 1fh: not here, and cannot be

// [SAM-5] 4.7.7: eight bytes, of one level.
void put_lun(uint8_t* to, uint32_t lun) {
  constexpr uint16_t kFlat = 0x4000;
  store_be16(to, static_cast<uint16_t>(lun < 256 ? lun : kFlat | lun));
}

}  // namespace

ScsiBus::ScsiBus(std::string name, Limits limits, bool hotplug, Listener* listener)
    : name_(std::move(name)), limits_(limits), hotplug_(hotplug), listener_(listener) {}

ScsiBus::~ScsiBus() = default;

ScsiDevice* ScsiBus::find(const ScsiAddress& address) const {
  const auto found = std::ranges::find_if(units_, [&](const ScsiDevice* unit) { return unit->address() == address; });
  return found == units_.end() ? nullptr : *found;
}

ScsiUse ScsiBus::acquire(const ScsiAddress& address) {
  const std::lock_guard lock(mutex_);
  ScsiDevice* unit = find(address);
  if (unit == nullptr) return {};
  const std::lock_guard unit_lock(unit->mutex_);
  ++unit->uses_;
  return ScsiUse(*unit);
}

bool ScsiBus::has_target(uint32_t channel, uint32_t id) const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(
      units_, [&](const ScsiDevice* unit) { return unit->address().channel == channel && unit->address().id == id; });
}

std::vector<ScsiAddress> ScsiBus::units() const {
  const std::lock_guard lock(mutex_);
  std::vector<ScsiAddress> all;
  for (const ScsiDevice* unit : units_) all.push_back(unit->address());
  return all;
}

ScsiTransfer ScsiBus::absent_transfer(const Cdb& cdb) {
  uint64_t bytes = 0;
  switch (cdb[0]) {
    case scsi_op::kInquiry: bytes = load_be16(&cdb[3]); break;
    case scsi_op::kRequestSense: bytes = cdb[4]; break;
    case scsi_op::kReportLuns: bytes = load_be32(&cdb[6]); break;
    default: return {};
  }
  return {.direction = bytes == 0 ? ScsiDirection::kNone : ScsiDirection::kToGuest, .bytes = bytes};
}

ScsiReply ScsiBus::absent_unit(const ScsiAddress& address, const ScsiCommand& command) const {
  const auto answer = [&](std::span<const uint8_t> bytes) {
    const uint64_t count =
        std::min<uint64_t>({bytes.size(), absent_transfer(command.cdb).bytes, command.data_in.bytes()});
    if (count != 0) command.data_in.slice(0, count).copy_from(bytes.data());
    return ScsiReply{.moved = count};
  };
  switch (command.cdb[0]) {
    case scsi_op::kReportLuns: return report_luns(address, command);
    case scsi_op::kRequestSense: return answer(sense_bytes(sense::kNoSuchLun, (command.cdb[1] & 1) != 0));
    case scsi_op::kInquiry: {
      // [SPC-4] 6.6.1: it tells that there is no unit. No vital page of it exists but the list of them.
      if ((command.cdb[1] & 1) != 0) {
        if (command.cdb[2] != 0) return refuse(sense::kInvalidField);
        return answer(std::array<uint8_t, 5>{kNoUnit, 0, 0, 1, 0});
      }
      if (command.cdb[2] != 0) return refuse(sense::kInvalidField);
      std::array<uint8_t, 36> data{kNoUnit, 0, 5, 0x12, 31};
      return answer(data);
    }
    default: return refuse(sense::kNoSuchLun);
  }
}

// [SPC-4] 6.33. Unit 0 is always in the list: whoever asks reached the target through it.
ScsiReply ScsiBus::report_luns(const ScsiAddress& target, const ScsiCommand& command) const {
  constexpr uint32_t kShortest = 16;
  constexpr uint8_t kWellKnown = 1, kAll = 2;
  const uint8_t select = command.cdb[2];
  const uint32_t allocation = load_be32(&command.cdb[6]);
  if (allocation < kShortest || select > kAll) return refuse(sense::kInvalidField);
  std::vector<uint32_t> luns;
  if (select != kWellKnown) {
    luns.push_back(0);
    const std::lock_guard lock(mutex_);
    for (const ScsiDevice* unit : units_) {
      const ScsiAddress& place = unit->address();
      if (place.channel == target.channel && place.id == target.id && place.lun != 0) luns.push_back(place.lun);
    }
  }
  std::ranges::sort(luns);
  std::vector<uint8_t> data(8 + 8 * luns.size());
  store_be32(data.data(), static_cast<uint32_t>(8 * luns.size()));
  for (size_t i = 0; i < luns.size(); ++i) put_lun(&data[8 + 8 * i], luns[i]);
  const uint64_t count = std::min<uint64_t>({data.size(), allocation, command.data_in.bytes()});
  if (count != 0) command.data_in.slice(0, count).copy_from(data.data());
  return {.moved = count};
}

void ScsiBus::unit_changed(const ScsiDevice& unit, ScsiSense what) {
  if (listener_ != nullptr) listener_->unit_changed(unit.address(), what);
}

void ScsiBus::reset_units(ScsiSense attention) {
  const std::lock_guard lock(mutex_);
  for (ScsiDevice* unit : units_) unit->logical_reset(attention);
}

// Attaching.

bool ScsiBus::has_room() const {
  const uint64_t own = limits_.initiator < limits_.targets ? 1 : 0;
  const std::lock_guard lock(mutex_);
  return units_.size() < (uint64_t{limits_.targets} - own) * limits_.luns;
}

// With both "scsi-id" and "lun" left out the next free target, else the next free number of what was left out.
Result<ScsiAddress> ScsiBus::place(const DiskDevice& device) const {
  const uint64_t channel = device.properties.integer("channel");
  const uint64_t id = device.properties.integer("scsi-id"), lun = device.properties.integer("lun");
  if (channel >= limits_.channels)
    return fail("-device {}: channel={} is not on {}, whose last is {}", device.type, channel, name_,
                limits_.channels - 1);
  if (id != kAnyPlace && (id >= limits_.targets || id == limits_.initiator))
    return fail("-device {}: scsi-id={} is not on {}, whose last is {}{}", device.type, id, name_, limits_.targets - 1,
                id == limits_.initiator ? "; the controller has this number itself" : "");
  if (lun != kAnyPlace && lun >= limits_.luns)
    return fail("-device {}: lun={} is not on {}, whose last is {}", device.type, lun, name_, limits_.luns - 1);
  ScsiAddress address{.channel = static_cast<uint32_t>(channel),
                      .id = static_cast<uint32_t>(id),
                      .lun = static_cast<uint32_t>(lun == kAnyPlace ? 0 : lun)};
  if (id == kAnyPlace) {
    for (address.id = 0; address.id < limits_.targets; ++address.id)
      if (address.id != limits_.initiator && find(address) == nullptr) return address;
    return fail("-device {}: {} has no free target", device.type, name_);
  }
  if (lun == kAnyPlace) {
    while (address.lun < limits_.luns && find(address) != nullptr) ++address.lun;
    if (address.lun < limits_.luns) return address;
    return fail("-device {}: target {} of {} has no free lun", device.type, id, name_);
  }
  if (find(address) != nullptr)
    return fail("-device {}: lun {} of target {} of {} is taken", device.type, lun, id, name_);
  return address;
}

std::unique_ptr<ScsiDevice> ScsiBus::make_unit(std::string path, ScsiUnitConfig config, bool cdrom) {
  std::unique_ptr<ScsiDevice> unit;
  if (cdrom) {
    unit = std::make_unique<WithTray<ScsiCd>>(std::move(path), std::move(config));
  } else if (config.removable) {
    unit = std::make_unique<WithTray<ScsiHd>>(std::move(path), std::move(config));
  } else {
    unit = std::make_unique<ScsiHd>(std::move(path), std::move(config));
  }
  unit->bus_ = this;
  // [SPC-4] 6.33: the target's other units tell that its inventory is another one.
  for (ScsiDevice* other : units_) {
    if (other->address().channel == unit->address().channel && other->address().id == unit->address().id)
      other->post_attention(sense::kLunsChanged);
  }
  units_.push_back(unit.get());
  return unit;
}

std::unique_ptr<ScsiDevice> ScsiBus::add_unit(std::string path, ScsiUnitConfig config, bool cdrom) {
  const std::lock_guard lock(mutex_);
  return make_unit(std::move(path), std::move(config), cdrom);
}

Result<std::unique_ptr<bus::Device>> ScsiBus::attach(const DiskDevice& device) {
  ScsiUnitConfig config;
  const bool cd = device.type == "scsi-cd";
  if (!cd && device.type != "scsi-hd") return fail("-device {}: no such device is on a SCSI bus", device.type);
  KITE_ASSIGN(config, cd ? scsi_cd_config(device) : scsi_hd_config(device));
  std::unique_ptr<ScsiDevice> unit;
  {
    const std::lock_guard lock(mutex_);
    KITE_ASSIGN(config.address, place(device));
    unit = make_unit(device.path, std::move(config), cd);
  }
  if (listener_ != nullptr) listener_->unit_attached(unit->address());
  return unit;
}

void ScsiBus::detach(bus::Device& device) {
  auto* unit = dynamic_cast<ScsiDevice*>(&device);
  if (unit == nullptr) return;
  {
    const std::lock_guard lock(mutex_);
    if (std::erase(units_, unit) == 0) return;
    for (ScsiDevice* other : units_) {
      if (other->address().channel == unit->address().channel && other->address().id == unit->address().id)
        other->post_attention(sense::kLunsChanged);
    }
  }
  unit->abort_all();
  {
    std::unique_lock lock(unit->mutex_);
    unit->unused_.wait(lock, [&] { return unit->uses_ == 0; });
  }
  if (listener_ != nullptr) listener_->unit_detached(unit->address());
}

std::string ScsiBus::boot_path(const bus::Device& device) const {
  const auto* unit = dynamic_cast<const ScsiDevice*>(&device);
  if (unit == nullptr) return "";
  const ScsiAddress& place = unit->address();
  return fmt::format("channel@{:x}/disk@{:x},{:x}", place.channel, place.id, place.lun);
}

}  // namespace kite::devices

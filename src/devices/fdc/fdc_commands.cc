// The floppy controller's command phase, and the commands without data. [82077AA] 5
#include <algorithm>
#include <array>

#include "devices/fdc/fdc.h"
#include "devices/fdc/floppy_drive.h"
#include "support/log.h"

namespace kite::devices {

using namespace fdc_regs;

namespace {

struct Row {
  uint8_t mask, opcode;
  uint8_t bytes;  // of the command, itself included
};
// The first row that matches counts.
constexpr std::array kCommands{
    Row{0x1f, kReadData, 9},
    Row{0x1f, kReadDeleted, 9},
    Row{0x3f, kWriteData, 9},
    Row{0x3f, kWriteDeleted, 9},
    Row{0x9f, kReadTrack, 9},
    Row{0x1f, kVerify, 9},
    Row{0xbf, kReadId, 2},
    Row{0xbf, kFormatTrack, 6},
    Row{0xff, kRecalibrate, 2},
    Row{0xff, kSenseInterrupt, 1},
    Row{0xff, kSpecify, 3},
    Row{0xff, kSenseDriveStatus, 2},
    Row{0xff, kSeek, 3},
    Row{0xbf, kRelativeSeek, 3},
    Row{0xff, kDumpReg, 1},
    Row{0xff, kVersion, 1},
    Row{0xff, kPerpendicular, 2},
    Row{0xff, kConfigure, 4},
    Row{0x7f, kLock, 1},
    Row{0xff, kPartId, 1},
    Row{0xff, kPowerDown, 2},
    Row{0xff, kSave, 1},
    Row{0xff, kRestore, 17},
    Row{0xff, kOption, 2},
    Row{0xff, kDriveSpecification, 6},
};

const Row* find(uint8_t command) {
  const auto* const found =
      std::ranges::find_if(kCommands, [command](const Row& row) { return (command & row.mask) == row.opcode; });
  return found == kCommands.end() ? nullptr : found;
}

}  // namespace

// A byte of a command came.
void Fdc::execute() {
  const uint8_t first = state_.command[0];
  const Row* const row = find(first);
  if (row == nullptr) {
    log::guest_error("fdc: {}: command {:#04x}", path(), first);
    return invalid();
  }
  // DRIVE SPECIFICATION ends early with a byte whose bit 7 is set.
  const bool last_specification = row->opcode == kDriveSpecification && state_.command_bytes > 1 &&
                                  (state_.command[state_.command_bytes - 1u] & 0x80) != 0;
  if (state_.command_bytes < row->bytes && !last_specification) return;
  switch (row->opcode) {
    case kReadData:
    case kReadDeleted:
    case kWriteData:
    case kWriteDeleted:
    case kReadTrack:
    case kVerify: return transfer();
    case kFormatTrack: return format_track();
    case kReadId: return read_id();
    case kRecalibrate: return recalibrate();
    case kSenseInterrupt: return sense_interrupt();
    case kSenseDriveStatus: return sense_drive_status();
    case kSeek: return seek_to(state_.command[1] & kDorSelect, state_.command[2]);
    case kRelativeSeek: return relative_seek();
    case kDumpReg: return dump_registers();
    case kVersion: return give_result({kVersionByte});
    case kPartId: return give_result({kPartIdByte});
    case kConfigure: return configure();
    case kSave: return save_registers();
    case kRestore: return restore_registers();
    case kLock:
      state_.locked = (first & kLockBit) != 0;
      return give_result({static_cast<uint8_t>(state_.locked ? 0x10 : 0)});
    case kPowerDown: state_.power = state_.command[1]; return give_result({state_.power});
    case kSpecify:
      state_.specify1 = state_.command[1];
      state_.specify2 = state_.command[2];
      break;
    case kPerpendicular: {
      // [82077AA] 5.2.11: the drives' bits change only with OW set.
      const uint8_t value = state_.command[1];
      state_.perpendicular =
          (value & 0x80) != 0 ? value & 0x3f : static_cast<uint8_t>((state_.perpendicular & 0x3c) | (value & 3));
      break;
    }
    case kOption: state_.options = state_.command[1]; break;
    default: break;  // DRIVE SPECIFICATION: rates are what DSR says
  }
  state_.command_bytes = 0;
}

void Fdc::give_result(std::initializer_list<uint8_t> bytes) {
  state_.result_bytes = 0;
  for (const uint8_t byte : bytes) state_.result[state_.result_bytes++] = byte;
  state_.result_at = 0;
  state_.phase = Phase::kResult;
}

void Fdc::invalid() { give_result({kSt0Invalid}); }

// --- drives

// [82077AA] 5.2.6
void Fdc::sense_interrupt() {
  if (state_.reset_senses != 0) {
    const auto unit = static_cast<uint8_t>(4 - state_.reset_senses--);
    give_result({static_cast<uint8_t>(kSt0Polling | unit), drive(unit) == nullptr ? uint8_t{0} : drive(unit)->track()});
    return set_irq(false);
  }
  const auto ended = std::ranges::find_if(state_.seek_ends, [](uint8_t st0) { return st0 != 0; });
  if (ended == state_.seek_ends.end()) return invalid();
  const auto unit = static_cast<unsigned>(ended - state_.seek_ends.begin());
  give_result({*ended, drive(unit) == nullptr ? uint8_t{0} : drive(unit)->track()});
  *ended = 0;
  // Another drive's end is told of next.
  set_irq(std::ranges::any_of(state_.seek_ends, [](uint8_t st0) { return st0 != 0; }));
}

void Fdc::sense_drive_status() {
  const uint8_t unit = state_.command[1] & kDorSelect;
  auto st3 = static_cast<unsigned>((state_.command[1] & 7) | kSt3Ready | kSt3TwoSides);
  if (const FloppyDrive* const one = drive(unit); one != nullptr) {
    if (one->track() == 0) st3 |= kSt3Track0;
    if (one->disk().read_only()) st3 |= kSt3Protected;
  }
  give_result({static_cast<uint8_t>(st3)});
}

void Fdc::seek_to(unsigned unit, uint8_t track) {
  if (FloppyDrive* const one = drive(unit); one != nullptr) one->move_to(track);
  state_.seek_ends[unit] = static_cast<uint8_t>(kSt0SeekEnd | unit);
  state_.command_bytes = 0;
  set_irq(true);
}

void Fdc::recalibrate() {
  const unsigned unit = state_.command[1] & kDorSelect;
  seek_to(unit, 0);
  // No track 0 signal comes from a drive that is not there.
  if (drive(unit) == nullptr)
    state_.seek_ends[unit] = static_cast<uint8_t>(kSt0Abnormal | kSt0SeekEnd | kSt0EquipmentCheck | unit);
}

void Fdc::relative_seek() {
  const unsigned unit = state_.command[1] & kDorSelect, steps = state_.command[2];
  const unsigned track = drive(unit) == nullptr ? 0u : drive(unit)->track();
  const bool inwards = (state_.command[0] & kSeekInwards) != 0;
  const unsigned target = inwards ? std::min(track + steps, 255u) : track - std::min(track, steps);
  seek_to(unit, static_cast<uint8_t>(target));
}

// READ ID tells the first sector that comes by. [82077AA] 5.2.5. Without a disk the controller would wait for an index
// pulse for ever; here it tells where the heads are, as guests of virtual machines have learnt to expect.
void Fdc::read_id() {
  const unsigned unit = state_.command[1] & kDorSelect;
  const auto head = static_cast<uint8_t>(state_.command[1] >> 2 & 1);
  const FloppyDrive* const one = drive(unit);
  state_.first = {.track = one == nullptr ? uint8_t{0} : one->track(), .head = head, .sector = 1};
  state_.sectors = 0;
  const bool disk = one != nullptr && one->has_disk();
  const bool readable =
      one != nullptr && (!disk || ((!config_.check_rate || (state_.dsr & kRate) == one->format().rate) &&
                                   one->track() < one->format().cylinders && head < one->format().heads));
  if (!readable) return fail_transfer(kSt1MissingMark, 0);
  finish(0, 0, 0, 0);
}

// --- what the controller is set to

void Fdc::configure() {
  state_.config = state_.command[2] & kConfigureBits;
  state_.precompensation = state_.command[3];
  state_.command_bytes = 0;
}

void Fdc::dump_registers() {
  const auto track = [this](unsigned unit) { return drive(unit) == nullptr ? uint8_t{0} : drive(unit)->track(); };
  give_result({track(0), track(1), 0, 0, state_.specify1, state_.specify2, state_.last_count,
               static_cast<uint8_t>((state_.locked ? kLockBit : 0) | state_.perpendicular), state_.config,
               state_.precompensation});
}

// [82078] 6.2.14: what RESTORE takes back.
void Fdc::save_registers() {
  const auto track = [this](unsigned unit) { return drive(unit) == nullptr ? uint8_t{0} : drive(unit)->track(); };
  give_result({0, 0, state_.dsr, 0, 0, track(0), track(1), 0, 0, state_.specify1, state_.specify2, state_.last_count,
               static_cast<uint8_t>((state_.locked ? kLockBit : 0) | state_.perpendicular), state_.config,
               state_.precompensation, state_.power});
}

void Fdc::restore_registers() {
  const auto at = [this](size_t index) { return state_.command[index + 1]; };
  state_.dsr = at(2) & kRate;
  state_.specify1 = at(9);
  state_.specify2 = at(10);
  state_.last_count = at(11);
  state_.locked = (at(12) & kLockBit) != 0;
  state_.perpendicular = at(12) & 0x3f;
  state_.config = at(13) & kConfigureBits;
  state_.precompensation = at(14);
  state_.power = at(15);
  state_.command_bytes = 0;
}

}  // namespace kite::devices

// Reading, writing, verifying and formatting. [82077AA] 5.2.1-5.2.4
#include <algorithm>

#include "devices/fdc/fdc.h"
#include "devices/fdc/floppy_drive.h"

namespace kite::devices {

using namespace fdc_regs;

namespace {

constexpr uint8_t kOpcodeBits = 0x1f;
constexpr unsigned kIdBytes = 4;  // of a sector, for FORMAT TRACK

bool writes(uint8_t opcode) { return opcode == kWriteData || opcode == kWriteDeleted || opcode == kFormatTrack; }

}  // namespace

// --- where the sectors are

// After the last sector of a track, or the one the command names as such, comes the other side (with MT), then the next
// cylinder.
Fdc::Place Fdc::next_place(const Place& place) const {
  const FloppyDrive* const one = drive(state_.command[1] & kDorSelect);
  const FloppyFormat format = one == nullptr ? usual_floppy_format(FloppyType::k144) : one->format();
  const bool both_sides = (state_.command[0] & kMultiTrack) != 0 && format.heads == 2;
  Place next = place;
  if (place.sector < format.sectors && place.sector != state_.last_count) {
    ++next.sector;
    return next;
  }
  next.sector = 1;
  if (both_sides && place.head == 0) {
    next.head = 1;
    return next;
  }
  if (both_sides) next.head = 0;
  ++next.track;
  return next;
}

Fdc::Place Fdc::last_place(unsigned sectors) const {
  Place place = state_.first;
  for (unsigned i = 1; i < sectors; ++i) place = next_place(place);
  return place;
}

std::vector<Fdc::Run> Fdc::runs(unsigned sectors) const {
  std::vector<Run> all;
  const FloppyDrive* const one = drive(state_.command[1] & kDorSelect);
  Place place = state_.first;
  for (unsigned i = 0; i < sectors && one != nullptr; ++i, place = next_place(place)) {
    const uint64_t block = one->block_of(place);
    if (!all.empty() && all.back().block + all.back().count == block) {
      ++all.back().count;
    } else {
      all.push_back({.block = block, .count = 1});
    }
  }
  return all;
}

// --- the beginning

void Fdc::transfer() {
  const uint8_t opcode = state_.command[0] & kOpcodeBits;
  const unsigned unit = state_.command[1] & kDorSelect;
  const auto head = static_cast<uint8_t>(state_.command[1] >> 2 & 1);
  const uint8_t cylinder = state_.command[2], end = state_.command[6];
  state_.last_count = end;
  state_.first = {.track = cylinder, .head = head, .sector = state_.command[4]};
  state_.sectors = 0;
  FloppyDrive* const one = drive(unit);
  if (one == nullptr) return fail_transfer(kSt1MissingMark, 0);
  if ((state_.config & kImpliedSeek) != 0) one->move_to(cylinder);
  if (!one->has_disk() || (config_.check_rate && (state_.dsr & kRate) != one->format().rate))
    return fail_transfer(kSt1MissingMark, 0);
  const FloppyFormat& format = one->format();
  // What no sector's ID says is not found.
  if (one->track() != cylinder) return fail_transfer(kSt1NoData, kSt2WrongCylinder);
  if (cylinder >= format.cylinders || head >= format.heads || state_.command[3] != head ||
      state_.command[5] != kSectorCode)
    return fail_transfer(kSt1NoData, 0);
  if (opcode == kReadTrack) state_.first.sector = 1;
  const uint8_t first = state_.first.sector;
  if (first == 0 || first > format.sectors || end < first) return fail_transfer(kSt1NoData, 0);
  if (writes(opcode) && one->disk().read_only()) return fail_transfer(kSt1NotWritable, 0);
  unsigned count = end - first + 1u;
  if ((state_.command[0] & kMultiTrack) != 0 && head == 0 && format.heads == 2) count += end;
  // VERIFY with EC counts its sectors itself.
  if (opcode == kVerify && (state_.command[1] & kVerifyCount) != 0 && state_.command[8] != 0) count = state_.command[8];
  // No image knows deleted sectors: the first that is found ends the search for one.
  if (opcode == kReadDeleted) count = 1;
  begin(state_.first, count);
}

void Fdc::format_track() {
  const unsigned unit = state_.command[1] & kDorSelect;
  const auto head = static_cast<uint8_t>(state_.command[1] >> 2 & 1);
  const FloppyDrive* const one = drive(unit);
  state_.first = {.track = one == nullptr ? uint8_t{0} : one->track(), .head = head, .sector = 1};
  state_.last_count = state_.command[3];
  state_.sectors = 0;
  if (one == nullptr || !one->has_disk()) return fail_transfer(kSt1MissingMark, 0);
  if (one->disk().read_only()) return fail_transfer(kSt1NotWritable, 0);
  if (one->track() >= one->format().cylinders || head >= one->format().heads || state_.command[3] == 0)
    return fail_transfer(kSt1NoData, 0);
  state_.sectors = state_.command[3];
  state_.data.assign(size_t{state_.sectors} * kIdBytes, 0);
  state_.data_at = 0;
  state_.phase = Phase::kFromHost;
  pump();
}

void Fdc::begin(Place first, unsigned sectors) {
  const uint8_t opcode = state_.command[0] & kOpcodeBits;
  // The disk ends somewhere.
  const FloppyDrive* const one = drive(state_.command[1] & kDorSelect);
  const uint64_t blocks = one->format().blocks();
  unsigned there = 0;
  for (Place place = first; there < sectors && one->block_of(place) < blocks; place = next_place(place)) ++there;
  state_.sectors = static_cast<uint16_t>(there);
  state_.data_at = 0;
  if (!writes(opcode)) return load();
  state_.data.assign(size_t{there} * kSectorBytes, 0);
  state_.phase = Phase::kFromHost;
  pump();
}

// --- the disk's side

void Fdc::load() {
  state_.phase = Phase::kLoading;
  state_.data.clear();
  const FloppyDrive* const one = drive(state_.command[1] & kDorSelect);
  if (one == nullptr) return fail_transfer(kSt1MissingMark, 0);
  ++under_way_;
  tasks_.spawn(load_sectors(life_, one->disk(), runs(state_.sectors), size_t{state_.sectors} * kSectorBytes));
}

Task<void> Fdc::load_sectors(uint32_t life, block::Drive& drive, std::vector<Run> runs, size_t bytes) {
  co_await drive.executor().schedule();  // the caller holds the lock
  std::vector<uint8_t> data(bytes);
  bool good = true;
  size_t at = 0;
  for (const Run& run : runs) {
    const size_t here = size_t{run.count} * kSectorBytes;
    good = good && (co_await drive.read(run.block * kSectorBytes, block::IoSlice(data.data() + at, here))).has_value();
    at += here;
  }
  loaded(life, good, std::move(data));
}

// A task is done with the disk; false: it was of another life, and its end may be what a reset waits for.
bool Fdc::disk_done(uint32_t life) {
  --under_way_;
  if (life == life_) return true;
  if (state_.resetting && under_way_ == 0) {
    state_.resetting = false;
    if ((state_.dor & kDorNotReset) != 0) end_reset();
  }
  return false;
}

void Fdc::loaded(uint32_t life, bool good, std::vector<uint8_t> data) {
  const std::lock_guard lock(lock_);
  if (!disk_done(life)) return;
  const uint8_t opcode = state_.command[0] & kOpcodeBits;
  if (!good) return fail_transfer(kSt1DataError, kSt2DataError);
  if (opcode == kVerify) return finish(state_.sectors, 0, 0, 0);
  state_.data = std::move(data);
  state_.data_at = 0;
  state_.phase = Phase::kToHost;
  if (!uses_dma()) set_irq(true);  // [82077AA] 5.1.2: without DMA the host is called for its bytes
  pump();
}

// The sectors that FORMAT TRACK's IDs name, each a run.
std::vector<Fdc::Run> Fdc::formatted() const {
  std::vector<Run> all;
  const FloppyDrive* const one = drive(state_.command[1] & kDorSelect);
  for (size_t at = 0; one != nullptr && at + kIdBytes <= state_.data_at; at += kIdBytes) {
    const uint8_t sector = state_.data[at + 2];
    if (state_.data[at + 3] != kSectorCode || sector == 0 || sector > one->format().sectors) continue;
    all.push_back(
        {.block = one->block_of({.track = one->track(), .head = state_.first.head, .sector = sector}), .count = 1});
  }
  return all;
}

void Fdc::store() {
  state_.phase = Phase::kStoring;
  const FloppyDrive* const one = drive(state_.command[1] & kDorSelect);
  if (one == nullptr) return fail_transfer(kSt1MissingMark, 0);
  ++under_way_;
  if ((state_.command[0] & kOpcodeBits) == kFormatTrack) {
    std::vector<Run> all = formatted();
    std::vector<uint8_t> filler(all.size() * kSectorBytes, state_.command[5]);
    return tasks_.spawn(store_sectors(life_, one->disk(), std::move(all), std::move(filler)));
  }
  // The rest of a sector that the host did not fill is zeroes.
  const uint32_t sectors = (state_.data_at + kSectorBytes - 1) / kSectorBytes;
  tasks_.spawn(store_sectors(life_, one->disk(), runs(sectors), state_.data));
}

Task<void> Fdc::store_sectors(uint32_t life, block::Drive& drive, std::vector<Run> runs, std::vector<uint8_t> data) {
  co_await drive.executor().schedule();
  bool good = true;
  size_t at = 0;
  for (const Run& run : runs) {
    const size_t here = size_t{run.count} * kSectorBytes;
    good = good && (co_await drive.write(run.block * kSectorBytes, block::IoSlice(data.data() + at, here))).has_value();
    at += here;
  }
  stored(life, good);
}

void Fdc::stored(uint32_t life, bool good) {
  const std::lock_guard lock(lock_);
  if (!disk_done(life)) return;
  if (!good) return fail_transfer(kSt1DataError, kSt2DataError);
  end_of_data();
}

// --- the host's side

// Moves what the DMA controller takes or gives. It calls again when it can do more.
void Fdc::pump() {
  if (stopped_ || (state_.phase != Phase::kToHost && state_.phase != Phase::kFromHost)) return;
  if (!uses_dma()) return set_irq(true);
  if (state_.data_at == state_.data.size()) return host_done(false);
  const unsigned channel = config_.dma_channel;
  const std::span rest = std::span(state_.data).subspan(state_.data_at);
  wiring_.dma->set_request(channel, true);
  const I8237::Transfer moved =
      state_.phase == Phase::kToHost ? wiring_.dma->to_memory(channel, rest) : wiring_.dma->from_memory(channel, rest);
  state_.data_at += static_cast<uint32_t>(moved.bytes);
  if (moved.terminal_count || state_.data_at == state_.data.size()) host_done(moved.terminal_count);
}

// The host has, or has given, all that it wants.
void Fdc::host_done(bool terminal_count) {
  if (wiring_.dma != nullptr) wiring_.dma->set_request(config_.dma_channel, false);
  state_.cut_short = !terminal_count;
  if (state_.phase == Phase::kFromHost) return store();
  end_of_data();
}

void Fdc::end_of_data() {
  const uint8_t opcode = state_.command[0] & kOpcodeBits;
  const unsigned sectors = opcode == kFormatTrack ? state_.sectors : (state_.data_at + kSectorBytes - 1) / kSectorBytes;
  const uint8_t mark = opcode == kReadDeleted ? kSt2ControlMark : 0;
  // [82077AA] 6.2: without a terminal count the controller goes on until there is no sector any more.
  if (state_.cut_short && opcode != kFormatTrack) return finish(sectors, kSt0Abnormal, kSt1EndOfCylinder, mark);
  finish(sectors, 0, 0, mark);
}

// --- the end

// The result phase of a transfer of `sectors` sectors.
void Fdc::finish(unsigned sectors, uint8_t st0, uint8_t st1, uint8_t st2) {
  const unsigned unit = state_.command[1] & kDorSelect;
  const bool data = (state_.command[0] & kOpcodeBits) != kReadId && (state_.command[0] & kOpcodeBits) != kFormatTrack;
  const Place last = data ? last_place(sectors) : state_.first;
  const Place next = data && sectors != 0 ? next_place(last) : last;
  if (last.track != state_.first.track) {
    st0 |= kSt0SeekEnd;
    if (FloppyDrive* const one = drive(unit); one != nullptr) one->move_to(last.track);
  }
  give_result({static_cast<uint8_t>(st0 | unsigned{last.head} << 2 | unit), st1, st2, next.track, next.head,
               next.sector, kSectorCode});
  state_.data.clear();
  state_.data_at = 0;
  set_irq(true);
}

void Fdc::fail_transfer(uint8_t st1, uint8_t st2) { finish(0, kSt0Abnormal, st1, st2); }

}  // namespace kite::devices

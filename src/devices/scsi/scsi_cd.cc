#include "devices/scsi/scsi_cd.h"

#include <algorithm>

#include "support/bytes.h"

namespace kite::devices {

struct ScsiCd::Table {
  using Quick = ScsiReply (ScsiDevice::*)(const ScsiJob&);
  using Slow = Task<ScsiReply> (ScsiDevice::*)(const ScsiJob&);
  static constexpr Quick own(ScsiReply (ScsiCd::*handler)(const ScsiJob&)) { return static_cast<Quick>(handler); }
  static constexpr Slow own(Task<ScsiReply> (ScsiCd::*handler)(const ScsiJob&)) { return static_cast<Slow>(handler); }
  static std::span<const ScsiOperation> rows();
};

std::span<const ScsiOperation> ScsiCd::Table::rows() {
  using enum ScsiDirection;
  using A = ScsiAmount;
  using Unit = ScsiCd;
  constexpr uint8_t kAny = ScsiOperation::kNoAction;
  constexpr uint8_t kThrough = ScsiOperation::kThroughAttention, kMedium = ScsiOperation::kNeedsMedium;
  // Opcode, service action, CDB's bytes; direction, amount, flags; bits that are looked at; who does it.
  static constexpr ScsiOperation kRows[] = {
      {scsi_op::kTestUnitReady, kAny, 6, kNone, A::kNone, kMedium, {0x00}, &Unit::test_unit_ready},
      {scsi_op::kRequestSense, kAny, 6, kToGuest, A::kByte4, kThrough, {0x03, 1, 0, 0, 0xff}, &Unit::request_sense},
      {scsi_op::kRead6, kAny, 6, kToGuest, A::kBlocks, kMedium, {0x08, 0x1f, 0xff, 0xff, 0xff}, {}, &Unit::read},
      {scsi_op::kWrite6, kAny, 6, kFromGuest, A::kBlocks, kMedium, {0x0a, 0x1f, 0xff, 0xff, 0xff}, &Unit::refuse_write},
      {scsi_op::kSeek6, kAny, 6, kNone, A::kNone, kMedium, {0x0b, 0x1f, 0xff, 0xff}, &Unit::seek},
      {scsi_op::kInquiry, kAny, 6, kToGuest, A::kHalf3, kThrough, {0x12, 1, 0xff, 0xff, 0xff}, &Unit::inquiry},
      {scsi_op::kModeSelect6, kAny, 6, kFromGuest, A::kByte4, 0, {0x15, 0x11, 0, 0, 0xff}, {}, &Unit::mode_select},
      {scsi_op::kReserve6, kAny, 6, kNone, A::kNone, 0, {0x16}, &Unit::do_nothing},
      {scsi_op::kRelease6, kAny, 6, kNone, A::kNone, 0, {0x17}, &Unit::do_nothing},
      {scsi_op::kModeSense6, kAny, 6, kToGuest, A::kByte4, 0, {0x1a, 0x08, 0xff, 0xff, 0xff}, &Unit::mode_sense},
      {scsi_op::kStartStopUnit, kAny, 6, kNone, A::kNone, 0, {0x1b, 0, 0, 0, 0xf3}, {}, &Unit::start_stop},
      {scsi_op::kSendDiagnostic, kAny, 6, kNone, A::kNone, 0, {0x1d, 0xf7, 0, 0xff, 0xff}, &Unit::send_diagnostic},
      {scsi_op::kPreventAllow, kAny, 6, kNone, A::kNone, 0, {0x1e, 0, 0, 0, 1}, &Unit::prevent_allow},
      {scsi_op::kReadCapacity10, kAny, 10, kToGuest, A::kEight, kMedium, {0x25}, own(&Unit::read_capacity)},
      {scsi_op::kRead10,
       kAny,
       10,
       kToGuest,
       A::kBlocks,
       kMedium,
       {0x28, 0xf8, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff},
       {},
       &Unit::read},
      {scsi_op::kWrite10,
       kAny,
       10,
       kFromGuest,
       A::kBlocks,
       kMedium,
       {0x2a, 0xf8, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff},
       &Unit::refuse_write},
      {scsi_op::kSeek10, kAny, 10, kNone, A::kNone, kMedium, {0x2b, 0, 0xff, 0xff, 0xff, 0xff}, &Unit::seek},
      {scsi_op::kSynchronizeCache10,
       kAny,
       10,
       kNone,
       A::kNone,
       kMedium,
       {0x35, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff},
       {},
       &Unit::synchronize_cache},
      {scsi_op::kReadSubChannel,
       kAny,
       10,
       kToGuest,
       A::kHalf7,
       kMedium,
       {0x42, 2, 0x40, 0xff, 0, 0, 0xff, 0xff, 0xff},
       own(&Unit::read_sub_channel)},
      {scsi_op::kReadToc,
       kAny,
       10,
       kToGuest,
       A::kHalf7,
       kMedium,
       {0x43, 2, 0x0f, 0, 0, 0, 0xff, 0xff, 0xff},
       own(&Unit::read_toc)},
      {scsi_op::kGetConfiguration,
       kAny,
       10,
       kToGuest,
       A::kHalf7,
       kThrough,
       {0x46, 3, 0xff, 0xff, 0, 0, 0, 0xff, 0xff},
       own(&Unit::get_configuration)},
      {scsi_op::kGetEventStatus,
       kAny,
       10,
       kToGuest,
       A::kHalf7,
       kThrough,
       {0x4a, 1, 0, 0, 0xff, 0, 0, 0xff, 0xff},
       own(&Unit::event_status)},
      {scsi_op::kReadDiscInformation,
       kAny,
       10,
       kToGuest,
       A::kHalf7,
       kMedium,
       {0x51, 7, 0, 0, 0, 0, 0, 0xff, 0xff},
       own(&Unit::disc_information)},
      {scsi_op::kReadTrackInformation,
       kAny,
       10,
       kToGuest,
       A::kHalf7,
       kMedium,
       {0x52, 3, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff},
       own(&Unit::track_information)},
      {scsi_op::kModeSelect10,
       kAny,
       10,
       kFromGuest,
       A::kHalf7,
       0,
       {0x55, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff},
       {},
       &Unit::mode_select},
      {scsi_op::kModeSense10,
       kAny,
       10,
       kToGuest,
       A::kHalf7,
       0,
       {0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff},
       &Unit::mode_sense},
      {scsi_op::kReportLuns,
       kAny,
       12,
       kToGuest,
       A::kWord6,
       kThrough,
       {0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
       {},
       &Unit::report_luns},
      {scsi_op::kMaintenanceIn,
       scsi_op::kMiReportSupportedOpcodes,
       12,
       kToGuest,
       A::kWord6,
       0,
       {0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
       &Unit::report_opcodes},
      {scsi_op::kMaintenanceIn,
       scsi_op::kMiReportSupportedTmfs,
       12,
       kToGuest,
       A::kWord6,
       0,
       {0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
       &Unit::report_tmfs},
      {scsi_op::kRead12,
       kAny,
       12,
       kToGuest,
       A::kBlocks,
       kMedium,
       {0xa8, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
       {},
       &Unit::read},
      {scsi_op::kWrite12,
       kAny,
       12,
       kFromGuest,
       A::kBlocks,
       kMedium,
       {0xaa, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
       &Unit::refuse_write},
      {scsi_op::kGetPerformance,
       kAny,
       12,
       kToGuest,
       A::kSpecial,
       kMedium,
       {0xac, 0x1f, 0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff},
       own(&Unit::get_performance)},
      {scsi_op::kReadDiscStructure,
       kAny,
       12,
       kToGuest,
       A::kHalf8,
       kMedium,
       {0xad, 0x0f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
       own(&Unit::disc_structure)},
      {scsi_op::kReadCdMsf,
       kAny,
       12,
       kToGuest,
       A::kSpecial,
       kMedium,
       {0xb9, 0x1c, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 7},
       {},
       own(&Unit::read_cd)},
      {scsi_op::kSetCdSpeed, kAny, 12, kNone, A::kNone, 0, {0xbb, 3, 0xff, 0xff, 0xff, 0xff}, &Unit::do_nothing},
      {scsi_op::kMechanismStatus,
       kAny,
       12,
       kToGuest,
       A::kHalf8,
       0,
       {0xbd, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff},
       own(&Unit::mechanism_status)},
      {scsi_op::kReadCd,
       kAny,
       12,
       kToGuest,
       A::kSpecial,
       kMedium,
       {0xbe, 0x1c, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 7},
       {},
       own(&Unit::read_cd)},
  };
  return kRows;
}

std::span<const ScsiOperation> ScsiCd::operations() const { return Table::rows(); }

mmc::Drive ScsiCd::drive_state() const {
  const bool medium = medium_present();
  return {.medium = medium,
          .tray_open = state_.tray_open,
          .locked = state_.locked,
          .sectors = medium ? blocks() : 0,
          .interface = mmc::Drive::Interface::kScsi};
}

ScsiSense ScsiCd::not_ready() const {
  if (const ScsiSense why = mmc::not_ready(drive_state()); why != sense::kNone) return why;
  return state_.stopped ? sense::kNeedsStart : sense::kNone;
}

ScsiTransfer ScsiCd::special_transfer(const Cdb& cdb) const {
  uint64_t bytes = 0;
  if (cdb[0] == scsi_op::kGetPerformance) {
    constexpr uint64_t kHeader = 8, kDescriptor = 16;
    bytes = kHeader + kDescriptor * load_be16(&cdb[8]);
  } else {
    // What cannot be read moves nothing; the command itself will tell why.
    const mmc::Drive whole{.medium = true, .sectors = blocks()};
    if (const auto what = mmc::parse_read_cd(cdb, whole)) bytes = uint64_t{what->sectors} * what->sector_bytes();
  }
  return {.direction = bytes == 0 ? ScsiDirection::kNone : ScsiDirection::kToGuest, .bytes = bytes};
}

std::vector<uint8_t> ScsiCd::mode_pages(uint8_t page, uint8_t control) const {
  mmc::Answer pages = mmc::mode_pages(page, control, drive_state());
  return pages ? std::move(*pages) : std::vector<uint8_t>{};
}

// [MMC-3] 5.5.1: no block descriptors.
std::vector<uint8_t> ScsiCd::block_descriptor(bool) const { return {}; }

uint8_t ScsiCd::medium_type() const { return mmc::medium_type(drive_state()); }

void ScsiCd::take_mode_page(std::span<const uint8_t>, State&) const {}  // nothing in them can be changed

ScsiReply ScsiCd::tell(const ScsiJob& job, const mmc::Answer& bytes) const {
  return bytes ? answer(job, *bytes) : refuse(bytes.error());
}

ScsiReply ScsiCd::read_capacity(const ScsiJob& job) { return tell(job, mmc::read_capacity(drive_state())); }
ScsiReply ScsiCd::read_sub_channel(const ScsiJob& job) {
  return tell(job, mmc::read_sub_channel(job.command.cdb, drive_state()));
}
ScsiReply ScsiCd::read_toc(const ScsiJob& job) { return tell(job, mmc::read_toc(job.command.cdb, drive_state())); }
ScsiReply ScsiCd::get_configuration(const ScsiJob& job) {
  return tell(job, mmc::get_configuration(job.command.cdb, drive_state()));
}
ScsiReply ScsiCd::disc_information(const ScsiJob& job) {
  return tell(job, mmc::disc_information(job.command.cdb, drive_state()));
}
ScsiReply ScsiCd::track_information(const ScsiJob& job) {
  return tell(job, mmc::track_information(job.command.cdb, drive_state()));
}
ScsiReply ScsiCd::get_performance(const ScsiJob& job) {
  return tell(job, mmc::get_performance(job.command.cdb, drive_state()));
}
ScsiReply ScsiCd::disc_structure(const ScsiJob& job) {
  return tell(job, mmc::disc_structure(job.command.cdb, drive_state()));
}
ScsiReply ScsiCd::mechanism_status(const ScsiJob& job) { return tell(job, mmc::mechanism_status(drive_state())); }

ScsiReply ScsiCd::event_status(const ScsiJob& job) {
  const auto event = static_cast<mmc::MediaEvent>(state_.media_event);
  const ScsiReply reply = tell(job, mmc::event_status(job.command.cdb, drive_state(), event));
  if (mmc::tells_media_event(job.command.cdb) && reply.status == ScsiStatus::kGood) state_.media_event = 0;
  return reply;
}

Task<ScsiReply> ScsiCd::read_cd(const ScsiJob& job) {
  constexpr uint32_t kChunk = 64;  // sectors
  mmc::Drive state;
  {
    const std::lock_guard lock(mutex_);
    state = drive_state();
  }
  const auto what = mmc::parse_read_cd(job.command.cdb, state);
  if (!what) co_return refuse(what.error());
  const uint32_t framed = what->sector_bytes();
  const uint64_t bytes = uint64_t{framed} * what->sectors;
  if (bytes > job.command.data_in.bytes()) co_return refuse(sense::kTargetFailure);
  if (bytes == 0) co_return ScsiReply{};
  if (framed == mmc::kSectorBytes && what->data) {
    const auto done =
        co_await drive_read(job, uint64_t{what->first} * mmc::kSectorBytes, job.command.data_in.slice(0, bytes));
    if (!done) co_return failed(done.error(), false);
    co_return ScsiReply{.moved = bytes};
  }
  std::vector<uint8_t> plain(size_t{std::min(kChunk, what->sectors)} * mmc::kSectorBytes), out(framed);
  for (uint32_t done = 0; done < what->sectors;) {
    const uint32_t count = std::min(kChunk, what->sectors - done);
    const auto read = co_await drive_read(job, uint64_t{what->first + done} * mmc::kSectorBytes,
                                          {plain.data(), size_t{count} * mmc::kSectorBytes});
    if (!read) co_return failed(read.error(), false);
    if (job.aborted) co_return refuse(sense::kAborted);
    for (uint32_t i = 0; i < count; ++i) {
      const std::span<const uint8_t, mmc::kSectorBytes> data(&plain[size_t{i} * mmc::kSectorBytes], mmc::kSectorBytes);
      mmc::frame(*what, what->first + done + i, data, out);
      job.command.data_in.slice(uint64_t{done + i} * framed, framed).copy_from(out.data());
    }
    done += count;
  }
  co_return ScsiReply{.moved = bytes};
}

}  // namespace kite::devices

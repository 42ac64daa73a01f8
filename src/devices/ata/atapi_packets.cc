// The packet commands of a CD-ROM drive. [MMC-6] 6, [SPC-4] 6.
#include <algorithm>

#include "devices/ata/atapi_cdrom.h"
#include "support/bytes.h"

namespace kite::devices {

const AtapiCdrom::Packet AtapiCdrom::kPackets[] = {
    {scsi_op::kTestUnitReady, true, &AtapiCdrom::test_unit_ready},
    {scsi_op::kRequestSense, false, &AtapiCdrom::request_sense},
    {scsi_op::kInquiry, false, &AtapiCdrom::inquiry},
    {scsi_op::kStartStopUnit, false, &AtapiCdrom::start_stop},
    {scsi_op::kPreventAllow, false, &AtapiCdrom::prevent_allow},
    {scsi_op::kReadCapacity10, true, &AtapiCdrom::read_capacity},
    {scsi_op::kRead10, true, &AtapiCdrom::read_10},
    {scsi_op::kSeek10, true, &AtapiCdrom::seek},
    {scsi_op::kReadSubChannel, true, &AtapiCdrom::read_sub_channel},
    {scsi_op::kReadToc, true, &AtapiCdrom::read_toc},
    {scsi_op::kGetConfiguration, false, &AtapiCdrom::get_configuration},
    {scsi_op::kGetEventStatus, false, &AtapiCdrom::event_status},
    {scsi_op::kReadDiscInformation, true, &AtapiCdrom::disc_information},
    {scsi_op::kReadTrackInformation, true, &AtapiCdrom::track_information},
    {scsi_op::kModeSelect10, false, &AtapiCdrom::mode_select},
    {scsi_op::kModeSense10, false, &AtapiCdrom::mode_sense},
    {scsi_op::kRead12, true, &AtapiCdrom::read_12},
    {scsi_op::kGetPerformance, true, &AtapiCdrom::get_performance},
    {scsi_op::kReadDiscStructure, true, &AtapiCdrom::disc_structure},
    {scsi_op::kReadCdMsf, true, &AtapiCdrom::read_cd},
    {scsi_op::kSetCdSpeed, false, &AtapiCdrom::set_speed},
    {scsi_op::kMechanismStatus, false, &AtapiCdrom::mechanism_status},
    {scsi_op::kReadCd, true, &AtapiCdrom::read_cd},
};

namespace {
size_t length_at(std::span<const uint8_t> packet, size_t at) { return load_be16(&packet[at]); }
}  // namespace

void AtapiCdrom::run_packet() {
  const uint8_t opcode = cd_.packet[0];
  cd_.framed = false;
  if (opcode != scsi_op::kRequestSense) cd_.sense = {};
  const auto* const found = std::ranges::find(kPackets, opcode, &Packet::opcode);
  if (found == std::end(kPackets)) return check(sense::kInvalidOpcode);
  if (found->needs_medium) {
    if (const ScsiSense why = mmc::not_ready(disc()); why != sense::kNone) return check(why);
    if (cd_.changed == Changed::kTellAbsent) {
      cd_.changed = Changed::kTellAttention;
      return check(sense::kNoMedium);
    }
    if (cd_.changed == Changed::kTellAttention) {
      cd_.changed = Changed::kNo;
      return check(sense::kMediumChanged);
    }
  }
  (this->*found->handler)();
}

// Fixed format. [SPC-4] 4.5.3
void AtapiCdrom::request_sense() {
  std::array<uint8_t, 18> sense{};
  sense[0] = 0x70;
  sense[2] = static_cast<uint8_t>(cd_.sense.key);
  sense[7] = sense.size() - 8;
  sense[12] = cd_.sense.asc;
  sense[13] = cd_.sense.ascq;
  cd_.sense = {};
  reply(std::span<const uint8_t>(sense), cd_.packet[4]);
}

void AtapiCdrom::inquiry() {
  if ((cd_.packet[1] & 1) != 0) return check(sense::kInvalidField);  // no pages of vital product data
  std::array<uint8_t, 36> data{};
  data[0] = 0x05;  // a CD device
  data[1] = 0x80;  // removable
  data[3] = 0x21;  // [SFF-8020i] 10.8.1: version 2 of ATAPI
  data[4] = data.size() - 5;
  const auto text = [&data](size_t at, size_t length, std::string_view value) {
    for (size_t i = 0; i < length; ++i) data[at + i] = static_cast<uint8_t>(i < value.size() ? value[i] : ' ');
  };
  const size_t space = model_.find(' ');
  text(8, 8, space == std::string::npos ? "KITE" : std::string_view(model_).substr(0, space));
  text(16, 16, space == std::string::npos ? model_ : std::string_view(model_).substr(space + 1));
  text(32, 4, version_);
  reply(std::span<const uint8_t>(data), length_at(cd_.packet, 3));
}

// [MMC-6] 6.42: load and eject; spinning up and down has nothing to do.
void AtapiCdrom::start_stop() {
  const bool start = (cd_.packet[4] & 1) != 0, load_eject = (cd_.packet[4] & 2) != 0;
  if (load_eject && (cd_.packet[4] & 0xf0) == 0) {
    if (!start && cd_.locked && !cd_.tray_open) return check(sense::kRemovalPrevented);
    move_tray(!start);
  }
  done();
}

void AtapiCdrom::prevent_allow() {
  cd_.locked = (cd_.packet[4] & 1) != 0;
  done();
}

void AtapiCdrom::read_capacity() { reply(mmc::read_capacity(disc()), SIZE_MAX); }

void AtapiCdrom::read_10() { read_blocks(load_be32(&cd_.packet[2]), length_at(cd_.packet, 7)); }
void AtapiCdrom::read_12() { read_blocks(load_be32(&cd_.packet[2]), load_be32(&cd_.packet[6])); }

void AtapiCdrom::seek() {
  if (load_be32(&cd_.packet[2]) >= disc().sectors) return check(sense::kOutOfRange);
  done();
}

void AtapiCdrom::read_cd() {
  const auto what = mmc::parse_read_cd(cd_.packet, disc());
  if (!what) return check(what.error());
  if (what->sector_bytes() == 0) return done();
  cd_.parts = *what;
  cd_.framed = what->sync || what->header || what->ecc;
  read_blocks(what->first, what->sectors);
}

void AtapiCdrom::read_sub_channel() { reply(mmc::read_sub_channel(cd_.packet, disc()), length_at(cd_.packet, 7)); }
void AtapiCdrom::read_toc() { reply(mmc::read_toc(cd_.packet, disc()), length_at(cd_.packet, 7)); }
void AtapiCdrom::get_configuration() { reply(mmc::get_configuration(cd_.packet, disc()), length_at(cd_.packet, 7)); }
void AtapiCdrom::disc_information() { reply(mmc::disc_information(cd_.packet, disc()), length_at(cd_.packet, 7)); }
void AtapiCdrom::track_information() { reply(mmc::track_information(cd_.packet, disc()), length_at(cd_.packet, 7)); }
void AtapiCdrom::disc_structure() { reply(mmc::disc_structure(cd_.packet, disc()), length_at(cd_.packet, 8)); }
void AtapiCdrom::mechanism_status() { reply(mmc::mechanism_status(disc()), length_at(cd_.packet, 8)); }
void AtapiCdrom::get_performance() {
  reply(mmc::get_performance(cd_.packet, disc()), 8 + 16 * length_at(cd_.packet, 8));
}

void AtapiCdrom::event_status() {
  const auto answer = mmc::event_status(cd_.packet, disc(), cd_.event);
  if (answer && mmc::tells_media_event(cd_.packet)) cd_.event = mmc::MediaEvent::kNone;
  reply(answer, length_at(cd_.packet, 7));
}

// The header is that of MODE SENSE(10) without block descriptors. [SPC-4] 7.5.5
void AtapiCdrom::mode_sense() {
  const auto pages = mmc::mode_pages(cd_.packet[2] & 0x3f, cd_.packet[2] >> 6, disc());
  if (!pages) return check(pages.error());
  std::vector<uint8_t> answer(8);
  answer.insert(answer.end(), pages->begin(), pages->end());
  store_be16(answer.data(), static_cast<uint16_t>(answer.size() - 2));
  answer[2] = mmc::medium_type(disc());
  reply(std::span<const uint8_t>(answer), length_at(cd_.packet, 7));
}

void AtapiCdrom::mode_select() {
  const size_t length = length_at(cd_.packet, 7);
  if ((cd_.packet[1] & 0x01) != 0) return check(sense::kInvalidField);  // pages cannot be saved
  if (length == 0) return done();
  if (cd_.use_dma) return begin_buffer_dma(std::min<size_t>(length, kBufferBytes), false);
  if (drq_bytes() == 0) return abort();
  state_.regs.count.value = 0;
  begin_pio_out(std::min<size_t>(length, kBufferBytes), drq_bytes(), true);
}

// Nothing can be changed: pages that say what is so already are taken.
void AtapiCdrom::mode_select_data() {
  std::span<const uint8_t> list = std::span(buffer()).first(state_.end);
  if (list.size() < 8) return check(sense::kParameterListLength);
  const size_t descriptors = load_be16(&list[6]);
  if (list.size() - 8 < descriptors) return check(sense::kParameterListLength);
  list = list.subspan(8 + descriptors);
  while (!list.empty()) {
    if (list.size() < 2 || list.size() - 2 < list[1]) return check(sense::kParameterListLength);
    const auto page = mmc::mode_pages(list[0] & 0x3f, 0, disc());
    const auto given = list.first(size_t{2} + list[1]);
    if ((list[0] & 0x3f) == 0x3f || !page || !std::ranges::equal(given.subspan(1), std::span(*page).subspan(1)))
      return check(sense::kInvalidParameter);
    list = list.subspan(given.size());
  }
  done();
}

}  // namespace kite::devices

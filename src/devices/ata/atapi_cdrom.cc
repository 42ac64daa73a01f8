#include "devices/ata/atapi_cdrom.h"

#include <algorithm>
#include <cerrno>

#include "devices/ata/ata_pages.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace ata;

AtapiCdrom::AtapiCdrom(std::string path, DiskConfig config, AtaWiring wiring)
    : AtaDevice(std::move(path), std::move(config), wiring),
      serial_(config_.serial.empty() ? fmt::format("KT{:05}", wiring.unit + 1) : config_.serial),
      model_(config_.model.empty() ? "KITE DVD-ROM" : config_.model),
      version_(config_.version.empty() ? "1.0" : config_.version) {
  state_.error = kDiagnosticPassed;
  set_signature();
}

void AtapiCdrom::reset_device(bool power_on) {
  cd_.left = 0;
  cd_.sense = {};
  cd_.standby = false;
  cd_.locked = false;
  if (!power_on) return;
  const bool tray_open = cd_.tray_open;
  cd_ = CdState{};
  cd_.tray_open = tray_open;
}

mmc::Drive AtapiCdrom::disc() const {
  const bool in = medium() && !cd_.tray_open;
  return {.medium = in,
          .tray_open = cd_.tray_open,
          .locked = cd_.locked,
          .sectors = in ? blocks() : 0,
          .interface = mmc::Drive::Interface::kAtapi};
}

// --- ATA commands. [ATA8-ACS] 4.3: what a packet device takes

void AtapiCdrom::execute(uint8_t opcode) {
  cd_.left = 0;
  switch (opcode) {
    case op::kPacket: return begin_packet();
    case op::kIdentifyPacket: return identify();
    case op::kSetFeatures: return set_features();
    case op::kIdentify:
    case op::kReadSectors: return refuse_disk_command();
    case op::kOldStandbyImmediate:
    case op::kStandbyImmediate:
    case op::kOldSleep:
    case op::kSleep: cd_.standby = true; return finish();
    case op::kOldIdleImmediate:
    case op::kIdleImmediate: cd_.standby = false; return finish();
    case op::kOldCheckPower:
    case op::kCheckPower: state_.regs.count.value = cd_.standby ? 0x00 : 0xff; return finish();
    default: abort();
  }
}

// [ATA8-ACS] 7.16.4, 7.34.4: whoever takes it for a disk finds the signature.
void AtapiCdrom::refuse_disk_command() {
  set_signature();
  abort();
}

void AtapiCdrom::set_features() {
  const uint8_t mode = state_.regs.count.value;
  if (state_.regs.features.value == feature::kDisableRevert || state_.regs.features.value == feature::kEnableRevert)
    return finish();
  if (state_.regs.features.value != feature::kTransferMode) return abort();
  const unsigned number = mode & 7, kind = mode >> 3;
  const bool pio = (kind == 0 && number <= 1) || (kind == 1 && number <= 4);
  const bool dma = (kind == 4 && number <= 2) || (kind == 8 && number <= (wiring_.serial ? 6u : 5u));
  if (!pio && !dma) return abort();
  if (dma) cd_.transfer_mode = mode;
  finish();
}

// [ATA8-ACS] 7.17
void AtapiCdrom::identify() {
  PageBytes page{};
  const auto word = [&page](unsigned index, uint64_t value) { put_word(page, index, value); };
  const unsigned mode = cd_.transfer_mode, selected = 0x0100u << (mode & 7);
  word(0, 0x85c0);  // a CD device, removable medium, DRQ at once, packets of 12 bytes
  put_text(page, 10, 20, serial_);
  put_text(page, 23, 8, version_);
  put_text(page, 27, 40, model_);
  word(48, 1);
  word(49, 0x0f00);
  word(53, 0x0006);
  word(63, 0x07 | (mode >> 3 == 4 ? selected : 0));
  word(64, 0x0003);
  for (unsigned i = 65; i <= 68; ++i) word(i, 120);
  if (wiring_.serial) {
    word(76, 0x000e);
    word(77, 0x0006);
  }
  word(80, 0x01f0);
  word(82, 0x4218);  // NOP, DEVICE RESET, PACKET, power management
  word(83, 0x4000);
  word(84, 0x4000);
  word(85, 0x4218);
  word(87, 0x4000);
  word(88, (wiring_.serial ? 0x7fu : 0x3fu) | (mode >> 3 == 8 ? selected : 0));
  if (!wiring_.serial) word(93, (wiring_.unit & 1) == 0 ? 0x600b : 0x6b00);
  word(222, wiring_.serial ? 0x103f : 0);
  page[510] = 0xa5;
  set_checksum(page);
  std::ranges::copy(page, buffer().begin());
  begin_pio_in(kSectorBytes, kSectorBytes);
}

// --- the carrying of packets. [ATA8-ACS] 7.23, 11.9

void AtapiCdrom::begin_packet() {
  constexpr uint8_t kDma = 1, kOverlap = 2;
  Taskfile& regs = state_.regs;
  if ((regs.features.value & kOverlap) != 0) return abort();
  cd_.standby = false;
  cd_.use_dma = (regs.features.value & kDma) != 0;
  cd_.byte_limit = static_cast<uint16_t>(regs.lba[1].value | unsigned{regs.lba[2].value} << 8);
  regs.count.value = kCommandOrData;
  state_.packet_phase = true;
  begin_pio_out(kPacketBytes, kPacketBytes, false);
}

// Tells the host how much it may move now.
void AtapiCdrom::block_begins(size_t bytes) {
  if (state_.packet_phase || state_.opcode != op::kPacket) return;
  state_.regs.lba[1].value = static_cast<uint8_t>(bytes);
  state_.regs.lba[2].value = static_cast<uint8_t>(bytes >> 8);
}

// An odd limit stands for the even one below, but for the last piece. [ATA8-ACS] 7.23.5
size_t AtapiCdrom::drq_bytes() const {
  return cd_.byte_limit == 1 ? 1 : std::min<size_t>(cd_.byte_limit, 0xfffe) & ~size_t{1};
}

void AtapiCdrom::done() {
  state_.regs.count.value = kCommandOrData | kToHost;
  finish();
}

void AtapiCdrom::check(ScsiSense sense) {
  cd_.sense = sense;
  cd_.left = 0;
  state_.regs.count.value = kCommandOrData | kToHost;
  abort(static_cast<uint8_t>(static_cast<unsigned>(sense.key) << 4));
}

void AtapiCdrom::send_buffer(size_t bytes) {
  if (cd_.use_dma) return begin_buffer_dma(bytes, true);
  if (drq_bytes() == 0) return abort();  // [ATA8-ACS] 7.23.5: no room for data was offered
  state_.regs.count.value = kToHost;
  begin_pio_in(bytes, drq_bytes());
}

void AtapiCdrom::reply(std::span<const uint8_t> bytes, size_t allocated) {
  const size_t length = std::min({bytes.size(), allocated, buffer().size()});
  if (length == 0) return done();
  std::ranges::copy(bytes.first(length), buffer().begin());
  send_buffer(length);
}

void AtapiCdrom::reply(const mmc::Answer& answer, size_t allocated) {
  if (!answer) return check(answer.error());
  reply(std::span<const uint8_t>(*answer), allocated);
}

void AtapiCdrom::buffer_filled() {
  if (!state_.packet_phase) return mode_select_data();
  state_.packet_phase = false;
  std::copy_n(buffer().begin(), kPacketBytes, cd_.packet.begin());
  run_packet();
}

void AtapiCdrom::buffer_drained() {
  if (state_.opcode != op::kPacket) return finish_silently();
  cd_.left != 0 ? read_chunk() : done();
}

// --- data from the disc

void AtapiCdrom::read_blocks(uint64_t first, uint64_t count) {
  const uint64_t sectors = disc().sectors;
  if (first > sectors || count > sectors - first) return check(sense::kOutOfRange);
  if (count == 0) return done();
  if (cd_.use_dma && !cd_.framed) return begin_direct_dma(first, static_cast<uint32_t>(count), true, false);
  if (!cd_.use_dma && drq_bytes() == 0) return abort();
  cd_.next = first;
  cd_.left = static_cast<uint32_t>(count);
  read_chunk();
}

void AtapiCdrom::read_chunk() {
  const uint32_t most = cd_.framed ? kBufferRawSectors : kBufferSectors;
  start_io({.kind = IoKind::kRead, .block = cd_.next, .blocks = std::min(cd_.left, most)});
}

void AtapiCdrom::io_done(const Io& io, int error) {
  if (error != 0) return check(error == ENOMEDIUM ? mmc::not_ready(disc()) : sense::kReadError);
  cd_.next += io.blocks;
  cd_.left -= io.blocks;
  if (!cd_.framed) return send_buffer(size_t{io.blocks} * mmc::kSectorBytes);
  const size_t bytes = cd_.parts.sector_bytes();
  std::vector<uint8_t> framed(bytes * io.blocks);
  for (uint32_t i = 0; i < io.blocks; ++i) {
    const std::span<const uint8_t, mmc::kSectorBytes> data(&buffer()[size_t{i} * mmc::kSectorBytes], mmc::kSectorBytes);
    mmc::frame(cd_.parts, static_cast<uint32_t>(io.block) + i, data, std::span(framed).subspan(i * bytes, bytes));
  }
  std::ranges::copy(framed, buffer().begin());
  send_buffer(framed.size());
}

void AtapiCdrom::direct_done(const Io&, int error) {
  if (error != 0) return check(error == ENOMEDIUM ? mmc::not_ready(disc()) : sense::kReadError);
  done();
}

// --- the tray

bool AtapiCdrom::tray_open() {
  const std::lock_guard lock(wiring_.lock);
  return cd_.tray_open;
}

bool AtapiCdrom::locked() {
  const std::lock_guard lock(wiring_.lock);
  return cd_.locked;
}

void AtapiCdrom::request_eject() {
  const std::lock_guard lock(wiring_.lock);
  cd_.event = mmc::MediaEvent::kEjectRequest;
}

void AtapiCdrom::set_tray(bool open) {
  const std::lock_guard lock(wiring_.lock);
  move_tray(open);
}

void AtapiCdrom::move_tray(bool open) {
  if (cd_.tray_open == open) return;
  cd_.tray_open = open;
  if (open) cd_.locked = false;
  if (open || medium()) cd_.event = open ? mmc::MediaEvent::kMediaRemoval : mmc::MediaEvent::kNewMedia;
  cd_.changed = !open && medium() ? Changed::kTellAbsent : Changed::kNo;
  tray_moved(open);
}

void AtapiCdrom::medium_changed() {
  const std::lock_guard lock(wiring_.lock);
  if (cd_.tray_open) return;  // noticed when it closes
  cd_.event = medium() ? mmc::MediaEvent::kNewMedia : mmc::MediaEvent::kMediaRemoval;
  cd_.changed = medium() ? Changed::kTellAbsent : Changed::kNo;
}

}  // namespace kite::devices

// Saved state of ATA devices. A request that was under way is described by the phase, and is made again by start().
#include <algorithm>
#include <bit>

#include "devices/ata/ata_disk.h"
#include "devices/ata/atapi_cdrom.h"
#include "devices/section.h"

namespace kite::devices {

using namespace ata;

namespace {

struct AtaDeviceV1 {
  static constexpr uint32_t kVersion = 1;
  std::array<uint8_t, 11> regs;  // value and hob of features, count, LBA low, mid, high; device
  std::array<uint8_t, 4> codes;  // status, error, opcode, phase
  std::array<bool, 7> flags;     // interrupt, packet, reset held, pending, DMA direct, to host, FUA
  std::array<uint32_t, 4> places;
  uint8_t io_kind;
  uint64_t io_block;
  uint32_t io_blocks;
  std::vector<uint8_t> buffer;
};
template <class Codec>
void visit(Codec& codec, AtaDeviceV1& wire) {
  codec.field(1, wire.regs);
  codec.field(2, wire.codes);
  codec.field(3, wire.flags);
  codec.field(4, wire.places);
  codec.field(5, wire.io_kind);
  codec.field(6, wire.io_block);
  codec.field(7, wire.io_blocks);
  codec.field(8, wire.buffer);
}

struct DiskV1 {
  uint32_t heads, sectors;
  std::array<uint8_t, 2> modes;  // multiple, transfer
  std::array<bool, 7> flags;     // write cache, look-ahead, revert, standby, SMART, autosave, automatic collection
  std::array<uint8_t, 8> tests;
  uint64_t next;
  uint32_t left;
  bool queue_error;
  std::array<uint8_t, 4> error_codes;  // tag, status, error, device
  uint64_t error_block;
  uint16_t error_count;
};
template <class Codec>
void visit(Codec& codec, DiskV1& wire) {
  codec.field(100, wire.heads);
  codec.field(101, wire.sectors);
  codec.field(102, wire.modes);
  codec.field(103, wire.flags);
  codec.field(104, wire.tests);
  codec.field(105, wire.next);
  codec.field(106, wire.left);
  codec.field(107, wire.queue_error);
  codec.field(108, wire.error_codes);
  codec.field(109, wire.error_block);
  codec.field(110, wire.error_count);
}

struct CdV1 {
  uint8_t transfer_mode;
  std::array<bool, 5> flags;     // standby, tray open, locked, DMA, framed
  std::array<uint8_t, 5> codes;  // changed, event, sense key, ASC, ASCQ
  std::array<uint8_t, 12> packet;
  uint16_t byte_limit;
  std::array<bool, 4> parts;  // sync, header, data, ECC
  uint64_t next;
  uint32_t left;
};
template <class Codec>
void visit(Codec& codec, CdV1& wire) {
  codec.field(100, wire.transfer_mode);
  codec.field(101, wire.flags);
  codec.field(102, wire.codes);
  codec.field(103, wire.packet);
  codec.field(104, wire.byte_limit);
  codec.field(105, wire.parts);
  codec.field(106, wire.next);
  codec.field(107, wire.left);
}

}  // namespace

void AtaDevice::save(StateWriter& writer) {
  const std::lock_guard lock(wiring_.lock);
  const auto& [regs, status, error, interrupt, opcode, phase, packet_phase, reset_held, reset_pending, buffer, at,
               block_end, end, drq_block, io, dma_direct, dma_to_host, fua] = state_;
  AtaDeviceV1 wire{};
  wire.regs = {regs.features.value, regs.features.hob, regs.count.value,  regs.count.hob,
               regs.lba[0].value,   regs.lba[0].hob,   regs.lba[1].value, regs.lba[1].hob,
               regs.lba[2].value,   regs.lba[2].hob,   regs.device};
  wire.codes = {status, error, opcode, static_cast<uint8_t>(phase)};
  wire.flags = {interrupt, packet_phase, reset_held, reset_pending, dma_direct, dma_to_host, fua};
  wire.places = {at, block_end, end, drq_block};
  wire.io_kind = static_cast<uint8_t>(io.kind);
  wire.io_block = io.block;
  wire.io_blocks = io.blocks;
  // The first sector outlives commands: READ BUFFER shows it.
  wire.buffer.assign(buffer.begin(), buffer.begin() + std::max(end, kSectorBytes));
  save_section(writer, path(), std::move(wire), [&] { save_device(writer); });
}

void AtaDevice::restore(StateReader& reader) {
  AtaDeviceV1 wire{};
  State next;
  if (!restore_section(reader, path(), wire, [&] {
        restore_device(reader);
        const auto& [status, error, opcode, phase] = wire.codes;
        if (!require(reader, phase <= static_cast<uint8_t>(Phase::kDma), "there is no such phase of a command") ||
            !require(reader, wire.io_kind <= static_cast<uint8_t>(IoKind::kTrim), "there is no such request") ||
            !require(reader, wire.buffer.size() <= kBufferBytes, "the buffer is longer than it can be"))
          return;
        next.status = status;
        next.error = error;
        next.opcode = opcode;
        next.phase = static_cast<Phase>(phase);
        for (unsigned i = 0; i < 3; ++i) next.regs.lba[i] = {wire.regs[4 + 2 * i], wire.regs[5 + 2 * i]};
        next.regs.features = {wire.regs[0], wire.regs[1]};
        next.regs.count = {wire.regs[2], wire.regs[3]};
        next.regs.device = wire.regs[10];
        const auto& [interrupt, packet, held, pending, direct, to_host, fua] = wire.flags;
        next.interrupt = interrupt;
        next.packet_phase = packet;
        next.reset_held = held;
        next.reset_pending = pending;
        next.dma_direct = direct;
        next.dma_to_host = to_host;
        next.fua = fua;
        const auto& [at, block_end, end, drq_block] = wire.places;
        next.at = at;
        next.block_end = block_end;
        next.end = end;
        next.drq_block = drq_block;
        next.io = {static_cast<IoKind>(wire.io_kind), wire.io_block, wire.io_blocks};
        std::ranges::copy(wire.buffer, next.buffer.begin());
        const bool pio = next.phase == Phase::kPioIn || next.phase == Phase::kPioOut;
        const bool packet_only_out = !packet || (is_packet_device() && next.phase == Phase::kPioOut && end == 12);
        require(reader, at <= block_end && block_end <= end && end <= wire.buffer.size() && end <= kBufferBytes,
                "the buffer is used beyond its end") &&
            require(reader, !pio || (at < block_end && drq_block != 0), "a transfer has nothing to transfer") &&
            require(reader, packet_only_out && (status & (kBsy | kDrq)) == 0 && (!held || pending),
                    "the registers contradict the phase") &&
            require(reader, next.io.block < uint64_t{1} << 48 && possible(next),
                    "the command under way cannot be one of this device");
      }))
    return;
  const std::lock_guard lock(wiring_.lock);
  forget_requests();
  // Requests of an earlier life that still wait point into the buffer: it stays where it is.
  std::ranges::copy(next.buffer, state_.buffer.begin());
  next.buffer = std::move(state_.buffer);
  state_ = std::move(next);
  accept_device();
}

// --- disk

void AtaDisk::save_device(StateWriter& writer) {
  const auto& [heads, sectors, multiple, transfer_mode, write_cache, look_ahead, revert, standby, smart, autosave,
               offline, tests, next, left, queue_error] = disk_;
  DiskV1 wire{};
  wire.heads = heads;
  wire.sectors = sectors;
  wire.modes = {multiple, transfer_mode};
  wire.flags = {write_cache, look_ahead, revert, standby, smart, autosave, offline};
  for (size_t i = 0; i < tests.size(); ++i) {
    wire.tests[2 * i] = tests[i].number;
    wire.tests[2 * i + 1] = tests[i].status;
  }
  wire.next = next;
  wire.left = left;
  const auto& [valid, tag, status, error, device, block, count] = queue_error;
  wire.queue_error = valid;
  wire.error_codes = {tag, status, error, device};
  wire.error_block = block;
  wire.error_count = count;
  visit(writer, wire);
}

void AtaDisk::restore_device(StateReader& reader) {
  DiskV1 wire{};
  visit(reader, wire);
  if (!reader.ok()) return;
  const auto& [multiple, transfer_mode] = wire.modes;
  if (!require(reader, wire.heads >= 1 && wire.heads <= 255 && wire.sectors >= 1 && wire.sectors <= 255,
               "there is no such geometry") ||
      !require(reader, multiple <= kMostMultiple && (multiple == 0 || std::has_single_bit(multiple)),
               "multiple mode is of no power of two"))
    return;
  const auto& [write_cache, look_ahead, revert, standby, smart, autosave, offline] = wire.flags;
  restored_ = {.heads = wire.heads,
               .sectors = wire.sectors,
               .multiple = multiple,
               .transfer_mode = transfer_mode,
               .write_cache = write_cache,
               .look_ahead = look_ahead,
               .revert = revert,
               .standby = standby,
               .smart = smart,
               .smart_autosave = autosave,
               .auto_offline = offline,
               .next = wire.next,
               .left = wire.left,
               .queue_error = {.valid = wire.queue_error,
                               .tag = wire.error_codes[0],
                               .status = wire.error_codes[1],
                               .error = wire.error_codes[2],
                               .device = wire.error_codes[3],
                               .block = wire.error_block,
                               .count = wire.error_count}};
  for (size_t i = 0; i < restored_.self_tests.size(); ++i)
    restored_.self_tests[i] = {wire.tests[2 * i], wire.tests[2 * i + 1]};
}

void AtaDisk::accept_device() {
  disk_ = restored_;
  drive()->set_write_cache(disk_.write_cache);
}

bool AtaDisk::possible(const State& state) const {
  constexpr uint32_t kMostBlocks = 0x10000;
  const Io& io = state.io;
  const uint64_t next = restored_.next, left = restored_.left;
  const bool whole_sectors = state.drq_block != 0 && state.drq_block % kSectorBytes == 0;
  if (left > kMostBlocks || next >= uint64_t{1} << 48 || (left != 0 && !whole_sectors)) return false;
  const bool own_data = state.opcode == op::kWriteBuffer || state.opcode == op::kDataSetManagement;
  const bool filling =
      state.phase == Phase::kPioOut || (state.phase == Phase::kDma && !state.dma_direct && !state.dma_to_host);
  if (filling && !own_data && (state.end == 0 || state.end % kSectorBytes != 0 || state.end / kSectorBytes > left))
    return false;
  if (state.phase == Phase::kDma && state.dma_direct) return io.blocks >= 1 && io.blocks <= kMostBlocks;
  if (state.phase != Phase::kIo) return true;
  switch (io.kind) {
    case IoKind::kNone: return false;
    case IoKind::kFlush: return true;
    case IoKind::kVerify: return io.blocks <= kMostBlocks;
    case IoKind::kTrim: return io.blocks <= state.end / kSectorBytes;
    case IoKind::kRead:
    case IoKind::kWrite: break;
  }
  return io.blocks >= 1 && io.blocks <= kBufferSectors && io.blocks <= left && io.block == next;
}

// --- CD-ROM

void AtapiCdrom::save_device(StateWriter& writer) {
  const auto& [transfer_mode, standby, tray_open, locked, changed, event, sense, packet, use_dma, byte_limit, parts,
               framed, next, left] = cd_;
  CdV1 wire{};
  wire.transfer_mode = transfer_mode;
  wire.flags = {standby, tray_open, locked, use_dma, framed};
  wire.codes = {static_cast<uint8_t>(changed), static_cast<uint8_t>(event), static_cast<uint8_t>(sense.key), sense.asc,
                sense.ascq};
  wire.packet = packet;
  wire.byte_limit = byte_limit;
  wire.parts = {parts.sync, parts.header, parts.data, parts.ecc};
  wire.next = next;
  wire.left = left;
  visit(writer, wire);
}

void AtapiCdrom::restore_device(StateReader& reader) {
  CdV1 wire{};
  visit(reader, wire);
  if (!reader.ok()) return;
  const auto& [changed, event, key, asc, ascq] = wire.codes;
  if (!require(reader, changed <= static_cast<uint8_t>(Changed::kTellAttention), "there is no such change of medium") ||
      !require(reader, event <= static_cast<uint8_t>(mmc::MediaEvent::kMediaRemoval), "there is no such media event") ||
      !require(reader, key <= static_cast<uint8_t>(SenseKey::kMiscompare), "there is no such sense key"))
    return;
  const auto& [standby, tray_open, locked, use_dma, framed] = wire.flags;
  restored_ = {.transfer_mode = wire.transfer_mode,
               .standby = standby,
               .tray_open = tray_open,
               .locked = locked,
               .changed = static_cast<Changed>(changed),
               .event = static_cast<mmc::MediaEvent>(event),
               .sense = {static_cast<SenseKey>(key), asc, ascq},
               .packet = wire.packet,
               .use_dma = use_dma,
               .byte_limit = wire.byte_limit,
               .parts = {.first = 0,
                         .sectors = 0,
                         .sync = wire.parts[0],
                         .header = wire.parts[1],
                         .data = wire.parts[2],
                         .ecc = wire.parts[3]},
               .framed = framed,
               .next = wire.next,
               .left = wire.left};
}

void AtapiCdrom::accept_device() { cd_ = restored_; }

bool AtapiCdrom::possible(const State& state) const {
  const Io& io = state.io;
  const uint32_t most = restored_.framed ? kBufferRawSectors : kBufferSectors;
  if (restored_.next >= uint64_t{1} << 48 || (restored_.framed && restored_.parts.sector_bytes() == 0)) return false;
  if (state.phase == Phase::kDma && state.dma_direct) return drive() != nullptr && state.dma_to_host && io.blocks >= 1;
  if (drive() == nullptr && restored_.left != 0) return false;
  if (state.phase != Phase::kIo) return true;
  return drive() != nullptr && io.kind == IoKind::kRead && io.blocks >= 1 && io.blocks <= most &&
         io.blocks <= restored_.left && io.block == restored_.next;
}

}  // namespace kite::devices

#include "devices/ata/ata_disk.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "support/bytes.h"

namespace kite::devices {

using namespace ata;

struct AtaDisk::Command {
  uint8_t first, last;
  Handler handler;
};

// What is not here is aborted. [ATA8-ACS] 6.3.2
const AtaDisk::Command AtaDisk::kCommands[] = {
    {op::kNop, op::kNop, &AtaDisk::nop},
    {op::kDataSetManagement, op::kDataSetManagement, &AtaDisk::data_set_management},
    {op::kRecalibrate, op::kRecalibrate + 15, &AtaDisk::recalibrate},
    {op::kReadSectors, op::kReadSectorsNoRetry, &AtaDisk::read_sectors},
    {op::kReadSectorsExt, op::kReadSectorsExt, &AtaDisk::read_sectors},
    {op::kReadDmaExt, op::kReadDmaExt, &AtaDisk::read_dma},
    {op::kReadNativeMaxExt, op::kReadNativeMaxExt, &AtaDisk::read_native_max},
    {op::kReadMultipleExt, op::kReadMultipleExt, &AtaDisk::read_multiple},
    {op::kReadLogExt, op::kReadLogExt, &AtaDisk::read_log},
    {op::kWriteSectors, op::kWriteSectorsNoRetry, &AtaDisk::write_sectors},
    {op::kWriteSectorsExt, op::kWriteSectorsExt, &AtaDisk::write_sectors},
    {op::kWriteDmaExt, op::kWriteDmaExt, &AtaDisk::write_dma},
    {op::kWriteMultipleExt, op::kWriteMultipleExt, &AtaDisk::write_multiple},
    {op::kWriteVerify, op::kWriteVerify, &AtaDisk::write_sectors},
    {op::kWriteDmaFuaExt, op::kWriteDmaFuaExt, &AtaDisk::write_dma},
    {op::kVerify, op::kVerifyExt, &AtaDisk::verify},
    {op::kReadLogDmaExt, op::kReadLogDmaExt, &AtaDisk::read_log},
    {op::kSeek, op::kSeek + 15, &AtaDisk::seek},
    {op::kInitializeParameters, op::kInitializeParameters, &AtaDisk::initialize_parameters},
    {op::kOldStandbyImmediate, op::kOldStandbyImmediate, &AtaDisk::standby},
    {op::kOldIdleImmediate, op::kOldIdleImmediate, &AtaDisk::idle},
    {op::kOldStandby, op::kOldStandby, &AtaDisk::standby},
    {op::kOldIdle, op::kOldIdle, &AtaDisk::idle},
    {op::kOldCheckPower, op::kOldCheckPower, &AtaDisk::check_power},
    {op::kOldSleep, op::kOldSleep, &AtaDisk::standby},
    {op::kSmart, op::kSmart, &AtaDisk::smart_command},
    {op::kReadMultiple, op::kReadMultiple, &AtaDisk::read_multiple},
    {op::kWriteMultiple, op::kWriteMultiple, &AtaDisk::write_multiple},
    {op::kSetMultiple, op::kSetMultiple, &AtaDisk::set_multiple},
    {op::kReadDma, op::kReadDmaNoRetry, &AtaDisk::read_dma},
    {op::kWriteDma, op::kWriteDmaNoRetry, &AtaDisk::write_dma},
    {op::kWriteMultipleFuaExt, op::kWriteMultipleFuaExt, &AtaDisk::write_multiple},
    {op::kStandbyImmediate, op::kStandbyImmediate, &AtaDisk::standby},
    {op::kIdleImmediate, op::kIdleImmediate, &AtaDisk::idle},
    {op::kStandby, op::kStandby, &AtaDisk::standby},
    {op::kIdle, op::kIdle, &AtaDisk::idle},
    {op::kReadBuffer, op::kReadBuffer, &AtaDisk::read_buffer},
    {op::kCheckPower, op::kCheckPower, &AtaDisk::check_power},
    {op::kSleep, op::kSleep, &AtaDisk::standby},
    {op::kFlushCache, op::kFlushCache, &AtaDisk::flush},
    {op::kWriteBuffer, op::kWriteBuffer, &AtaDisk::write_buffer},
    {op::kFlushCacheExt, op::kFlushCacheExt, &AtaDisk::flush},
    {op::kIdentify, op::kIdentify, &AtaDisk::identify},
    {op::kSetFeatures, op::kSetFeatures, &AtaDisk::set_features},
    {op::kReadNativeMax, op::kReadNativeMax, &AtaDisk::read_native_max},
};

namespace {

constexpr uint64_t kMost28 = 0x0fff'ffff;
constexpr uint8_t kUdma5 = 0x45;

bool has_48_bits(uint8_t opcode) {
  constexpr uint8_t kExtended[] = {
      op::kDataSetManagement, op::kReadSectorsExt,   op::kReadDmaExt,          op::kReadNativeMaxExt,
      op::kReadMultipleExt,   op::kReadLogExt,       op::kWriteSectorsExt,     op::kWriteDmaExt,
      op::kWriteMultipleExt,  op::kWriteDmaFuaExt,   op::kVerifyExt,           op::kReadLogDmaExt,
      op::kReadFpdmaQueued,   op::kWriteFpdmaQueued, op::kWriteMultipleFuaExt, op::kFlushCacheExt,
  };
  return std::ranges::find(kExtended, opcode) != std::end(kExtended);
}

uint64_t address_48(const Taskfile& regs) {
  uint64_t block = 0;
  for (unsigned i = 3; i-- > 0;) block = block << 8 | regs.lba[i].hob;
  for (unsigned i = 3; i-- > 0;) block = block << 8 | regs.lba[i].value;
  return block;
}

}  // namespace

AtaDisk::AtaDisk(std::string path, Config config, AtaWiring wiring, std::span<const uint8_t> first_sector)
    : AtaDevice(std::move(path), std::move(config.disk), wiring),
      rotation_rate_(config.rotation_rate),
      write_cache_at_start_(config_.drive->write_cache()),
      serial_(config_.serial.empty() ? fmt::format("KT{:05}", wiring.unit + 1) : config_.serial),
      model_(config_.model.empty() ? "KITE HARDDISK" : config_.model),
      version_(config_.version.empty() ? "1.0" : config_.version),
      geometry_(config_.geometry) {
  if (geometry_.cylinders == 0 || geometry_.heads == 0 || geometry_.sectors == 0) {
    const auto translation = geometry_.translation;
    geometry_ = guess_geometry(drive()->length(), first_sector);
    if (translation != DiskGeometry::Translation::kAuto) geometry_.translation = translation;
  }
  reset_device(true);
  state_.status = kDrdy | kDsc;
  state_.error = kDiagnosticPassed;
  set_signature();
}

// [ATA8-ACS] 7.48.10: a software reset reverts settings unless the host forbade it.
void AtaDisk::reset_device(bool power_on) {
  disk_.left = 0;
  disk_.queue_error = {};
  disk_.standby = false;
  if (!power_on && !disk_.revert) return;
  const bool smart = power_on || disk_.smart;
  const auto tests = disk_.self_tests;
  const bool cache = power_on ? write_cache_at_start_ : disk_.write_cache;
  disk_ = DiskState{};
  disk_.heads = geometry_.heads;
  disk_.sectors = geometry_.sectors;
  disk_.transfer_mode = kUdma5;
  disk_.smart = smart;
  disk_.self_tests = tests;
  disk_.write_cache = cache;
  drive()->set_write_cache(cache);
}

void AtaDisk::execute(uint8_t opcode) {
  state_.fua = false;
  disk_.left = 0;
  for (const Command& command : kCommands)
    if (opcode >= command.first && opcode <= command.last) return (this->*command.handler)();
  abort();
}

// --- parameters

bool AtaDisk::extended() const { return has_48_bits(state_.opcode); }

uint32_t AtaDisk::count() const {
  const Register& count = state_.regs.count;
  if (extended()) {
    const uint32_t value = count.value | unsigned{count.hob} << 8;
    return value == 0 ? 0x10000 : value;
  }
  // A FIS has room for 16 bits with every command. Reserved ones are 0, but where software takes them at their word.
  const uint32_t value = count.value | (wiring_.serial ? unsigned{count.hob} << 8 : 0);
  return value == 0 ? 256 : value;
}

// Nothing for a place that the present translation does not have.
std::optional<uint64_t> AtaDisk::address() const {
  const Taskfile& regs = state_.regs;
  if (extended()) return address_48(regs);
  const uint64_t low = regs.lba[0].value, mid = regs.lba[1].value, high = regs.lba[2].value;
  const uint64_t head = regs.device & kHeadMask;
  if ((regs.device & kLbaMode) != 0) return head << 24 | high << 16 | mid << 8 | low;
  if (low == 0 || low > disk_.sectors || head >= disk_.heads) return std::nullopt;
  return ((high << 8 | mid) * disk_.heads + head) * disk_.sectors + low - 1;  // [ATA-4] 6.2
}

std::optional<AtaDisk::Range> AtaDisk::range() {
  const std::optional<uint64_t> block = address();
  disk_.standby = false;
  if (!block || *block >= blocks() || count() > blocks() - *block) {
    abort(kIdnf);
    return std::nullopt;
  }
  return Range{*block, count()};
}

// The place of the last block, or of the one that failed.
void AtaDisk::set_address(uint64_t block) {
  Taskfile& regs = state_.regs;
  const auto byte = [](uint64_t value, unsigned index) { return static_cast<uint8_t>(value >> 8 * index); };
  if (extended()) {
    for (unsigned i = 0; i < 3; ++i) regs.lba[i] = {.value = byte(block, i), .hob = byte(block, i + 3)};
    return;
  }
  uint64_t low_three = block, head = block >> 24;
  if ((regs.device & kLbaMode) == 0) {
    const uint64_t track = block / disk_.sectors;
    head = track % disk_.heads;
    low_three = (track / disk_.heads) << 8 | (block % disk_.sectors + 1);
  }
  for (unsigned i = 0; i < 3; ++i) regs.lba[i].value = byte(low_three, i);
  regs.device = static_cast<uint8_t>((regs.device & ~kHeadMask) | (head & kHeadMask));
}

void AtaDisk::fail_at(uint64_t block, bool write, int error) {
  set_address(block);
  abort(!write && error != ECANCELED ? kUnc : kAbrt);
}

// --- programmed I/O

void AtaDisk::begin_pio(bool write, uint32_t drq_sectors) {
  const std::optional<Range> where = range();
  if (!where) return;
  disk_.next = where->block;
  disk_.left = where->blocks;
  state_.drq_block = drq_sectors * kSectorBytes;
  write ? expect_chunk(true) : read_chunk();
}

void AtaDisk::read_sectors() { begin_pio(false, 1); }
void AtaDisk::write_sectors() { begin_pio(true, 1); }

void AtaDisk::read_multiple() {
  if (disk_.multiple == 0) return abort();
  begin_pio(false, disk_.multiple);
}

void AtaDisk::write_multiple() {
  if (disk_.multiple == 0) return abort();
  state_.fua = state_.opcode == op::kWriteMultipleFuaExt;
  begin_pio(true, disk_.multiple);
}

void AtaDisk::read_chunk() {
  start_io({.kind = IoKind::kRead, .block = disk_.next, .blocks = std::min(disk_.left, kBufferSectors)});
}

void AtaDisk::expect_chunk(bool first) {
  begin_pio_out(size_t{std::min(disk_.left, kBufferSectors)} * kSectorBytes, state_.drq_block, !first);
}

void AtaDisk::buffer_drained() {
  if (phase() == Phase::kDma) return finish();
  if (disk_.left != 0) return read_chunk();
  finish_silently();  // [ATA8-ACS] 11.5: the last block was announced, its taking is not
}

void AtaDisk::buffer_filled() {
  if (state_.opcode == op::kWriteBuffer) return finish();
  if (state_.opcode == op::kDataSetManagement) return trim_ranges();
  start_io({.kind = IoKind::kWrite, .block = disk_.next, .blocks = state_.end / kSectorBytes});
}

void AtaDisk::io_done(const Io& io, int error) {
  const bool read = io.kind == IoKind::kRead, write = io.kind == IoKind::kWrite;
  if (error != 0) return fail_at(io.block, !read && io.kind != IoKind::kVerify, error);
  if (read || write) {
    disk_.next += io.blocks;
    disk_.left -= io.blocks;
    if (disk_.left == 0) {
      set_address(disk_.next - 1);
      state_.regs.count = {};
    }
  }
  if (read) return begin_pio_in(size_t{io.blocks} * kSectorBytes, state_.drq_block);
  if (write && disk_.left != 0) return expect_chunk(false);
  finish();
}

// --- DMA

void AtaDisk::read_dma() {
  if (const std::optional<Range> where = range()) begin_direct_dma(where->block, where->blocks, true, false);
}

void AtaDisk::write_dma() {
  if (const std::optional<Range> where = range())
    begin_direct_dma(where->block, where->blocks, false, state_.opcode == op::kWriteDmaFuaExt);
}

void AtaDisk::direct_done(const Io& io, int error) {
  if (error != 0) return fail_at(io.block, io.kind == IoKind::kWrite, error);
  set_address(io.block + io.blocks - 1);
  state_.regs.count = {};
  finish();
}

// --- without data

void AtaDisk::verify() {
  if (const std::optional<Range> where = range())
    start_io({.kind = IoKind::kVerify, .block = where->block, .blocks = where->blocks});
}

void AtaDisk::seek() {
  const std::optional<uint64_t> block = address();
  if (!block || *block >= blocks()) return abort(kIdnf);
  finish();
}

// [ATA-3] 9.11: to cylinder 0.
void AtaDisk::recalibrate() {
  state_.regs.lba[1] = state_.regs.lba[2] = {};
  finish();
}

void AtaDisk::flush() { start_io({.kind = IoKind::kFlush}); }

// [ATA-4] 8.16
void AtaDisk::initialize_parameters() {
  const uint8_t sectors = state_.regs.count.value;
  if (sectors == 0) return abort();
  disk_.sectors = sectors;
  disk_.heads = (state_.regs.device & kHeadMask) + 1u;
  finish();
}

// [ATA8-ACS] 7.50
void AtaDisk::set_multiple() {
  const uint8_t sectors = state_.regs.count.value;
  disk_.multiple = 0;
  if (sectors > kMostMultiple || (sectors != 0 && !std::has_single_bit(sectors))) return abort();
  disk_.multiple = sectors;
  finish();
}

void AtaDisk::set_features() {
  switch (state_.regs.features.value) {
    case feature::kEnableWriteCache:
    case feature::kDisableWriteCache:
      disk_.write_cache = state_.regs.features.value == feature::kEnableWriteCache;
      drive()->set_write_cache(disk_.write_cache);
      if (!disk_.write_cache) return flush();  // [ATA8-ACS] 7.48.4: what is cached is written first
      return finish();
    case feature::kTransferMode: return set_transfer_mode(state_.regs.count.value);
    case feature::kDisableLookAhead: disk_.look_ahead = false; return finish();
    case feature::kEnableLookAhead: disk_.look_ahead = true; return finish();
    case feature::kDisableRevert: disk_.revert = false; return finish();
    case feature::kEnableRevert: disk_.revert = true; return finish();
    default: abort();
  }
}

// [ATA8-ACS] table 50
void AtaDisk::set_transfer_mode(uint8_t mode) {
  const unsigned number = mode & 7;
  const unsigned most_udma = wiring_.serial ? 6 : 5;
  switch (mode >> 3) {
    case 0:
      if (number > 1) return abort();
      break;
    case 1:
      if (number > 4) return abort();
      break;
    case 4:
      if (number > 2) return abort();
      disk_.transfer_mode = mode;
      break;
    case 8:
      if (number > most_udma) return abort();
      disk_.transfer_mode = mode;
      break;
    default: return abort();
  }
  finish();
}

void AtaDisk::read_native_max() {
  const uint64_t last = blocks() - 1;
  if (!extended()) state_.regs.device |= kLbaMode;
  set_address(extended() ? last : std::min(last, kMost28));
  finish();
}

void AtaDisk::standby() {
  disk_.standby = true;
  // The heads cannot be parked with data in the cache. [ATA8-ACS] 7.54
  flush();
}

void AtaDisk::idle() {
  disk_.standby = false;
  finish();
}

void AtaDisk::check_power() {
  state_.regs.count.value = disk_.standby ? 0x00 : 0xff;
  finish();
}

// [ATA8-ACS] 7.8. Word 105 of IDENTIFY allows no count that would need the high byte.
void AtaDisk::data_set_management() {
  constexpr uint8_t kTrim = 1;
  const uint32_t blocks = state_.regs.count.value;
  if (state_.regs.features.value != kTrim || config_.discard_granularity == 0 || blocks == 0 || blocks > kBufferSectors)
    return abort();
  begin_buffer_dma(size_t{blocks} * kSectorBytes, false);
}

void AtaDisk::trim_ranges() {
  for (size_t at = 0; at < state_.end; at += sizeof(uint64_t)) {
    const auto range = load<uint64_t>(buffer().data() + at);
    const uint64_t first = range & 0xffff'ffff'ffff, count = range >> 48;
    if (count != 0 && (first >= blocks() || count > blocks() - first)) return abort();
  }
  start_io({.kind = IoKind::kTrim, .block = 0, .blocks = state_.end / kSectorBytes});
}

// --- queued commands

std::optional<AtaDisk::Queued> AtaDisk::parse_queued(uint8_t opcode, const Taskfile& regs) {
  const uint32_t wanted = regs.features.value | unsigned{regs.features.hob} << 8;
  const Queued queued{.tag = static_cast<uint8_t>(regs.count.value >> 3),
                      .write = opcode == op::kWriteFpdmaQueued,
                      .fua = (regs.device & 0x80) != 0,
                      .block = address_48(regs),
                      .blocks = wanted == 0 ? 0x10000 : wanted};
  disk_.standby = false;
  const bool inside = queued.block < blocks() && queued.blocks <= blocks() - queued.block;
  if (wiring_.serial && inside && !queue_failed()) return queued;
  fail_queued(queued.tag, regs, inside ? kAbrt : kIdnf);
  return std::nullopt;
}

void AtaDisk::fail_queued(uint8_t tag, const Taskfile& regs, uint8_t error) {
  if (queue_failed()) return;  // the first counts
  disk_.queue_error = {.valid = true,
                       .tag = tag,
                       .status = kDrdy | kErr,
                       .error = error,
                       .device = regs.device,
                       .block = address_48(regs),
                       .count = static_cast<uint16_t>(regs.count.value | unsigned{regs.count.hob} << 8)};
}

void AtaDisk::run_queued(const Queued& queued, SgBuffer data) {
  const Io io{.kind = queued.write ? IoKind::kWrite : IoKind::kRead, .block = queued.block, .blocks = queued.blocks};
  start_queued(queued.tag, io, queued.fua, std::move(data));
}

uint8_t AtaDisk::queued_done(uint8_t tag, const Io& io, int error) {
  if (error == 0) return 0;
  const uint8_t code = io.kind == IoKind::kRead && error != ECANCELED ? kUnc : kAbrt;
  if (!queue_failed()) {
    disk_.queue_error = {.valid = true,
                         .tag = tag,
                         .status = kDrdy | kErr,
                         .error = code,
                         .device = kLbaMode,
                         .block = io.block,
                         .count = static_cast<uint16_t>(tag << 3)};
  }
  return code;
}

}  // namespace kite::devices

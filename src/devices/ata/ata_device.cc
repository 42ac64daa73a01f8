#include "devices/ata/ata_device.h"

#include <algorithm>
#include <cstring>

#include "support/bytes.h"

namespace kite::devices {

using namespace ata;

AtaDevice::AtaDevice(std::string path, DiskConfig config, AtaWiring wiring)
    : Device(std::move(path)), config_(std::move(config)), wiring_(wiring) {}

AtaDevice::~AtaDevice() { finish_requests(); }

void AtaDevice::finish_requests() {
  if (drive() != nullptr && !scope_.idle()) drive()->cancel();
  scope_.wait_idle();
}

// --- registers

void AtaDevice::write_register(Register& reg, uint8_t value) {
  if (resetting() || phase() == Phase::kIo) return;
  reg.write(value);
}

void AtaDevice::write_device(uint8_t value) {
  if (resetting() || phase() == Phase::kIo) return;
  state_.regs.device = value;
}

uint8_t AtaDevice::status() const {
  if (resetting()) return kBsy;
  switch (state_.phase) {
    case Phase::kIdle: return state_.status;
    case Phase::kIo: return kBsy | kDrdy;
    case Phase::kPioIn:
    case Phase::kPioOut: return kDrdy | kDsc | kDrq;
    case Phase::kDma: break;
  }
  return issued_ ? kBsy | kDrdy : kDrdy | kDsc | kDrq;
}

void AtaDevice::command(uint8_t opcode) {
  if (resetting()) return;
  const bool busy = issued_ || state_.phase == Phase::kIo;
  // [ATA8-ACS] 7.10: DEVICE RESET is the one command that a busy device takes, if it is a packet device.
  if (opcode == op::kDeviceReset && is_packet_device()) {
    forget_requests();
    state_.reset_pending = running_ != 0;
    if (!state_.reset_pending) finish_reset();
    return;
  }
  if (busy) return;
  state_.interrupt = false;
  state_.opcode = opcode;
  state_.error = 0;
  state_.phase = Phase::kIdle;
  state_.packet_phase = false;
  execute(opcode);
}

void AtaDevice::set_signature() {
  Taskfile& regs = state_.regs;
  regs.count = {.value = 1};
  regs.lba[0] = {.value = 1};
  regs.lba[1] = {.value = static_cast<uint8_t>(signature())};
  regs.lba[2] = {.value = static_cast<uint8_t>(signature() >> 8)};
}

// --- how commands go on and end

void AtaDevice::finish_silently() {
  state_.phase = Phase::kIdle;
  state_.status = kDrdy | kDsc;
}

void AtaDevice::finish() {
  finish_silently();
  state_.interrupt = true;
}

void AtaDevice::abort(uint8_t error) {
  state_.phase = Phase::kIdle;
  state_.status = kDrdy | kDsc | kErr;
  state_.error = error;
  state_.interrupt = true;
}

void AtaDevice::begin_pio_in(size_t bytes, size_t drq_block, bool interrupt) {
  state_.phase = Phase::kPioIn;
  state_.at = state_.block_end = 0;
  state_.end = static_cast<uint32_t>(bytes);
  state_.drq_block = static_cast<uint32_t>(drq_block);
  next_block();
  state_.interrupt = interrupt;
}

void AtaDevice::begin_pio_out(size_t bytes, size_t drq_block, bool interrupt) {
  begin_pio_in(bytes, drq_block, interrupt);
  state_.phase = Phase::kPioOut;
}

void AtaDevice::next_block() {
  state_.block_end = std::min(state_.end, state_.block_end + state_.drq_block);
  state_.interrupt = true;
  block_begins(state_.block_end - state_.at);
}

std::span<uint8_t> AtaDevice::pio_block() {
  if (phase() != Phase::kPioIn && phase() != Phase::kPioOut) return {};
  return std::span(state_.buffer).subspan(state_.at, state_.block_end - state_.at);
}

void AtaDevice::pio_moved(size_t bytes) {
  state_.at += static_cast<uint32_t>(bytes);
  if (state_.at != state_.block_end) return;
  if (state_.block_end != state_.end) return next_block();
  const bool in = phase() == Phase::kPioIn;
  state_.phase = Phase::kIdle;
  in ? buffer_drained() : buffer_filled();
}

void AtaDevice::begin_buffer_dma(size_t bytes, bool to_host) {
  state_.phase = Phase::kDma;
  state_.dma_direct = false;
  state_.dma_to_host = to_host;
  state_.at = 0;
  state_.block_end = state_.end = static_cast<uint32_t>(bytes);
}

void AtaDevice::begin_direct_dma(uint64_t block, uint32_t blocks, bool to_host, bool fua) {
  state_.phase = Phase::kDma;
  state_.dma_direct = true;
  state_.dma_to_host = to_host;
  state_.fua = fua;
  state_.io = {.kind = to_host ? IoKind::kRead : IoKind::kWrite, .block = block, .blocks = blocks};
}

std::optional<AtaDevice::DmaWanted> AtaDevice::dma_wanted() const {
  if (phase() != Phase::kDma || issued_ || resetting()) return std::nullopt;
  const uint64_t bytes =
      state_.dma_direct ? uint64_t{state_.io.blocks} * block_bytes() : uint64_t{state_.end - state_.at};
  return DmaWanted{.to_host = state_.dma_to_host, .bytes = bytes};
}

void AtaDevice::dma(SgBuffer data) {
  if (!state_.dma_direct) return move_buffer(data);
  if (data.bytes() == 0) {
    wiring_.host.ata_dma_ended(*this, 0);
    return finish_silently();
  }
  issued_ = true;
  spawn({.io = state_.io, .fua = state_.fua, .direct = true, .tag = {}, .data = std::move(data)});
}

void AtaDevice::move_buffer(SgBuffer& data) {
  const uint64_t moved = data.bytes();
  uint8_t* const from = state_.buffer.data() + state_.at;
  state_.dma_to_host ? data.slice().copy_from(from) : data.slice().copy_to(from);
  data.complete(moved);
  state_.at += static_cast<uint32_t>(moved);
  wiring_.host.ata_dma_ended(*this, moved);
  if (state_.at != state_.end) return finish_silently();
  state_.dma_to_host ? buffer_drained() : buffer_filled();
}

void AtaDevice::fail_dma() { abort(kAbrt); }

void AtaDevice::drop_dma() {
  if (!state_.dma_to_host) return abort(kAbrt);
  state_.at = state_.end;
  state_.dma_direct ? direct_done(Io(state_.io), 0) : buffer_drained();
}

// --- requests to the drive

void AtaDevice::start_io(const Io& io) {
  state_.phase = Phase::kIo;
  state_.io = io;
  issued_ = true;
  spawn({.io = io, .fua = state_.fua, .direct = false, .tag = {}, .data = {}});
}

void AtaDevice::start_queued(uint8_t tag, const Io& io, bool fua, SgBuffer data) {
  spawn({.io = io, .fua = fua, .direct = true, .tag = tag, .data = std::move(data)});
}

void AtaDevice::spawn(Request request) {
  request.life = life_;
  ++running_;
  scope_.spawn(run(std::move(request)));
}

Task<void> AtaDevice::run(Request request) {
  co_await drive()->executor().schedule();  // away from the caller, who holds the lock
  const block::IoResult<> result = co_await perform(request);
  const uint64_t bytes = request.data.bytes();
  request.data.complete(result ? bytes : 0);
  const std::lock_guard lock(wiring_.lock);
  ended(request, bytes, result ? 0 : result.error().code);
}

Task<block::IoResult<>> AtaDevice::perform(const Request& request) {
  const uint64_t offset = request.io.block * block_bytes();
  const uint64_t bytes = uint64_t{request.io.blocks} * block_bytes();
  block::IoSlice data = request.direct ? request.data.slice()
                                       : block::IoSlice(state_.buffer.data(), std::min(bytes, uint64_t{kBufferBytes}));
  switch (request.io.kind) {
    case IoKind::kRead: return drive()->read(offset, data);
    case IoKind::kWrite:  // a host that had less than a block's worth of data loses what is over
      data = data.slice(0, data.bytes() - data.bytes() % block_bytes());
      return drive()->write(offset, data, {.flags = request.fua ? uint32_t{block::IoHow::kFua} : 0});
    case IoKind::kVerify: return verify(request);
    case IoKind::kTrim: return trim(request);
    case IoKind::kFlush:
    case IoKind::kNone: break;
  }
  return drive()->flush();
}

Task<block::IoResult<>> AtaDevice::verify(const Request& request) {
  std::vector<uint8_t> scratch(kBufferBytes);
  const uint64_t end = (request.io.block + request.io.blocks) * block_bytes();
  for (uint64_t at = request.io.block * block_bytes(); at < end; at += scratch.size()) {
    const block::IoSlice here(scratch.data(), std::min<uint64_t>(scratch.size(), end - at));
    KITE_CO_TRY(co_await drive()->read(at, here));
  }
  co_return block::IoResult<>{};
}

// The buffer holds ranges: 48 bits of address, 16 bits of length; length 0 is none. [ATA8-ACS] 7.8
Task<block::IoResult<>> AtaDevice::trim(const Request& request) {
  for (size_t at = 0; at < size_t{request.io.blocks} * kSectorBytes; at += sizeof(uint64_t)) {
    const auto range = load<uint64_t>(state_.buffer.data() + at);
    const uint64_t first = range & 0xffff'ffff'ffff, count = range >> 48;
    if (count != 0) KITE_CO_TRY(co_await drive()->discard(first * block_bytes(), count * block_bytes()));
  }
  co_return block::IoResult<>{};
}

void AtaDevice::ended(const Request& request, uint64_t bytes, int error) {
  --running_;
  if (request.life != life_) {
    if (running_ != 0) return;
    if (state_.reset_pending && !state_.reset_held) finish_reset();
    return wiring_.host.ata_changed(*this);
  }
  if (request.tag) {
    const uint8_t code = queued_done(*request.tag, request.io, error);
    return wiring_.host.ata_queued_ended(*this, *request.tag, code);
  }
  issued_ = false;
  const Io io = state_.io;
  state_.phase = Phase::kIdle;
  if (!request.direct) {
    io_done(io, error);
  } else {
    const bool whole = bytes == uint64_t{io.blocks} * block_bytes();
    wiring_.host.ata_dma_ended(*this, error == 0 ? bytes : 0);
    (error != 0 || whole) ? direct_done(io, error) : finish_silently();
  }
  wiring_.host.ata_changed(*this);
}

// --- resets

// What is under way ends some time (nothing is cancelled: a write that the drive has taken may as well be done); until
// then status shows BSY.
void AtaDevice::forget_requests() {
  ++life_;
  issued_ = false;
  state_.phase = Phase::kIdle;
  state_.interrupt = false;
}

void AtaDevice::assert_reset() {
  forget_requests();
  state_.reset_held = state_.reset_pending = true;
}

void AtaDevice::release_reset() {
  if (!state_.reset_held) return;
  state_.reset_held = false;
  if (running_ == 0) finish_reset();
}

void AtaDevice::finish_reset() {
  state_.reset_pending = false;
  state_.status = is_packet_device() ? uint8_t{0} : kDrdy | kDsc;  // [ATA8-ACS] table 8
  state_.error = kDiagnosticPassed;
  state_.regs.device &= kDev;
  state_.packet_phase = false;
  set_signature();
  reset_device(false);
}

// [ATA8-ACS] 7.9: as after a reset, without losing settings.
void AtaDevice::run_diagnostic() {
  if (resetting() || issued_) return;
  state_.phase = Phase::kIdle;
  state_.status = is_packet_device() ? uint8_t{0} : kDrdy | kDsc;
  state_.error = kDiagnosticPassed;
  state_.regs.device = 0;
  set_signature();
  state_.interrupt = true;
}

void AtaDevice::reset() {
  const std::lock_guard lock(wiring_.lock);
  forget_requests();
  state_.regs = {};
  state_.reset_held = false;
  state_.reset_pending = running_ != 0;
  state_.opcode = 0;
  reset_device(true);
  if (!state_.reset_pending) finish_reset();
}

void AtaDevice::start() {
  const std::lock_guard lock(wiring_.lock);
  if (state_.phase == Phase::kIo && !issued_) start_io(Io(state_.io));
  if (state_.reset_pending && !state_.reset_held && running_ == 0) finish_reset();
  wiring_.host.ata_changed(*this);
}

}  // namespace kite::devices

// The floppy controller's registers, reset and lifecycle.
#include "devices/fdc/fdc.h"

#include <algorithm>

#include "devices/fdc/floppy_drive.h"
#include "support/bits.h"

namespace kite::devices {

using namespace fdc_regs;

namespace {

constexpr uint64_t kLowPorts = 6;
constexpr AccessRule kBytes{.min_size = 1, .max_size = 1};
constexpr uint8_t kDrivesAfterReset = 4;

}  // namespace

Fdc::Fdc(std::string path, Config config, const Wiring& wiring)
    : Device(std::move(path)),
      config_(std::move(config)),
      wiring_(wiring),
      low_window_(*this, &Fdc::read, &Fdc::write),
      high_window_(*this, &Fdc::read_input, &Fdc::write_rate),
      low_region_(Region::io("fdc", kLowPorts, low_window_, kBytes)),
      high_region_(Region::io("fdc-input", 1, high_window_, kBytes)),
      bus_(std::make_unique<DriveBus>(*this)) {
  if (wiring_.dma != nullptr) wiring_.dma->set_client(config_.dma_channel, this);
}

Fdc::~Fdc() {
  if (wiring_.dma != nullptr) wiring_.dma->set_client(config_.dma_channel, nullptr);
  bus_->quiesce();
}

DiskBus& Fdc::drive_bus() { return *bus_; }

uint8_t Fdc::cmos_types() {
  const std::lock_guard lock(lock_);
  const auto of = [this](unsigned unit) { return drive(unit) == nullptr ? 0u : cmos_floppy_type(drive(unit)->type()); };
  return static_cast<uint8_t>(of(0) << 4 | of(1));
}

// --- registers

uint64_t Fdc::read(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  switch (offset) {
    case SRA: return status_a();
    case SRB: return 0xc0u | (state_.dor & 1u) << 5 | (state_.dor >> 4 & 3u);  // drive select 0 and motors
    case DOR: return state_.dor;
    case TDR: return state_.tdr;
    case MSR: return main_status();
    default: return read_fifo();
  }
}

void Fdc::write(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard lock(lock_);
  const auto byte = static_cast<uint8_t>(value);
  switch (offset) {
    case DOR: return write_dor(byte);
    case TDR: state_.tdr = byte & 3; return;
    case DSR:
      state_.dsr = byte & static_cast<uint8_t>(~(kDsrReset | kDsrPowerDown));
      if ((byte & kDsrReset) == 0) return;
      begin_reset();  // ends by itself
      if ((state_.dor & kDorNotReset) != 0) end_reset();
      return;
    case FIFO: return write_fifo(byte);
    default: return;  // the status registers
  }
}

uint64_t Fdc::read_input(uint64_t, unsigned) {
  const std::lock_guard lock(lock_);
  const FloppyDrive* const selected = drive(state_.dor & kDorSelect);
  return selected == nullptr || selected->changed() ? kDirChanged : 0;
}

void Fdc::write_rate(uint64_t, unsigned, uint64_t value) {
  const std::lock_guard lock(lock_);
  state_.dsr = static_cast<uint8_t>((state_.dsr & ~kRate) | (value & kRate));
}

uint8_t Fdc::status_a() const {
  const FloppyDrive* const selected = drive(state_.dor & kDorSelect);
  unsigned value = kSraNotProtected;
  if (state_.irq) value |= kSraPending;
  if (drives_[1] == nullptr) value |= kSraNoSecond;
  if (selected == nullptr || selected->track() != 0) value |= kSraNotTrack0;
  if (selected != nullptr && selected->disk().read_only()) value &= ~unsigned{kSraNotProtected};
  return static_cast<uint8_t>(value);
}

// [82077AA] 2.1.5
uint8_t Fdc::main_status() const {
  if ((state_.dor & kDorNotReset) == 0 || state_.resetting) return 0;
  unsigned value = 0;
  for (unsigned unit = 0; unit < state_.seek_ends.size(); ++unit)
    if (state_.seek_ends[unit] != 0) value |= 1u << unit;
  switch (state_.phase) {
    case Phase::kCommand: return static_cast<uint8_t>(value | kMsrReady | (state_.command_bytes != 0 ? kMsrBusy : 0));
    case Phase::kResult: return static_cast<uint8_t>(value | kMsrReady | kMsrToHost | kMsrBusy);
    case Phase::kLoading:
    case Phase::kStoring: return static_cast<uint8_t>(value | kMsrBusy);
    case Phase::kToHost: value |= kMsrToHost; [[fallthrough]];
    case Phase::kFromHost: break;
  }
  if (uses_dma()) return static_cast<uint8_t>((value & 0xf) | kMsrBusy);
  return static_cast<uint8_t>(value | kMsrBusy | kMsrNonDma | kMsrReady);
}

bool Fdc::uses_dma() const {
  return wiring_.dma != nullptr && (state_.dor & kDorDma) != 0 && (state_.specify2 & kNonDma) == 0;
}

void Fdc::write_dor(uint8_t value) {
  const uint8_t before = state_.dor;
  state_.dor = value;
  if ((before & kDorNotReset) != 0 && (value & kDorNotReset) == 0) begin_reset();
  if ((before & kDorNotReset) == 0 && (value & kDorNotReset) != 0) end_reset();
}

uint8_t Fdc::read_fifo() {
  if ((main_status() & (kMsrReady | kMsrToHost)) != (kMsrReady | kMsrToHost)) return 0;
  if (state_.phase == Phase::kToHost) {
    const uint8_t byte = state_.data[state_.data_at++];
    if (state_.data_at == state_.data.size()) host_done(true);
    return byte;
  }
  const uint8_t byte = state_.result[state_.result_at++];
  if (state_.result_at == state_.result_bytes) {
    state_.phase = Phase::kCommand;
    state_.command_bytes = 0;
    set_irq(false);
  }
  return byte;
}

void Fdc::write_fifo(uint8_t value) {
  if ((main_status() & (kMsrReady | kMsrToHost)) != kMsrReady) return;
  if (state_.phase == Phase::kFromHost) {
    state_.data[state_.data_at++] = value;
    if (state_.data_at == state_.data.size()) host_done(true);
    return;
  }
  state_.command[state_.command_bytes++] = value;
  execute();
}

void Fdc::set_irq(bool level) {
  state_.irq = level;
  wiring_.irq.set(level);
}

// --- reset

// [82077AA] 4: the software resets by DOR and DSR. What LOCK protects stays.
void Fdc::begin_reset() {
  ++life_;
  State fresh;
  fresh.dor = state_.dor;
  fresh.dsr = state_.dsr;
  fresh.tdr = state_.tdr;
  fresh.specify1 = state_.specify1;
  fresh.specify2 = state_.specify2;
  fresh.perpendicular = state_.perpendicular & 0x3c;
  fresh.last_count = state_.last_count;
  fresh.locked = state_.locked;
  if (state_.locked) {
    fresh.config = state_.config;
    fresh.precompensation = state_.precompensation;
  }
  fresh.resetting = under_way_ != 0;
  state_ = std::move(fresh);
  set_irq(false);
  if (wiring_.dma != nullptr) wiring_.dma->set_request(config_.dma_channel, false);
  if (!state_.resetting) return;
  for (const FloppyDrive* one : drives_)
    if (one != nullptr) one->disk().cancel();
}

// Reset has ended: an interrupt, and four drives whose state SENSE INTERRUPT STATUS tells. [82077AA] 6.4
void Fdc::end_reset() {
  if (state_.resetting) return;  // the disk is still at work; its end comes back here
  state_.reset_senses = kDrivesAfterReset;
  set_irq(true);
}

// --- lifecycle

void Fdc::reset() {
  const std::lock_guard lock(lock_);
  ++life_;
  for (const FloppyDrive* one : drives_)
    if (one != nullptr && under_way_ != 0) one->disk().cancel();
  state_ = State{};
  set_irq(false);
  if (wiring_.dma != nullptr) wiring_.dma->set_request(config_.dma_channel, false);
}

void Fdc::start() {
  const std::lock_guard lock(lock_);
  stopped_ = false;
  if (state_.resetting && under_way_ == 0) {
    state_.resetting = false;
    if ((state_.dor & kDorNotReset) != 0) end_reset();
  }
  if (state_.phase == Phase::kLoading && under_way_ == 0) load();
  if (state_.phase == Phase::kStoring && under_way_ == 0) store();
  pump();
}

void Fdc::stop() {
  const std::lock_guard lock(lock_);
  stopped_ = true;
}

void Fdc::dma_ready() {
  const std::lock_guard lock(lock_);
  pump();
}

}  // namespace kite::devices

#include "devices/ich9/ich9_lpc.h"

#include "devices/acpi_pm/acpi_pm_regs.h"
#include "devices/ich9/ich9_lpc_regs.h"
#include "devices/ich9/tco_regs.h"
#include "support/bits.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace ich9_lpc_regs;

namespace {

constexpr uint8_t kCommand = 0x04, kStatus = 0x06, kHeaderType = 0x0e;
constexpr int kRootPriority = 1;
constexpr uint32_t kFirstRoutedSlot = 25, kLastSlot = 31;
// Where D31IR .. D25IR are: one word each, with gaps.
constexpr std::array<uint16_t, 7> kRouteOffsets = {0x3140, 0x3142, 0x3144, 0x3146, 0x3148, 0x314c, 0x3150};

// One byte of configuration space: its value after a reset and the bits a guest may change.
struct Register {
  uint8_t offset, reset, writable;
};
constexpr Register kRegisters[] = {
    {kPmbase, 0x01, 0x80},        {kPmbase + 1, 0x00, 0xff},    {kAcpiCntl, 0x00, 0x87},
    {kGpiobase, 0x01, 0x80},      {kGpiobase + 1, 0x00, 0xff},  {kGc, 0x00, 0x10},
    {kPirqaRout, 0x80, 0x8f},     {kPirqaRout + 1, 0x80, 0x8f}, {kPirqaRout + 2, 0x80, 0x8f},
    {kPirqaRout + 3, 0x80, 0x8f}, {kSirqCntl, 0x10, 0xff},      {kPirqeRout, 0x80, 0x8f},
    {kPirqeRout + 1, 0x80, 0x8f}, {kPirqeRout + 2, 0x80, 0x8f}, {kPirqeRout + 3, 0x80, 0x8f},
    {kLpcIoDec, 0x00, 0x77},      {kLpcIoDec + 1, 0x00, 0x13},  {kLpcEn, 0x00, 0x0f},
    {kLpcEn + 1, 0x00, 0x3f},     {kGenPmcon1, 0x00, 0xf7},     {kGenPmcon1 + 1, 0x00, 0x1e},
    {kGenPmcon2, 0x00, 0x80},     {kGenPmcon3, 0x00, 0xf9},     {kGenPmcon3 + 1, 0x00, 0x1f},
    {kBiosCntl, 0x00, 0x1f},      {kRcba, 0x00, 0x01},          {kRcba + 1, 0x00, 0xc0},
    {kRcba + 2, 0x00, 0xff},      {kRcba + 3, 0x00, 0xff},
};
constexpr unsigned kGenDecBytes = 16;

uint32_t merge(uint32_t old, uint32_t value, uint32_t lanes) { return (old & ~lanes) | (value & lanes); }

}  // namespace

Ich9Lpc::Ich9Lpc(std::string path, Config config, Wiring wiring)
    : PciDevice(std::move(path), {.vendor = 0x8086, .device = 0x2918, .revision = 0x02, .class_code = 0x060100}),
      static_config_(config),
      wiring_(std::move(wiring)),
      reset_control_(wiring_.reset, ResetControl::kCpu | ResetControl::kHard | ResetControl::kFull),
      pm_block_(*this, &Ich9Lpc::read_pm, &Ich9Lpc::write_pm),
      apm_block_(*this, &Ich9Lpc::read_apm, &Ich9Lpc::write_apm),
      root_block_(*this, &Ich9Lpc::read_root, &Ich9Lpc::write_root),
      pm_region_(Region::io("ich9-pm", kPmSize, pm_block_, {.min_size = 1, .max_size = 4})),
      apm_region_(Region::io("ich9-apm", 2, apm_block_, {.min_size = 1, .max_size = 1})),
      root_region_(Region::io("ich9-rcrb", kRcrbSize, root_block_, {.min_size = 1, .max_size = 4})),
      pm_({.clock = wiring_.clock, .sci = {*this, kSciSource}, .sleep = wiring_.sleep}, kGpeEvents),
      tco_({.clock = wiring_.clock, .smi = [this] { tco_smi(); }, .bark = [this] { tco_bark(); }}) {
  config_.bytes[kHeaderType] = 0x80;  // several functions
  for (const Register& reg : kRegisters) config_.writable[reg.offset] = reg.writable;
  for (unsigned i = 0; i < kGenDecBytes; ++i) config_.writable[kGen1Dec + i] = 0xff;
  // [ICH9] 13.1.3: I/O, memory and bus mastering are always on; parity and SERR# can be chosen.
  config_.let_write16(kCommand, 0x0140);
  // SMI_LOCK is written once.
  config_.own[kGenPmcon1] = kSmiLock;
  pm_region_->set_enabled(false);
  root_region_->set_enabled(false);
  wiring_.ports.add(0, pm_region_, kRootPriority);
  wiring_.memory.add(0, root_region_, kRootPriority);
  const std::lock_guard lock(config_lock_);
  set_reset_values();
}

Ich9Lpc::~Ich9Lpc() {
  wiring_.ports.remove(pm_region_);
  wiring_.memory.remove(root_region_);
}

void Ich9Lpc::set_reset_values() {
  for (const Register& reg : kRegisters) config_.bytes[reg.offset] = reg.reset;
  for (unsigned i = 0; i < kGenDecBytes; ++i) config_.bytes[kGen1Dec + i] = 0;
  config_.writable[kGenPmcon1] = 0xf7;
  config_.set16(kCommand, 0x0007);
  config_.set16(kStatus, 0x0200);
  {
    const std::lock_guard lock(lock_);
    // The levels are what others drive: they lower their own lines.
    state_ = State{.levels = state_.levels};
    state_.routes.fill(kInterruptRoutesReset);
    state_.gcs = kGcsNoReboot;
    state_.smi_enable = static_config_.smm ? 0 : kApmcEn;
  }
  map_spaces();
  load_routes();
  pm_.reset();
  tco_.reset();
}

void Ich9Lpc::reset() {
  reset_config();
  const std::lock_guard lock(config_lock_);
  set_reset_values();
  reset_control_.set_value(0);
}

void Ich9Lpc::config_written(uint16_t offset, unsigned size, uint32_t) {
  const auto touches = [=](uint16_t first, unsigned count) { return offset < first + count && offset + size > first; };
  // [ICH9] 13.8.1.1: SMI_LOCK can only be cleared by a reset.
  if ((config_.bytes[kGenPmcon1] & kSmiLock) != 0) config_.writable[kGenPmcon1] &= static_cast<uint8_t>(~kSmiLock);
  if (touches(kPmbase, 5) || touches(kRcba, 4)) map_spaces();
  if (touches(kAcpiCntl, 1) || touches(kPirqaRout, 4) || touches(kPirqeRout, 4) || touches(kGenPmcon1, 2))
    load_routes();
}

void Ich9Lpc::map_spaces() {
  const bool pm = (config_.bytes[kAcpiCntl] & kAcpiEnable) != 0;
  if (pm) pm_region_->set_offset(config_.get32(kPmbase) & kPmbaseAddress);
  pm_region_->set_enabled(pm);
  const uint32_t rcba = config_.get32(kRcba);
  const bool root = (rcba & kRcbaEnable) != 0;
  if (root) root_region_->set_offset(rcba & kRcbaAddress);
  root_region_->set_enabled(root);
}

// --- interrupts

void Ich9Lpc::load_routes() {
  // [ICH9] 13.1.14: 3 is reserved and taken for the usual 9.
  constexpr std::array<uint8_t, 8> kSciGsis = {9, 10, 11, 9, 20, 21, 22, 23};
  const std::lock_guard lock(lock_);
  for (unsigned i = 0; i < 4; ++i) {
    pirq_routes_[i] = config_.bytes[kPirqaRout + i];
    pirq_routes_[4 + i] = config_.bytes[kPirqeRout + i];
  }
  sci_gsi_ = kSciGsis[config_.bytes[kAcpiCntl] & kSciIrqSelect];
  gen_pmcon1_ = config_.get16(kGenPmcon1);
  drive_changed();
}

void Ich9Lpc::set_irq(uint32_t line, bool level) {
  if (line >= kSources) return;
  const std::lock_guard lock(lock_);
  state_.levels.set(line, level);
  drive_changed();
}

// [ICH9] 5.10.1: devices 25 to 31 are on the root complex of the ICH, with programmable pins; the rest of bus 0 is
// wired to the upper four in turn.
unsigned Ich9Lpc::pirq_of_line(uint32_t line) const {
  const uint32_t slot = line / 4, pin = line % 4;
  if (slot < kFirstRoutedSlot) return 4 + (slot + pin) % 4;
  return state_.routes[kLastSlot - slot] >> (4 * pin) & 7;
}

unsigned Ich9Lpc::pirq_of(uint8_t slot, uint8_t pin) {
  const std::lock_guard lock(lock_);
  return pirq_of_line(bus::PciBus::line_of_slot(slot, pin));
}

uint32_t Ich9Lpc::levels() const {
  uint32_t gsis = 0;
  for (uint32_t irq = 0; irq < 16; ++irq)
    if (state_.levels[kIsaSource + irq]) gsis |= 1u << irq;
  if (state_.levels[kSciSource]) gsis |= 1u << sci_gsi_;
  uint32_t pirqs = 0;
  for (uint32_t line = 0; line < kPinLines; ++line)
    if (state_.levels[line]) pirqs |= 1u << pirq_of_line(line);
  for (unsigned pirq = 0; pirq < kPirqs; ++pirq) {
    if ((pirqs >> pirq & 1) == 0) continue;
    gsis |= 1u << (16 + pirq);
    if ((pirq_routes_[pirq] & kPirqDisabled) == 0) gsis |= (1u << (pirq_routes_[pirq] & kPirqIrqMask)) & kPirqAllowed;
  }
  return gsis;
}

void Ich9Lpc::drive_changed() {
  const uint32_t now = levels(), changed = now ^ driven_;
  driven_ = now;
  for (unsigned gsi = 0; gsi < kGsis; ++gsi)
    if ((changed >> gsi & 1) != 0) wiring_.gsis[gsi].set((now >> gsi & 1) != 0);
}

// --- power management

uint64_t Ich9Lpc::read_pm(uint64_t offset, unsigned size) {
  if (offset < acpi_pm_regs::kPm1End) return pm_.read(offset, size);
  if (offset >= kGpe0 && offset < kSmiEn) return pm_.read_gpe(offset - kGpe0, size);
  if (offset >= kSmiEn && offset < kPmEnd) return read_smi(offset - kSmiEn, size);
  if (offset >= kTco) return tco_.read(offset - kTco, size);
  return 0;
}

void Ich9Lpc::write_pm(uint64_t offset, unsigned size, uint64_t value) {
  if (offset < acpi_pm_regs::kPm1End) return pm_.write(offset, size, value);
  if (offset >= kGpe0 && offset < kSmiEn) return pm_.write_gpe(offset - kGpe0, size, value);
  if (offset >= kSmiEn && offset < kPmEnd) return write_smi(offset - kSmiEn, size, value);
  if (offset >= kTco) tco_.write(offset - kTco, size, value);
}

// `offset` from SMI_EN.
uint64_t Ich9Lpc::read_smi(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  const uint64_t both = state_.smi_enable | uint64_t{state_.smi_status} << 32;
  return (both >> (8 * offset)) & low_mask(8 * size);
}

void Ich9Lpc::write_smi(uint64_t offset, unsigned size, uint64_t value) {
  const bool tco_locked = tco_.locked();
  const std::lock_guard lock(lock_);
  const auto shift = static_cast<unsigned>(8 * (offset & 3));
  const auto lanes = static_cast<uint32_t>(low_mask(8 * size) << shift);
  const auto written = static_cast<uint32_t>(value << shift) & lanes;
  if (offset >= 4) {
    state_.smi_status &= ~written;
    return;
  }
  write_smi_enable(written, tco_locked ? lanes & ~kTcoEn : lanes);
}

void Ich9Lpc::write_smi_enable(uint32_t value, uint32_t lanes) {
  uint32_t writable = lanes & kSmiEnBits;
  if ((gen_pmcon1_ & kSmiLock) != 0) writable &= ~kGblSmiEn;
  if (!static_config_.smm) writable &= ~kApmcEn;
  state_.smi_enable = merge(state_.smi_enable, value, writable);
}

bool Ich9Lpc::request_smi(uint32_t status, uint32_t enable) {
  const std::lock_guard lock(lock_);
  state_.smi_status |= status;
  return static_config_.smm && (state_.smi_enable & kGblSmiEn) != 0 && (state_.smi_enable & enable) != 0;
}

void Ich9Lpc::tco_smi() {
  if (request_smi(kTcoSts, kTcoEn)) wiring_.smi(false);
}

// [ICH9] 13.9.5: the second time-out resets the machine unless the strap or GCS.NO_REBOOT forbids it.
void Ich9Lpc::tco_bark() {
  const bool forbidden = [this] {
    const std::lock_guard lock(lock_);
    return static_config_.no_reboot || (state_.gcs & kGcsNoReboot) != 0;
  }();
  if (!forbidden) wiring_.watchdog();
}

uint64_t Ich9Lpc::read_apm(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  return offset == 0 ? state_.apm_command : state_.apm_status;
}

bool Ich9Lpc::take_smi_features(uint64_t asked) {
  const std::lock_guard lock(lock_);
  if (state_.smi_features_taken) return true;
  if ((asked & ~kSmiFeatures) != 0) return false;
  state_.smi_features = asked;
  state_.smi_features_taken = true;
  return true;
}

void Ich9Lpc::write_apm(uint64_t offset, unsigned, uint64_t value) {
  bool all = false;
  {
    const std::lock_guard lock(lock_);
    all = (state_.smi_features & kSmiBroadcast) != 0;
    (offset == 0 ? state_.apm_command : state_.apm_status) = static_cast<uint8_t>(value);
  }
  if (offset != 0) return;
  // The two commands of [ACPI 6.4] 4.8.3.2.5 are served here: firmware for virtual machines has no handler for them.
  if (value == kApmAcpiEnable || value == kApmAcpiDisable) {
    pm_.set_sci_enabled(value == kApmAcpiEnable);
  } else if (static_config_.smm && request_smi(kApmSts, kApmcEn)) {
    wiring_.smi(all);
  }
}

// --- root complex registers

uint16_t* Ich9Lpc::route_register(uint64_t offset) {
  for (size_t i = 0; i < kRouteOffsets.size(); ++i)
    if (align_down(offset, 2) == kRouteOffsets[i]) return &state_.routes[i];
  return nullptr;
}

uint8_t Ich9Lpc::root_byte(uint64_t offset) {
  const auto of = [offset](uint64_t value, uint64_t start) {
    return static_cast<uint8_t>(value >> (8 * (offset - start)));
  };
  if (const uint16_t* route = route_register(offset); route != nullptr) return of(*route, align_down(offset, 2));
  switch (align_down(offset, 4)) {
    case kD31ip: return of(0x03243200, kD31ip);  // [ICH9] 10.1.42: the pins of its functions as the chip has them
    case align_down(kOic, 4): return offset >= kOic ? of(state_.oic, kOic) : uint8_t{0};
    case kHptc: return of(state_.hptc, kHptc);
    case kGcs: return of(state_.gcs, kGcs);
    default: return 0;
  }
}

void Ich9Lpc::write_root_byte(uint64_t offset, uint8_t value) {
  const auto into = [offset, value](uint32_t old, uint64_t start, uint32_t writable) {
    const auto shift = static_cast<unsigned>(8 * (offset - start));
    return merge(old, uint32_t{value} << shift, (0xffu << shift) & writable);
  };
  if (uint16_t* route = route_register(offset); route != nullptr) {
    *route = static_cast<uint16_t>(into(*route, align_down(offset, 2), 0x7777));
    return;
  }
  switch (align_down(offset, 4)) {
    case align_down(kOic, 4):
      if (offset >= kOic) state_.oic = static_cast<uint16_t>(into(state_.oic, kOic, 0x03ff));
      break;
    case kHptc: state_.hptc = into(state_.hptc, kHptc, 0x83); break;
    case kGcs: state_.gcs = into(state_.gcs, kGcs, 0x00000fff); break;
    default: break;
  }
}

uint64_t Ich9Lpc::read_root(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= uint64_t{root_byte(offset + i)} << (8 * i);
  return value;
}

void Ich9Lpc::write_root(uint64_t offset, unsigned size, uint64_t value) {
  const std::lock_guard lock(lock_);
  for (unsigned i = 0; i < size; ++i) write_root_byte(offset + i, static_cast<uint8_t>(value >> (8 * i)));
  drive_changed();
}

}  // namespace kite::devices

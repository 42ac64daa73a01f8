#include "devices/piix4_pm/piix4_pm.h"

#include "devices/piix4_pm/piix4_pm_regs.h"
#include "devices/section.h"
#include "devices/tick_rate.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::devices {

using namespace piix4_pm_regs;

namespace {

constexpr uint8_t kCommand = 0x04, kStatus = 0x06;
constexpr unsigned kGpeEvents = 16;
constexpr TickRate kTimerRate(kTimerHz);

struct Piix4PmV1 {
  static constexpr uint32_t kVersion = 1;
  uint16_t pm1_status, pm1_enable, pm1_control;
  int64_t overflow_tick;
  uint16_t gpe_status, gpe_enable;
  uint8_t apm_command, apm_status;
};
template <class Codec>
void visit(Codec& codec, Piix4PmV1& wire) {
  codec.field(1, wire.pm1_status);
  codec.field(2, wire.pm1_enable);
  codec.field(3, wire.pm1_control);
  codec.field(4, wire.overflow_tick);
  codec.field(5, wire.gpe_status);
  codec.field(6, wire.gpe_enable);
  codec.field(7, wire.apm_command);
  codec.field(8, wire.apm_status);
}

uint16_t merge(uint16_t old, uint16_t value, uint16_t lanes) {
  return static_cast<uint16_t>((old & ~lanes) | (value & lanes));
}

}  // namespace

Piix4Pm::Piix4Pm(std::string path, Wiring wiring)
    : PciDevice(std::move(path), {.vendor = 0x8086, .device = 0x7113, .revision = 0x03, .class_code = 0x068000}),
      wiring_(std::move(wiring)),
      pm_block_(*this, &Piix4Pm::read_pm, &Piix4Pm::write_pm),
      gpe_block_(*this, &Piix4Pm::read_gpe, &Piix4Pm::write_gpe),
      apm_block_(*this, &Piix4Pm::read_apm, &Piix4Pm::write_apm),
      pm_region_(Region::io("piix4-pm", kPmSize, pm_block_, {.min_size = 1, .max_size = 4})),
      gpe_region_(Region::io("piix4-gpe", kGpeSize, gpe_block_, {.min_size = 1, .max_size = 4})),
      apm_region_(Region::io("piix4-apm", 2, apm_block_, {.min_size = 1, .max_size = 1})),
      timer_(wiring_.clock, [this] { timer_fired(); }) {
  config_.writable[kPmba] = kPmbaMask & 0xff;
  config_.writable[kPmba + 1] = kPmbaMask >> 8;
  config_.writable[kPmregmisc] = kPmiose;
  for (unsigned i = kDevresBase; i < kDevresEnd; ++i) config_.writable[i] = 0xff;
  set_interrupt_pin(1);
  pm_region_->set_enabled(false);
  wiring_.ports.add(0, pm_region_);
  const std::lock_guard lock(config_lock_);
  set_reset_values();
}

Piix4Pm::~Piix4Pm() { wiring_.ports.remove(pm_region_); }

void Piix4Pm::set_reset_values() {
  for (unsigned i = kDevresBase; i < kDevresEnd; ++i) config_.bytes[i] = 0;
  config_.set32(kPmba, 1);
  config_.bytes[kPmregmisc] = 0;
  config_.set16(kCommand, 0);
  config_.set16(kStatus, 0x0280);
  map_io_space();
  const std::lock_guard lock(lock_);
  state_ = State{.overflow_tick = next_overflow()};
  update();
}

void Piix4Pm::reset() {
  reset_config();
  const std::lock_guard lock(config_lock_);
  set_reset_values();
}

void Piix4Pm::config_written(uint8_t offset, unsigned size, uint32_t) {
  const auto touches = [=](uint8_t first, unsigned count) { return offset < first + count && offset + size > first; };
  if (touches(kPmba, 2) || touches(kPmregmisc, 1)) map_io_space();
}

void Piix4Pm::map_io_space() {
  const bool on = (config_.bytes[kPmregmisc] & kPmiose) != 0;
  if (on) pm_region_->set_offset(config_.get16(kPmba) & kPmbaMask);
  pm_region_->set_enabled(on);
}

// The timer runs from the clock's 0, through resets too; the guest sees its low 24 bits.
int64_t Piix4Pm::ticks() const { return static_cast<int64_t>(kTimerRate.to_ticks(wiring_.clock.now())); }

// [ACPI 6.4] 4.8.3.1.1: TMR_STS is set whenever the timer's most significant bit changes, either way.
int64_t Piix4Pm::next_overflow() const { return (ticks() / kTimerHalfPeriod + 1) * kTimerHalfPeriod; }

void Piix4Pm::catch_up() {
  if (ticks() >= state_.overflow_tick) state_.pm1_status |= kTmr;
}

void Piix4Pm::update() {
  catch_up();
  const bool pm1 = (state_.pm1_status & state_.pm1_enable & kEnableBits) != 0;
  const bool gpe = (state_.gpe_status & state_.gpe_enable) != 0;
  wiring_.sci.set((pm1 || gpe) && (state_.pm1_control & kSciEn) != 0);
  if ((state_.pm1_enable & kTmr) != 0 && (state_.pm1_status & kTmr) == 0) {
    timer_.arm_at(kTimerRate.to_ns(static_cast<uint64_t>(state_.overflow_tick)));
  } else {
    timer_.disarm();
  }
}

void Piix4Pm::timer_fired() {
  const std::lock_guard lock(lock_);
  update();
}

void Piix4Pm::press_power_button() {
  const std::lock_guard lock(lock_);
  state_.pm1_status |= kPwrbtn;
  update();
}

void Piix4Pm::raise_gpe(unsigned event) {
  if (event >= kGpeEvents) return;
  const std::lock_guard lock(lock_);
  state_.gpe_status |= bit<uint16_t>(event);
  update();
}

uint16_t Piix4Pm::pm_word(uint64_t offset) const {
  switch (offset) {
    case kPmsts: return state_.pm1_status;
    case kPmen: return state_.pm1_enable;
    case kPmcntrl: return state_.pm1_control;
    case kPmtmr: return static_cast<uint16_t>(ticks() & kTimerMask);
    case kPmtmr + 2: return static_cast<uint16_t>((ticks() & kTimerMask) >> 16);
    default: return 0;  // device monitors, throttling, general purpose I/O: not there
  }
}

uint64_t Piix4Pm::read_pm(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  catch_up();
  if (offset == kPmtmr && size == 4) return static_cast<uint64_t>(ticks()) & kTimerMask;  // one instant, not two
  if (size == 4) return pm_word(offset) | uint64_t{pm_word(offset + 2)} << 16;
  return (uint64_t{pm_word(offset & ~uint64_t{1})} >> (8 * (offset & 1))) & low_mask(8 * size);
}

void Piix4Pm::write_pm(uint64_t offset, unsigned size, uint64_t value) {
  bool off = false;
  {
    const std::lock_guard lock(lock_);
    catch_up();
    const unsigned shift = 8 * (offset & 1);
    const uint64_t lanes = low_mask(8 * size) << shift;
    const uint64_t first = offset & ~uint64_t{1};
    for (unsigned word = 0; word < (size == 4 ? 2 : 1); ++word) {
      const auto part = static_cast<uint16_t>((value << shift) >> (16 * word));
      if (write_pm_word(first + 2 * word, part, static_cast<uint16_t>(lanes >> (16 * word)))) off = true;
    }
    update();
  }
  if (off) wiring_.power_off();
}

bool Piix4Pm::write_pm_word(uint64_t offset, uint16_t value, uint16_t lanes) {
  switch (offset) {
    case kPmsts:
      if ((value & lanes & kTmr) != 0) state_.overflow_tick = next_overflow();
      state_.pm1_status &= static_cast<uint16_t>(~(value & lanes));
      return false;
    case kPmen: state_.pm1_enable = merge(state_.pm1_enable, value, lanes) & kEnableBits; return false;
    case kPmcntrl: return write_pm_control(value, lanes);
    default: return false;
  }
}

bool Piix4Pm::write_pm_control(uint16_t value, uint16_t lanes) {
  state_.pm1_control = merge(state_.pm1_control, value, lanes) & kControlBits;
  if ((value & lanes & kSlpEn) == 0) return false;
  const unsigned type = (state_.pm1_control & kSlpTyp) >> kSlpTypShift;
  if (type == kSlpTypSoftOff) return true;
  log::guest_error("{}: sleeping state {} is not offered; the machine wakes up at once", path(), type);
  state_.pm1_status |= kWak;  // [ACPI 6.4] 4.8.3.1.1: what the guest waits for after SLP_EN
  return false;
}

uint64_t Piix4Pm::read_gpe(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  const uint32_t block = state_.gpe_status | uint32_t{state_.gpe_enable} << 16;
  return (block >> (8 * offset)) & low_mask(8 * size);
}

void Piix4Pm::write_gpe(uint64_t offset, unsigned size, uint64_t value) {
  const std::lock_guard lock(lock_);
  const auto lanes = static_cast<uint32_t>(low_mask(8 * size) << (8 * offset));
  const auto written = static_cast<uint32_t>(value << (8 * offset)) & lanes;
  state_.gpe_status &= static_cast<uint16_t>(~written);  // [ACPI 6.4] 4.8.4.1.1: a 1 clears
  state_.gpe_enable =
      merge(state_.gpe_enable, static_cast<uint16_t>(written >> 16), static_cast<uint16_t>(lanes >> 16));
  update();
}

uint64_t Piix4Pm::read_apm(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  return offset == 0 ? state_.apm_command : state_.apm_status;
}

// A command would raise an SMI; the firmware's handler of the two that ACPI names would do what is done here.
void Piix4Pm::write_apm(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard lock(lock_);
  (offset == 0 ? state_.apm_command : state_.apm_status) = static_cast<uint8_t>(value);
  if (offset != 0) return;
  if (value == kApmAcpiEnable) state_.pm1_control |= kSciEn;
  if (value == kApmAcpiDisable) state_.pm1_control &= static_cast<uint16_t>(~kSciEn);
  update();
}

void Piix4Pm::save(StateWriter& writer) {
  const State state = [this] {
    const std::lock_guard lock(lock_);
    catch_up();
    return state_;
  }();
  const auto& [status, enable, control, overflow, gpe_status, gpe_enable, apm_command, apm_status] = state;
  save_section(writer, path(),
               Piix4PmV1{.pm1_status = status,
                         .pm1_enable = enable,
                         .pm1_control = control,
                         .overflow_tick = overflow,
                         .gpe_status = gpe_status,
                         .gpe_enable = gpe_enable,
                         .apm_command = apm_command,
                         .apm_status = apm_status},
               [&] { save_config(writer); });
}

void Piix4Pm::restore(StateReader& reader) {
  Piix4PmV1 wire{};
  const auto possible = [&] {
    return require(reader, (wire.pm1_status & ~kStatusBits) == 0, "the PM1 status has unknown bits") &&
           require(reader, (wire.pm1_enable & ~kEnableBits) == 0, "the PM1 enables have unknown bits") &&
           require(reader, (wire.pm1_control & ~kControlBits) == 0, "the PM1 control has unknown bits") &&
           require(reader, wire.overflow_tick >= 0 && wire.overflow_tick % kTimerHalfPeriod == 0,
                   "the timer's overflow lies between two changes of its bit 23");
  };
  if (!restore_section(reader, path(), wire, [&] {
        if (possible()) restore_config(reader);
      }))
    return;
  const std::lock_guard lock(config_lock_);
  map_io_space();
  const std::lock_guard state_lock(lock_);
  state_ = State{.pm1_status = wire.pm1_status,
                 .pm1_enable = wire.pm1_enable,
                 .pm1_control = wire.pm1_control,
                 .overflow_tick = wire.overflow_tick,
                 .gpe_status = wire.gpe_status,
                 .gpe_enable = wire.gpe_enable,
                 .apm_command = wire.apm_command,
                 .apm_status = wire.apm_status};
  update();
}

}  // namespace kite::devices

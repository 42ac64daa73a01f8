#include "devices/piix4_pm/piix4_pm.h"

#include "devices/acpi_pm/acpi_pm_regs.h"
#include "devices/piix4_pm/piix4_pm_regs.h"
#include "devices/section.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::devices {

using namespace piix4_pm_regs;

namespace {

constexpr uint8_t kCommand = 0x04, kStatus = 0x06;
constexpr unsigned kGpeEvents = 16;

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
      pm_({.clock = wiring_.clock, .sci = wiring_.sci, .sleep = wiring_.sleep}, kGpeEvents) {
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
  // Without system management mode firmware shall find it set up already and leave it alone.
  config_.set32(kDevactb, wiring_.smi ? 0 : kApmcEn);
  config_.set32(kPmba, 1);
  config_.bytes[kPmregmisc] = 0;
  config_.set16(kCommand, 0);
  config_.set16(kStatus, 0x0280);
  map_io_space();
  const std::lock_guard lock(lock_);
  state_ = State{};
  pm_.reset();
}

void Piix4Pm::reset() {
  reset_config();
  const std::lock_guard lock(config_lock_);
  set_reset_values();
}

void Piix4Pm::config_written(uint16_t offset, unsigned size, uint32_t) {
  const auto touches = [=](uint8_t first, unsigned count) { return offset < first + count && offset + size > first; };
  if (touches(kPmba, 2) || touches(kPmregmisc, 1)) map_io_space();
}

void Piix4Pm::map_io_space() {
  const bool on = (config_.bytes[kPmregmisc] & kPmiose) != 0;
  if (on) pm_region_->set_offset(config_.get16(kPmba) & kPmbaMask);
  pm_region_->set_enabled(on);
}

void Piix4Pm::press_power_button() { pm_.raise_pm1(acpi_pm_regs::kPwrbtn); }

// Device monitors, throttling and general purpose I/O, above the common part, are not there: they read 0.
uint64_t Piix4Pm::read_pm(uint64_t offset, unsigned size) {
  return offset < acpi_pm_regs::kPm1End ? pm_.read(offset, size) : 0;
}

void Piix4Pm::write_pm(uint64_t offset, unsigned size, uint64_t value) {
  if (offset < acpi_pm_regs::kPm1End) pm_.write(offset, size, value);
}

uint64_t Piix4Pm::read_gpe(uint64_t offset, unsigned size) { return pm_.read_gpe(offset, size); }
void Piix4Pm::write_gpe(uint64_t offset, unsigned size, uint64_t value) { pm_.write_gpe(offset, size, value); }

uint64_t Piix4Pm::read_apm(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  return offset == 0 ? state_.apm_command : state_.apm_status;
}

// A command would raise an SMI; the firmware's handler of the two that ACPI names would do what is done here.
// [PIIX4] 7.3.1: commands raise an SMI when APMC_EN is set. Otherwise nobody would answer them, and those that switch
// ACPI on and off take effect here.
void Piix4Pm::write_apm(uint64_t offset, unsigned, uint64_t value) {
  const bool smi = wiring_.smi && [this] {
    const std::lock_guard lock(config_lock_);
    return (config_.get32(kDevactb) & kApmcEn) != 0;
  }();
  {
    const std::lock_guard lock(lock_);
    (offset == 0 ? state_.apm_command : state_.apm_status) = static_cast<uint8_t>(value);
    if (offset != 0) return;
    if (value == kApmAcpiEnable || value == kApmAcpiDisable) pm_.set_sci_enabled(value == kApmAcpiEnable);
  }
  if (smi) wiring_.smi();
}

void Piix4Pm::save(StateWriter& writer) {
  const State state = [this] {
    const std::lock_guard lock(lock_);
    return state_;
  }();
  const auto& [apm_command, apm_status] = state;
  const auto [status, enable, control, overflow, gpe_status, gpe_enable] = pm_.snapshot();
  save_section(writer, path(),
               Piix4PmV1{.pm1_status = status,
                         .pm1_enable = enable,
                         .pm1_control = control,
                         .overflow_tick = overflow,
                         .gpe_status = static_cast<uint16_t>(gpe_status),
                         .gpe_enable = static_cast<uint16_t>(gpe_enable),
                         .apm_command = apm_command,
                         .apm_status = apm_status},
               [&] { save_config(writer); });
}

void Piix4Pm::restore(StateReader& reader) {
  Piix4PmV1 wire{};
  AcpiPm::State pm;
  if (!restore_section(reader, path(), wire, [&] {
        pm = {.pm1_status = wire.pm1_status,
              .pm1_enable = wire.pm1_enable,
              .pm1_control = wire.pm1_control,
              .overflow_tick = wire.overflow_tick,
              .gpe_status = wire.gpe_status,
              .gpe_enable = wire.gpe_enable};
        if (pm_.possible(reader, pm)) restore_config(reader);
      }))
    return;
  const std::lock_guard lock(config_lock_);
  map_io_space();
  pm_.restore(pm);
  const std::lock_guard state_lock(lock_);
  state_ = State{.apm_command = wire.apm_command, .apm_status = wire.apm_status};
}

}  // namespace kite::devices

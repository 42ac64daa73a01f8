#include "devices/acpi_pm/acpi_pm.h"

#include "devices/acpi_pm/acpi_pm_regs.h"
#include "devices/section.h"
#include "devices/tick_rate.h"
#include "support/bits.h"

namespace kite::devices {

using namespace acpi_pm_regs;

namespace {

constexpr TickRate kTimerRate(kTimerHz);

uint16_t merge(uint16_t old, uint16_t value, uint16_t lanes) {
  return static_cast<uint16_t>((old & ~lanes) | (value & lanes));
}

}  // namespace

AcpiPm::AcpiPm(Wiring wiring, unsigned gpe_events)
    : gpe_events_(gpe_events), wiring_(std::move(wiring)), timer_(wiring_.clock, [this] { timer_fired(); }) {
  const std::lock_guard lock(lock_);
  state_.overflow_tick = next_overflow();
}

void AcpiPm::reset() {
  const std::lock_guard lock(lock_);
  state_ = State{.overflow_tick = next_overflow()};
  update();
}

// The timer runs from the clock's 0, through resets too; the guest sees its low 24 bits.
int64_t AcpiPm::ticks() const { return static_cast<int64_t>(kTimerRate.to_ticks(wiring_.clock.now())); }

// [ACPI 6.4] 4.8.3.1.1: TMR_STS is set whenever the timer's most significant bit changes, either way.
int64_t AcpiPm::next_overflow() const { return (ticks() / kTimerHalfPeriod + 1) * kTimerHalfPeriod; }

void AcpiPm::catch_up() {
  if (ticks() >= state_.overflow_tick) state_.pm1_status |= kTmr;
}

bool AcpiPm::pending() const {
  return (state_.pm1_status & state_.pm1_enable & kEnableBits) != 0 || (state_.gpe_status & state_.gpe_enable) != 0;
}

void AcpiPm::update() {
  catch_up();
  wiring_.sci.set(pending() && (state_.pm1_control & kSciEn) != 0);
  if ((state_.pm1_enable & kTmr) != 0 && (state_.pm1_status & kTmr) == 0) {
    timer_.arm_at(kTimerRate.to_ns(static_cast<uint64_t>(state_.overflow_tick)));
  } else {
    timer_.disarm();
  }
}

void AcpiPm::timer_fired() {
  const std::lock_guard lock(lock_);
  update();
}

void AcpiPm::raise_pm1(uint16_t status_bits) {
  const std::lock_guard lock(lock_);
  state_.pm1_status |= static_cast<uint16_t>(status_bits & kStatusBits);
  update();
}

void AcpiPm::raise_gpe(unsigned event) {
  if (event >= gpe_events_) return;
  const std::lock_guard lock(lock_);
  state_.gpe_status |= bit(event);
  update();
}

bool AcpiPm::wake_pending() {
  const std::lock_guard lock(lock_);
  catch_up();
  return pending();
}

void AcpiPm::set_sci_enabled(bool enabled) {
  const std::lock_guard lock(lock_);
  state_.pm1_control =
      static_cast<uint16_t>(enabled ? state_.pm1_control | kSciEn : state_.pm1_control & ~unsigned{kSciEn});
  update();
}

uint16_t AcpiPm::word(uint64_t offset) const {
  switch (offset) {
    case kPm1Sts: return state_.pm1_status;
    case kPm1En: return state_.pm1_enable;
    case kPm1Cnt: return state_.pm1_control;
    case kPmTmr: return static_cast<uint16_t>(ticks() & kTimerMask);
    case kPmTmr + 2: return static_cast<uint16_t>((ticks() & kTimerMask) >> 16);
    default: return 0;
  }
}

uint64_t AcpiPm::read(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  catch_up();
  if (offset == kPmTmr && size == 4) return static_cast<uint64_t>(ticks()) & kTimerMask;  // one instant, not two
  if (size == 4) return word(offset) | uint64_t{word(offset + 2)} << 16;
  return (uint64_t{word(offset & ~uint64_t{1})} >> (8 * (offset & 1))) & low_mask(8 * size);
}

void AcpiPm::write(uint64_t offset, unsigned size, uint64_t value) {
  bool sleep = false;
  uint8_t type = 0;
  {
    const std::lock_guard lock(lock_);
    catch_up();
    const unsigned shift = 8 * (offset & 1);
    const uint64_t lanes = low_mask(8 * size) << shift;
    const uint64_t first = offset & ~uint64_t{1};
    for (unsigned at = 0; at < (size == 4 ? 2 : 1); ++at) {
      const auto part = static_cast<uint16_t>((value << shift) >> (16 * at));
      if (write_word(first + 2 * at, part, static_cast<uint16_t>(lanes >> (16 * at)))) sleep = true;
    }
    type = static_cast<uint8_t>((state_.pm1_control & kSlpTyp) >> kSlpTypShift);
    update();
  }
  if (sleep) wiring_.sleep(type);
}

bool AcpiPm::write_word(uint64_t offset, uint16_t value, uint16_t lanes) {
  switch (offset) {
    case kPm1Sts:
      if ((value & lanes & kTmr) != 0) state_.overflow_tick = next_overflow();
      state_.pm1_status &= static_cast<uint16_t>(~(value & lanes));
      return false;
    case kPm1En: state_.pm1_enable = merge(state_.pm1_enable, value, lanes) & kEnableBits; return false;
    case kPm1Cnt:
      state_.pm1_control = merge(state_.pm1_control, value, lanes) & kControlBits;
      return (value & lanes & kSlpEn) != 0;
    default: return false;
  }
}

uint64_t AcpiPm::read_gpe(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  uint64_t value = 0;
  const unsigned half = gpe_events_ / 8;
  for (unsigned i = 0; i < size; ++i) {
    const uint64_t at = offset + i;
    const uint64_t byte = at < half ? state_.gpe_status >> (8 * at) : state_.gpe_enable >> (8 * (at - half));
    value |= (byte & 0xff) << (8 * i);
  }
  return value;
}

void AcpiPm::write_gpe(uint64_t offset, unsigned size, uint64_t value) {
  const std::lock_guard lock(lock_);
  const unsigned half = gpe_events_ / 8;
  for (unsigned i = 0; i < size; ++i) {
    const uint64_t at = offset + i, byte = (value >> (8 * i)) & 0xff;
    if (at < half) {
      state_.gpe_status &= ~(byte << (8 * at));  // [ACPI 6.4] 4.8.4.1.1: a 1 clears
    } else {
      const uint64_t shift = 8 * (at - half);
      state_.gpe_enable = (state_.gpe_enable & ~(uint64_t{0xff} << shift)) | byte << shift;
    }
  }
  update();
}

AcpiPm::State AcpiPm::snapshot() {
  const std::lock_guard lock(lock_);
  catch_up();
  return state_;
}

bool AcpiPm::possible(StateReader& reader, const State& state) const {
  const uint64_t events = low_mask(gpe_events_);
  return require(reader, (state.pm1_status & ~kStatusBits) == 0, "the PM1 status has unknown bits") &&
         require(reader, (state.pm1_enable & ~kEnableBits) == 0, "the PM1 enables have unknown bits") &&
         require(reader, (state.pm1_control & ~kControlBits) == 0, "the PM1 control has unknown bits") &&
         require(reader, state.overflow_tick >= 0 && state.overflow_tick % kTimerHalfPeriod == 0,
                 "the timer's overflow lies between two changes of its bit 23") &&
         require(reader, ((state.gpe_status | state.gpe_enable) & ~events) == 0, "there are not so many events");
}

void AcpiPm::restore(const State& state) {
  const std::lock_guard lock(lock_);
  state_ = state;
  update();
}

}  // namespace kite::devices

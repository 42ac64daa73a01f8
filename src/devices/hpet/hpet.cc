#include "devices/hpet/hpet.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "devices/hpet/hpet_regs.h"
#include "devices/section.h"
#include "support/log.h"

namespace kite::devices {
namespace {

constexpr uint64_t kRegionSize = 0x400;
constexpr uint64_t kFemtosecondsPerTick = 1'000'000'000'000'000 / Hpet::kHz;
// [HPET] 2.3.4: period, vendor, legacy replacement, 64-bit counter, number of the last timer, revision.
constexpr uint64_t kCapabilities =
    kFemtosecondsPerTick << 32 | uint64_t{0x8086} << 16 | 1u << 15 | 1u << 13 | (Hpet::kTimers - 1) << 8 | 1;

// A periodic comparator is followed no faster than this many ticks, 20 us: nearer matches are shown as one.
constexpr uint64_t kShortestInterval = 2000;

// Where an interrupt can go: the IOAPIC's inputs by number, then these.
constexpr unsigned kLegacyIrq0 = 32;
constexpr unsigned kLegacyIrq8 = 33;
constexpr unsigned kNoLine = 63;

constexpr uint64_t kAllStatus = (1u << Hpet::kTimers) - 1;

struct HpetStateV1 {
  static constexpr uint32_t kVersion = 1;
  uint64_t config = 0, status = 0, counter = 0, since = 0;
  std::array<uint64_t, Hpet::kTimers> timer_config{}, comparator{}, period{}, fsb{}, not_before{};
  std::array<uint8_t, Hpet::kTimers> set_value{};
};

template <class Codec>
void visit(Codec& codec, HpetStateV1& s) {
  codec.field(1, s.config);
  codec.field(2, s.status);
  codec.field(3, s.counter);
  codec.field(4, s.since);
  codec.field(5, s.timer_config);
  codec.field(6, s.comparator);
  codec.field(7, s.period);
  codec.field(8, s.fsb);
  codec.field(9, s.set_value);
  codec.field(10, s.not_before);
}

constexpr unsigned route_of(uint64_t config) {
  return static_cast<unsigned>((config & hpet::kRouteMask) >> hpet::kRouteShift);
}

}  // namespace

Hpet::Hpet(std::string path, const HpetConfig& config, const Wiring& wiring, Clock& clock)
    : Device(std::move(path)), config_(config), wiring_(wiring), clock_(clock), timer_(clock, [this] {
        timer_fired();
      }) {
  region_ = Region::io("hpet", kRegionSize, *this, {.min_size = 1, .max_size = 8});
}

bool Hpet::enabled() const { return (state_.config & hpet::kEnable) != 0; }

// ---- Counting

// Ticks until the comparator matches: 1 to the width of the comparison. A comparator that has just been passed matches
// when the counter comes round again. [HPET] 2.3.9.2.1
uint64_t Hpet::distance(const TimerState& timer) const {
  if ((timer.config & hpet::k32Bit) != 0) {
    const auto left = static_cast<uint32_t>(timer.comparator - state_.counter);
    return left != 0 ? left : uint64_t{1} << 32;
  }
  const uint64_t left = timer.comparator - state_.counter;
  return left != 0 ? left : ~uint64_t{0};
}

void Hpet::sync(uint64_t now) {
  if (!enabled() || now <= state_.since) return;
  const uint64_t elapsed = now - state_.since;
  for (unsigned i = 0; i < kTimers; ++i) {
    const uint64_t left = distance(state_.timers[i]);
    if (elapsed >= left) expire(i, now, elapsed - left);
  }
  state_.counter += elapsed;
  state_.since = now;
}

void Hpet::expire(unsigned index, uint64_t now, uint64_t late) {
  TimerState& timer = state_.timers[index];
  if ((timer.config & hpet::kPeriodic) != 0 && timer.period != 0) {
    timer.comparator += (late / timer.period + 1) * timer.period;
    timer.not_before = now + kShortestInterval;
  }
  if ((timer.config & hpet::k32Bit) != 0) timer.comparator = static_cast<uint32_t>(timer.comparator);
  interrupt(index);
}

void Hpet::interrupt(unsigned index) {
  const TimerState& timer = state_.timers[index];
  if ((timer.config & hpet::kLevel) != 0) {
    state_.status |= uint64_t{1} << index;  // [HPET] 2.3.6: set whether or not the interrupt is enabled
    return drive_lines();
  }
  if ((timer.config & hpet::kInterrupt) == 0) return;
  if ((timer.config & hpet::kFsb) != 0 && wiring_.apic_bus != nullptr) {
    wiring_.apic_bus->send_msi(timer.fsb >> 32, static_cast<uint32_t>(timer.fsb));
    return;
  }
  wire(line_of(index)).pulse();
}

void Hpet::schedule(uint64_t now) {
  if (!enabled()) return timer_.disarm();
  std::optional<uint64_t> next;
  for (unsigned i = 0; i < kTimers; ++i) {
    const uint64_t left = distance(state_.timers[i]);
    if ((state_.timers[i].config & hpet::kInterrupt) == 0 || left > ~uint64_t{0} - now) continue;
    const uint64_t due = std::max(now + left, state_.timers[i].not_before);
    next = std::min(next.value_or(due), due);
  }
  if (!next) return timer_.disarm();
  timer_.arm_at(kRate.to_ns(*next));
}

void Hpet::timer_fired() {
  const std::lock_guard guard(lock_);
  if (stopped_) return;
  const uint64_t at = now();
  sync(at);
  schedule(at);
}

// ---- Lines

unsigned Hpet::line_of(unsigned index) const {
  // [HPET] 2.4.2: legacy replacement overrides the routing of timers 0 and 1.
  if ((state_.config & hpet::kLegacy) != 0 && index < 2) return index == 0 ? kLegacyIrq0 : kLegacyIrq8;
  const unsigned route = route_of(state_.timers[index].config);
  return (config_.routes >> route & 1) != 0 ? route : kNoLine;
}

bus::IrqLine Hpet::wire(unsigned line) const {
  if (line == kLegacyIrq0) return wiring_.legacy_irq0;
  if (line == kLegacyIrq8) return wiring_.legacy_irq8;
  if (line >= kLegacyIrq0 || wiring_.ioapic == nullptr) return {};
  return {*wiring_.ioapic, line};
}

bool Hpet::level_asserted(unsigned index) const {
  const uint64_t config = state_.timers[index].config;
  constexpr uint64_t kNeeded = hpet::kLevel | hpet::kInterrupt;
  return enabled() && (state_.status >> index & 1) != 0 && (config & (kNeeded | hpet::kFsb)) == kNeeded;
}

// Lines of level-triggered timers: down where they were, up where they are now.
void Hpet::drive_lines() {
  uint64_t wanted = 0;
  for (unsigned i = 0; i < kTimers; ++i)
    if (level_asserted(i)) wanted |= uint64_t{1} << line_of(i);
  for (unsigned line = 0; line < kNoLine; ++line)
    if (((wanted ^ raised_) >> line & 1) != 0) wire(line).set((wanted >> line & 1) != 0);
  raised_ = wanted;
}

// ---- Registers

uint64_t Hpet::timer_capabilities() const {
  return uint64_t{config_.routes} << 32 | hpet::kPeriodicCapable | hpet::k64BitCapable |
         (wiring_.apic_bus != nullptr ? hpet::kFsbCapable : 0);
}

uint64_t Hpet::read_register(uint64_t offset) const {
  switch (offset) {
    case hpet::CAPABILITIES: return kCapabilities;
    case hpet::CONFIG: return state_.config;
    case hpet::STATUS: return state_.status;
    case hpet::COUNTER: return state_.counter;
    default: break;
  }
  const uint64_t index = (offset - hpet::TIMERS) / hpet::kTimerStride;
  if (offset < hpet::TIMERS || index >= kTimers) return 0;
  const TimerState& timer = state_.timers[index];
  switch ((offset - hpet::TIMERS) % hpet::kTimerStride) {
    case hpet::TIMER_CONFIG: return timer.config | timer_capabilities();
    case hpet::TIMER_COMPARATOR: return timer.comparator;
    case hpet::TIMER_FSB: return timer.fsb;
    default: return 0;
  }
}

// `mask` names the bits that are written; the others keep their value where that means anything.
void Hpet::write_register(uint64_t offset, uint64_t value, uint64_t mask) {
  switch (offset) {
    case hpet::CONFIG: return write_config((state_.config & ~mask) | (value & mask));
    case hpet::STATUS: state_.status &= ~(value & mask); return;
    case hpet::COUNTER:
      // [HPET] 2.3.7: written only while halted.
      if (enabled()) return log::guest_error("{}: the counter was written while it runs", path());
      state_.counter = (state_.counter & ~mask) | (value & mask);
      return;
    default: break;
  }
  const uint64_t index = (offset - hpet::TIMERS) / hpet::kTimerStride;
  if (offset < hpet::TIMERS || index >= kTimers) return;
  write_timer(static_cast<unsigned>(index), (offset - hpet::TIMERS) % hpet::kTimerStride, value, mask);
}

void Hpet::write_config(uint64_t value) {
  const uint64_t old = state_.config;
  state_.config = value & (hpet::kEnable | hpet::kLegacy);
  if ((old & hpet::kEnable) == 0 && enabled()) state_.since = now();
  if (((old ^ state_.config) & hpet::kLegacy) != 0 && wiring_.legacy != nullptr)
    wiring_.legacy->set_legacy_replacement((state_.config & hpet::kLegacy) != 0);
}

void Hpet::write_timer(unsigned index, uint64_t offset, uint64_t value, uint64_t mask) {
  TimerState& timer = state_.timers[index];
  timer.not_before = 0;
  const auto merged = [&](uint64_t old) { return (old & ~mask) | (value & mask); };
  switch (offset) {
    case hpet::TIMER_CONFIG: return write_timer_config(timer, merged(timer.config));
    case hpet::TIMER_COMPARATOR: {
      // [HPET] 2.3.9.2.2: in periodic mode a write sets the period, and the comparator only after "set value".
      const bool periodic = (timer.config & hpet::kPeriodic) != 0;
      const uint64_t width = (timer.config & hpet::k32Bit) != 0 ? 0xffffffff : ~uint64_t{0};
      if (!periodic || timer.set_value) timer.comparator = merged(timer.comparator) & width;
      if (periodic) timer.period = merged(timer.period) & width;
      timer.set_value = false;
      return;
    }
    case hpet::TIMER_FSB: timer.fsb = merged(timer.fsb); return;
    default: return;
  }
}

void Hpet::write_timer_config(TimerState& timer, uint64_t value) {
  const uint64_t old_route = timer.config & hpet::kRouteMask;
  timer.set_value = (value & hpet::kSetValue) != 0;
  timer.config = value & hpet::kTimerWritable;
  if (wiring_.apic_bus == nullptr) timer.config &= ~hpet::kFsb;
  // [HPET] 2.3.8: a route that is not offered does not stick.
  if ((config_.routes >> route_of(timer.config) & 1) == 0)
    timer.config = (timer.config & ~hpet::kRouteMask) | old_route;
  if ((timer.config & hpet::k32Bit) != 0) {
    timer.comparator = static_cast<uint32_t>(timer.comparator);
    timer.period = static_cast<uint32_t>(timer.period);
  }
}

uint64_t Hpet::io_read(uint64_t offset, unsigned size) {
  const std::lock_guard guard(lock_);
  sync(now());
  const uint64_t value = read_register(offset & ~uint64_t{7}) >> (offset & 7) * 8;
  return size == 8 ? value : value & ((uint64_t{1} << size * 8) - 1);
}

void Hpet::io_write(uint64_t offset, unsigned size, uint64_t value) {
  if (size < 4) return;  // [HPET] 2.3.2: 32 or 64 bits
  const std::lock_guard guard(lock_);
  const uint64_t at = now();
  sync(at);
  const bool high = (offset & 4) != 0;
  const uint64_t mask = size == 8 ? ~uint64_t{0} : high ? 0xffffffff'00000000 : 0xffffffff;
  write_register(offset & ~uint64_t{7}, high ? value << 32 : value, mask);
  drive_lines();
  schedule(at);
}

// ---- Lifecycle

void Hpet::reset() {
  const std::lock_guard guard(lock_);
  const bool legacy = (state_.config & hpet::kLegacy) != 0;
  state_ = {};
  timer_.disarm();
  drive_lines();
  if (legacy && wiring_.legacy != nullptr) wiring_.legacy->set_legacy_replacement(false);
}

void Hpet::start() {
  const std::lock_guard guard(lock_);
  stopped_ = false;
  const uint64_t at = now();
  sync(at);
  schedule(at);
}

void Hpet::stop() {
  const std::lock_guard guard(lock_);
  stopped_ = true;
}

void Hpet::save(StateWriter& writer) {
  const std::lock_guard guard(lock_);
  const auto& [config, status, counter, since, timers] = state_;
  HpetStateV1 wire{.config = config, .status = status, .counter = counter, .since = since};
  for (size_t i = 0; i < timers.size(); ++i) {
    const auto& [timer_config, comparator, period, fsb, set_value, not_before] = timers[i];
    wire.timer_config[i] = timer_config;
    wire.comparator[i] = comparator;
    wire.period[i] = period;
    wire.fsb[i] = fsb;
    wire.set_value[i] = set_value;
    wire.not_before[i] = not_before;
  }
  save_section(writer, path(), wire);
}

const char* Hpet::impossible(const State& s) const {
  if ((s.config & ~(hpet::kEnable | hpet::kLegacy)) != 0) return "the configuration has reserved bits";
  if ((s.status & ~kAllStatus) != 0) return "the status has reserved bits";
  for (const TimerState& timer : s.timers) {
    if ((timer.config & ~hpet::kTimerWritable) != 0) return "a timer's configuration has reserved bits";
    const unsigned route = route_of(timer.config);
    if (route != 0 && (config_.routes >> route & 1) == 0) return "a timer has a route that does not exist";
    if ((timer.config & hpet::kFsb) != 0 && wiring_.apic_bus == nullptr) return "there are no FSB interrupts here";
    if ((timer.config & hpet::k32Bit) != 0 && (timer.comparator > 0xffffffff || timer.period > 0xffffffff))
      return "a 32-bit timer has a longer comparator";
  }
  return nullptr;
}

void Hpet::restore(StateReader& reader) {
  HpetStateV1 wire;
  if (!restore_section(reader, path(), wire)) return;
  State state{.config = wire.config, .status = wire.status, .counter = wire.counter, .since = wire.since, .timers = {}};
  for (size_t i = 0; i < kTimers; ++i) {
    if (wire.set_value[i] > 1) return reader.reject(fmt::format("{}: a flag is neither 0 nor 1", path()));
    state.timers[i] = {wire.timer_config[i], wire.comparator[i],     wire.period[i],
                       wire.fsb[i],          wire.set_value[i] != 0, wire.not_before[i]};
  }
  if (const char* reason = impossible(state)) return reader.reject(fmt::format("{}: {}", path(), reason));
  const std::lock_guard guard(lock_);
  const bool legacy = (state.config & hpet::kLegacy) != 0;
  if (legacy != ((state_.config & hpet::kLegacy) != 0) && wiring_.legacy != nullptr)
    wiring_.legacy->set_legacy_replacement(legacy);
  state_ = state;
  drive_lines();
  schedule(now());
}

}  // namespace kite::devices

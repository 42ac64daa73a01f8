#include "devices/rtc/rtc.h"

#include <algorithm>
#include <utility>

#include "devices/rtc/rtc_calendar.h"
#include "devices/section.h"

namespace kite::devices {
namespace {

using rtc::Reg;

constexpr int64_t kNsPerSecond = 1'000'000'000;

// Register A
constexpr uint8_t kUip = 1u << 7;       // r- update in progress
constexpr uint8_t kDividerMask = 0x70;  // rw
// The three time bases, which all count seconds on a PC's crystal; 011-101 are test modes, 110 and 111 hold it in
// reset.
constexpr uint8_t kDividerLargest = 0x20;
constexpr uint8_t kRateMask = 0x0f;  // rw

// Register B
constexpr uint8_t kSet = 1u << 7;
constexpr uint8_t kPie = 1u << 6;
constexpr uint8_t kAie = 1u << 5;
constexpr uint8_t kUie = 1u << 4;
constexpr uint8_t kSqwe = 1u << 3;
constexpr uint8_t kBinary = 1u << 2;
constexpr uint8_t kHours24 = 1u << 1;

// Register C; the flags stand where their enables stand in B
constexpr uint8_t kIrqf = 1u << 7;
constexpr uint8_t kFlags = kPie | kAie | kUie;

// Register D
constexpr uint8_t kVrt = 1u << 7;  // the battery is good

constexpr uint8_t kResetA = 0x26;  // 32.768 kHz, 1024 Hz periodic rate
constexpr uint8_t kResetB = kHours24;
constexpr unsigned kBankSize = 128;
constexpr uint8_t kIndexMask = 0x7f;
constexpr uint8_t kNmiMask = 0x80;

// [MC146818] UIP is high 244 us (8 periods of 32.768 kHz) before an update. The update itself takes no time here.
constexpr int64_t kUipNs = 8 * kNsPerSecond / 32'768;
// [MC146818] the first update comes half a second after the divider was let go.
constexpr int64_t kFirstUpdateNs = kNsPerSecond / 2;

constexpr RtcFormat format_of(uint8_t b) { return {.binary = (b & kBinary) != 0, .hours24 = (b & kHours24) != 0}; }

// A minute of 1024 Hz: who is further behind, as after a pause, has other means.
constexpr uint32_t kMostMissed = 60 * 1024;
// How long after one replayed interrupt was seen to the next one comes.
constexpr int64_t kReplayNs = 100'000;

struct RtcStateV2 {
  static constexpr uint32_t kVersion = 2;
  std::array<uint8_t, 256> bytes{};
  uint8_t index = 0, extended_index = 0, flags = 0;
  int64_t next_update_ns = 0;
  uint64_t next_periodic = 0;
  uint32_t missed = 0;
};

template <class Codec>
void visit(Codec& codec, RtcStateV2& s) {
  codec.field(1, s.bytes);
  codec.field(2, s.index);
  codec.field(3, s.extended_index);
  codec.field(4, s.flags);
  codec.field(5, s.next_update_ns);
  codec.field(6, s.next_periodic);
  codec.field(7, s.missed);
}

}  // namespace

Rtc::Rtc(std::string path, const RtcConfig& config, bus::IrqLine irq, Clock& clock)
    : Device(std::move(path)), config_(config), irq_(irq), clock_(clock), timer_(clock, [this] { timer_fired(); }) {
  constexpr AccessRule kByteWide{.min_size = 1, .max_size = 1};
  region_ = Region::io("rtc", 2, window_, kByteWide);
  extended_region_ = Region::io("rtc-extended", 2, extended_window_, kByteWide);
  initialize_time(clock_.now());
}

void Rtc::initialize_time(int64_t now) {
  auto& bytes = state_.bytes;
  bytes[Reg::A] = kResetA;
  bytes[Reg::B] = kResetB;
  bytes[Reg::D] = kVrt;
  const int64_t shown = now + config_.offset_ns;
  const int64_t fraction = (shown % kNsPerSecond + kNsPerSecond) % kNsPerSecond;
  const int64_t seconds = (shown - fraction) / kNsPerSecond;
  rtc_encode(bytes, format_of(kResetB), seconds);
  bytes[Reg::DAY_OF_WEEK] = static_cast<uint8_t>(rtc_day_of_week(seconds));
  state_.next_update_ns = now + kNsPerSecond - fraction;
  state_.next_periodic = kCrystal.to_ticks(now) + period();
}

bool Rtc::divider_runs() const { return (state_.bytes[Reg::A] & kDividerMask) <= kDividerLargest; }

bool Rtc::updates() const { return divider_runs() && (state_.bytes[Reg::B] & kSet) == 0; }

bool Rtc::update_in_progress(int64_t now) const { return updates() && state_.next_update_ns - now <= kUipNs; }

uint64_t Rtc::period() const {
  const unsigned rate = state_.bytes[Reg::A] & kRateMask;
  if (rate == 0 || !divider_runs()) return 0;
  // [MC146818] table 5: with the 32.768 kHz time base rates 1 and 2 are those of 8 and 9.
  return uint64_t{1} << ((rate <= 2 ? rate + 7 : rate) - 1);
}

bool Rtc::irq_asserted() const { return (state_.flags & state_.bytes[Reg::B] & kFlags) != 0; }

// Brings flags and time up to `now`. Everything that looks at them calls it first.
void Rtc::sync(int64_t now) {
  sync_periodic(now);
  sync_updates(now);
}

void Rtc::sync_periodic(int64_t now) {
  const uint64_t length = period();
  const uint64_t tick = kCrystal.to_ticks(now);
  if (length == 0 || tick < state_.next_periodic) return;
  const uint64_t edges = (tick - state_.next_periodic) / length + 1;
  state_.next_periodic += edges * length;
  note_missed(edges);
  state_.flags |= kPie;
}

// An edge that finds the flag set, or comes together with another one, is an interrupt that the guest does not get.
void Rtc::note_missed(uint64_t edges) {
  if (!replays()) return;
  const uint64_t lost = (state_.flags & kPie) != 0 ? edges : edges - 1;
  state_.missed = static_cast<uint32_t>(std::min<uint64_t>(state_.missed + lost, kMostMissed));
}

bool Rtc::replays() const { return config_.replay_missed && (state_.bytes[Reg::B] & kPie) != 0; }

void Rtc::sync_updates(int64_t now) {
  if (!divider_runs() || now < state_.next_update_ns) return;
  const int64_t passed = (now - state_.next_update_ns) / kNsPerSecond + 1;
  state_.next_update_ns += passed * kNsPerSecond;
  if (!updates()) return;  // [MC146818] SET: the divider goes on, updates are inhibited
  const RtcFormat format = format_of(state_.bytes[Reg::B]);
  const std::span standard(state_.bytes.data(), kBankSize);
  const auto alarm = rtc_seconds_to_alarm(standard, format);
  state_.flags |= kUie;
  if (alarm && *alarm <= passed) state_.flags |= kAie;
  const int64_t before = rtc_decode(standard, format);
  const int64_t after = before + passed;
  rtc_encode(standard, format, after);
  // The day of the week counts midnights from wherever the guest has set it.
  const int64_t days = (after - after % 86'400) / 86'400 - (before - before % 86'400) / 86'400;
  const int64_t weekday = state_.bytes[Reg::DAY_OF_WEEK] + 6 + days % 7;
  if (days != 0) state_.bytes[Reg::DAY_OF_WEEK] = static_cast<uint8_t>(weekday % 7 + 1);
}

uint8_t Rtc::read_register(int64_t now, uint8_t index) {
  sync(now);
  uint8_t value = state_.bytes[index];
  switch (index) {
    case Reg::A: return static_cast<uint8_t>((value & ~kUip) | (update_in_progress(now) ? kUip : 0));
    case Reg::C:
      value = static_cast<uint8_t>(state_.flags | (irq_asserted() ? kIrqf : 0));
      state_.flags = 0;
      drive_irq();
      schedule();  // the next replayed interrupt, too
      return value;
    default: return value;
  }
}

void Rtc::write_register(int64_t now, uint8_t index, uint8_t value) {
  sync(now);
  switch (index) {
    case Reg::A: write_a(now, value); break;
    case Reg::B: write_b(value); break;
    case Reg::C:
    case Reg::D: return;
    default: state_.bytes[index] = value; break;
  }
  if (index >= Reg::C && index != Reg::CENTURY) return;
  drive_irq();
  schedule();
}

void Rtc::write_a(int64_t now, uint8_t value) {
  const bool ran = divider_runs();
  const uint64_t old_period = period();
  state_.bytes[Reg::A] = value & static_cast<uint8_t>(~kUip);
  if (!ran && divider_runs()) state_.next_update_ns = now + kFirstUpdateNs;
  const uint64_t new_period = period();
  if (new_period != old_period) state_.missed = 0;
  if (new_period == old_period || new_period == 0) return;
  // A new rate counts from the last edge of the old one.
  const uint64_t tick = kCrystal.to_ticks(now);
  const uint64_t last = old_period == 0 ? tick : state_.next_periodic - old_period;
  const uint64_t since = tick > last ? tick - last : 0;
  state_.next_periodic = last + (since / new_period + 1) * new_period;
}

void Rtc::write_b(uint8_t value) {
  const uint8_t old = state_.bytes[Reg::B];
  const RtcFormat before = format_of(old);
  const RtcFormat after = format_of(value);
  // A running clock shows its time in the new format. One that stands still keeps the bytes: the guest is about to
  // write them, or just has, in the format it chooses.
  if (updates() && before != after) {
    const std::span standard(state_.bytes.data(), kBankSize);
    rtc_encode(standard, after, rtc_decode(standard, before));
  }
  // [MC146818] SET going high clears UIE.
  if ((value & kSet) != 0 && (old & kSet) == 0) value &= static_cast<uint8_t>(~kUie);
  state_.bytes[Reg::B] = value;
  if (!replays()) state_.missed = 0;
}

void Rtc::drive_irq() { irq_.set(irq_asserted()); }

// When an enabled interrupt will assert the line; nothing while it is asserted, since only a read of C changes that.
std::optional<int64_t> Rtc::next_event() const {
  if (irq_asserted()) return std::nullopt;
  const uint8_t enabled = state_.bytes[Reg::B];
  int64_t next = Clock::kNever;
  if ((enabled & kPie) != 0 && period() != 0) next = kCrystal.to_ns(state_.next_periodic);
  if (state_.missed != 0) next = std::min(next, clock_.now() + kReplayNs);
  if (updates() && (enabled & kUie) != 0) next = std::min(next, state_.next_update_ns);
  if (updates() && (enabled & kAie) != 0) {
    const auto alarm = rtc_seconds_to_alarm(std::span(state_.bytes.data(), kBankSize), format_of(enabled));
    if (alarm) next = std::min(next, state_.next_update_ns + (*alarm - 1) * kNsPerSecond);
  }
  return next != Clock::kNever ? std::optional(next) : std::nullopt;
}

void Rtc::schedule() {
  if (const auto next = next_event()) {
    timer_.arm_at(*next);
  } else {
    timer_.disarm();
  }
}

void Rtc::timer_fired() {
  const std::lock_guard guard(lock_);
  if (stopped_) return;
  const int64_t now = clock_.now();
  sync(now);
  if (state_.missed != 0 && (state_.flags & kPie) == 0) {
    --state_.missed;
    state_.flags |= kPie;
  }
  drive_irq();
  schedule();
}

uint64_t Rtc::read_ports(uint64_t offset, unsigned) {
  if (offset == 0) return 0xff;  // the index register cannot be read
  const std::lock_guard guard(lock_);
  return read_register(clock_.now(), state_.index & kIndexMask);
}

void Rtc::write_ports(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard guard(lock_);
  if (offset == 0) {
    state_.index = static_cast<uint8_t>(value);
  } else {
    write_register(clock_.now(), state_.index & kIndexMask, static_cast<uint8_t>(value));
  }
}

uint64_t Rtc::read_extended(uint64_t offset, unsigned) {
  const std::lock_guard guard(lock_);
  return offset == 0 ? state_.extended_index : state_.bytes[kBankSize + state_.extended_index];
}

void Rtc::write_extended(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard guard(lock_);
  if (offset == 0) {
    state_.extended_index = static_cast<uint8_t>(value) & kIndexMask;
  } else {
    state_.bytes[kBankSize + state_.extended_index] = static_cast<uint8_t>(value);
  }
}

void Rtc::set_cmos(uint8_t index, uint8_t value) {
  if (index <= Reg::D || index == Reg::CENTURY) return;
  const std::lock_guard guard(lock_);
  state_.bytes[index] = value;
}

uint8_t Rtc::cmos(uint8_t index) {
  const std::lock_guard guard(lock_);
  sync(clock_.now());
  return state_.bytes[index];
}

bool Rtc::nmi_masked() {
  const std::lock_guard guard(lock_);
  return (state_.index & kNmiMask) != 0;
}

void Rtc::reset() {
  const std::lock_guard guard(lock_);
  const int64_t now = clock_.now();
  sync(now);
  // [MC146818] RESET clears the interrupt enables, the square wave and the flags, nothing else.
  state_.bytes[Reg::B] &= static_cast<uint8_t>(~(kFlags | kSqwe));
  state_.flags = 0;
  state_.missed = 0;
  state_.index = 0;
  state_.extended_index = 0;
  drive_irq();
  schedule();
}

void Rtc::start() {
  const std::lock_guard guard(lock_);
  stopped_ = false;
  schedule();
}

void Rtc::stop() {
  const std::lock_guard guard(lock_);
  stopped_ = true;
}

void Rtc::save(StateWriter& writer) {
  const std::lock_guard guard(lock_);
  const auto& [bytes, index, extended_index, flags, next_update_ns, next_periodic, missed] = state_;
  RtcStateV2 wire{bytes, index, extended_index, flags, next_update_ns, next_periodic, missed};
  save_section(writer, path(), wire);
}

void Rtc::restore(StateReader& reader) {
  RtcStateV2 wire;
  if (!restore_section(reader, path(), wire)) return;
  const auto reject = [&](bool wrong, const char* reason) {
    if (wrong) reader.reject(fmt::format("{}: {}", path(), reason));
  };
  reject((wire.flags & ~kFlags) != 0, "register C has flags that do not exist");
  reject((wire.extended_index & ~kIndexMask) != 0, "the extended index is above 127");
  reject((wire.bytes[Reg::A] & kUip) != 0, "UIP is stored");
  reject(wire.bytes[Reg::C] != 0 || wire.bytes[Reg::D] != kVrt, "register C or D is stored");
  reject(wire.next_update_ns < 0 || wire.next_update_ns > Clock::kNever / 2, "the next update is out of any range");
  reject(wire.missed > (config_.replay_missed ? kMostMissed : 0), "more interrupts are to be replayed than can be");
  if (!reader.ok()) return;
  const std::lock_guard guard(lock_);
  state_ = {wire.bytes,          wire.index,         wire.extended_index, wire.flags,
            wire.next_update_ns, wire.next_periodic, wire.missed};
  drive_irq();
  schedule();
}

}  // namespace kite::devices

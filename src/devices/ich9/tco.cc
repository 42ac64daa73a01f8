#include "devices/ich9/tco.h"

#include "devices/ich9/tco_regs.h"
#include "devices/section.h"
#include "support/bits.h"

namespace kite::devices {

using namespace tco_regs;

namespace {

constexpr Tco::State kResetState{.control2 = kTco2CntReset, .sw_irq = kSwIrqGenReset, .initial = kTmrReset};
constexpr uint16_t kLeastInitial = 2;  // [ICH9] 13.9.11: 0 and 1 are ignored

uint8_t low(uint16_t value) { return static_cast<uint8_t>(value); }
uint8_t high(uint16_t value) { return static_cast<uint8_t>(value >> 8); }
// `value` with the byte at `offset` & 1 replaced.
uint16_t with_byte(uint16_t value, uint64_t offset, uint8_t byte) {
  return static_cast<uint16_t>((offset & 1) != 0 ? (value & 0x00ff) | byte << 8 : (value & 0xff00) | byte);
}
uint16_t lane(uint64_t offset, uint8_t byte) { return with_byte(0, offset, byte); }

}  // namespace

Tco::Tco(Wiring wiring)
    : wiring_(std::move(wiring)), state_(kResetState), timer_(wiring_.clock, [this] { timer_fired(); }) {}

void Tco::reset() {
  const std::lock_guard lock(lock_);
  state_ = kResetState;
  arm();
}

bool Tco::counting() const { return state_.loaded && (state_.control1 & kTmrHlt) == 0; }

uint16_t Tco::count() const {
  if (!counting()) return state_.left;
  const int64_t left = state_.deadline_ns - wiring_.clock.now();
  return left <= 0 ? uint16_t{0} : static_cast<uint16_t>((left + kTickNs - 1) / kTickNs);
}

void Tco::arm() {
  if (counting())
    timer_.arm_at(state_.deadline_ns);
  else
    timer_.disarm();
}

// [ICH9] 13.9.1: any write of TCO_RLD, and a count that reached 0, start over from TCO_TMR.
void Tco::reload() {
  state_.loaded = true;
  state_.left = state_.initial;
  state_.deadline_ns = wiring_.clock.now() + state_.initial * kTickNs;
  arm();
}

void Tco::timer_fired() {
  bool bark = false;
  {
    const std::lock_guard lock(lock_);
    if (!counting() || wiring_.clock.now() < state_.deadline_ns) return;
    state_.status1 |= kTimeout;
    if (++state_.timeouts > 1) {
      state_.timeouts = 0;
      state_.status2 |= kSecondToSts;
      bark = true;
    }
    reload();
  }
  wiring_.smi();
  if (bark) wiring_.bark();
}

uint8_t Tco::byte(uint64_t offset) const {
  switch (offset) {
    case kRld: return low(count());
    case kRld + 1: return high(count());
    case kDatIn: return state_.data_in;
    case kDatOut: return state_.data_out;
    case kTco1Sts: return low(state_.status1);
    case kTco1Sts + 1: return high(state_.status1);
    case kTco2Sts: return low(state_.status2);
    case kTco2Sts + 1: return high(state_.status2);
    case kTco1Cnt: return low(state_.control1);
    case kTco1Cnt + 1: return high(state_.control1);
    case kTco2Cnt: return low(state_.control2);
    case kTco2Cnt + 1: return high(state_.control2);
    case kMessage1: return state_.message1;
    case kMessage2: return state_.message2;
    case kWdcnt: return state_.watchdog;
    case kSwIrqGen: return state_.sw_irq;
    case kTmr: return low(state_.initial);
    case kTmr + 1: return high(state_.initial);
    default: return 0;
  }
}

uint64_t Tco::read(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= uint64_t{byte(offset + i)} << (8 * i);
  return value;
}

void Tco::write(uint64_t offset, unsigned size, uint64_t value) {
  bool smi = false;
  {
    const std::lock_guard lock(lock_);
    // The two registers whose writes act as a whole.
    if (offset == kTmr && size >= 2) {
      write_initial(static_cast<uint16_t>(value));
    } else if (offset == kTco1Cnt && size == 2) {
      write_control1(static_cast<uint16_t>(value));
    } else {
      for (unsigned i = 0; i < size; ++i)
        smi |= write_byte(offset + i, static_cast<uint8_t>(value >> (8 * i))) == Ask::kSmi;
    }
  }
  if (smi) wiring_.smi();
}

void Tco::write_control1(uint16_t value) {
  const uint16_t left = count();
  const bool was_halted = (state_.control1 & kTmrHlt) != 0;
  state_.control1 = static_cast<uint16_t>((value & kTco1CntBits) | (state_.control1 & kLock));
  const bool halted = (state_.control1 & kTmrHlt) != 0;
  if (halted && !was_halted) state_.left = left;
  if (!halted && was_halted) {
    if (!state_.loaded || left == 0) return reload();
    state_.deadline_ns = wiring_.clock.now() + left * kTickNs;
  }
  arm();
}

void Tco::write_initial(uint16_t value) {
  if ((value & kCountMask) >= kLeastInitial) state_.initial = value & kCountMask;
}

Tco::Ask Tco::write_byte(uint64_t offset, uint8_t value) {
  switch (offset) {
    case kRld:
    case kRld + 1:
      state_.timeouts = 0;
      reload();
      break;
    case kDatIn:
      state_.data_in = value;
      state_.status1 |= kSwTcoSmi;
      return Ask::kSmi;
    case kDatOut:
      state_.data_out = value;
      state_.status1 |= kTcoIntSts;
      break;
    case kTco1Sts:
    case kTco1Sts + 1: state_.status1 &= static_cast<uint16_t>(~lane(offset, value)); break;
    case kTco2Sts:
    case kTco2Sts + 1: state_.status2 &= static_cast<uint16_t>(~lane(offset, value)); break;
    case kTco1Cnt:
    case kTco1Cnt + 1: write_control1(with_byte(state_.control1, offset, value)); break;
    case kTco2Cnt:
    case kTco2Cnt + 1: state_.control2 = with_byte(state_.control2, offset, value) & kTco2CntBits; break;
    case kMessage1: state_.message1 = value; break;
    case kMessage2: state_.message2 = value; break;
    case kWdcnt: state_.watchdog = value; break;
    case kSwIrqGen: state_.sw_irq = value & 0x03; break;
    case kTmr:
    case kTmr + 1: write_initial(with_byte(state_.initial, offset, value)); break;
    default: break;
  }
  return Ask::kNothing;
}

bool Tco::locked() {
  const std::lock_guard lock(lock_);
  return (state_.control1 & kLock) != 0;
}

Tco::State Tco::snapshot() {
  const std::lock_guard lock(lock_);
  return state_;
}

bool Tco::possible(StateReader& reader, const State& state) {
  constexpr int64_t kLatest = INT64_MAX / 2;
  return require(reader, (state.status1 & ~kTco1StsBits) == 0 && (state.status2 & ~kTco2StsBits) == 0,
                 "the TCO status has unknown bits") &&
         require(reader, (state.control1 & ~kTco1CntBits) == 0 && (state.control2 & ~kTco2CntBits) == 0,
                 "the TCO control has unknown bits") &&
         require(reader, state.initial >= kLeastInitial && state.initial <= kCountMask && state.left <= kCountMask,
                 "the TCO timer has 10 bits and counts from 2 at least") &&
         require(reader, state.sw_irq <= 0x03 && state.timeouts <= 1, "the TCO time-outs cannot be so many") &&
         require(reader, state.deadline_ns >= 0 && state.deadline_ns <= kLatest, "the TCO time-out is never reached");
}

void Tco::restore(const State& state) {
  const std::lock_guard lock(lock_);
  state_ = state;
  arm();
}

}  // namespace kite::devices

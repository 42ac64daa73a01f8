#include "devices/pit/pit_counter.h"

namespace kite::devices {
namespace {

constexpr uint32_t kBinaryModulus = 0x10000;
constexpr uint32_t kBcdModulus = 10'000;

// Digits above 9 count as what they are, as the chip's decimal counter would pass through them.
uint32_t from_bcd(uint16_t raw) {
  return (raw >> 12 & 0xfu) * 1000 + (raw >> 8 & 0xfu) * 100 + (raw >> 4 & 0xfu) * 10 + (raw & 0xfu);
}

uint16_t to_bcd(uint32_t value) {
  return static_cast<uint16_t>(value / 1000 % 10 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10);
}

// Mode 3: OUT is high for the longer half. [8254] mode 3, odd counts.
constexpr uint64_t high_half(uint32_t n) { return (uint64_t{n} + 1) / 2; }

}  // namespace

void PitCounter::write_control(uint8_t control) {
  const bool gate_level = gate;
  const unsigned field = control >> 1 & 7u;
  *this = {};
  gate = gate_level;
  mode = static_cast<uint8_t>(field > 5 ? field - 4 : field);
  bcd = (control & 1) != 0;
  access = static_cast<Access>(control >> 4 & 3);
}

void PitCounter::write_count(uint64_t now, uint8_t value) {
  switch (access) {
    case Access::kLow: return accept_count(now, value);
    case Access::kHigh: return accept_count(now, static_cast<uint16_t>(value << 8));
    case Access::kLowHigh: break;
  }
  if (write_high_next) {
    write_high_next = false;
    return accept_count(now, static_cast<uint16_t>(value << 8 | write_low));
  }
  write_low = value;
  write_high_next = true;
  // [8254] mode 0: the first byte stops the counting, and OUT goes low at once.
  if (mode == 0) {
    active = 0;
    counting = false;
  }
}

void PitCounter::accept_count(uint64_t now, uint16_t raw) {
  settle(now);
  const uint32_t value = bcd ? from_bcd(raw) : raw;
  reload = value != 0 ? value : bcd ? kBcdModulus : kBinaryModulus;
  if (mode == 1 || mode == 5) return;  // loaded by the next trigger
  if (!periodic() || active == 0) return load(now);
  if (!counting) {  // the gate holds it: it starts from the new count
    active = reload;
    return;
  }
  // [8254] modes 2 and 3: a new count waits for the end of the cycle, in mode 3 of the half-cycle.
  const uint64_t at = elapsed(now) % active;
  const uint64_t half = high_half(active);
  const uint64_t left = mode == 3 && at < half ? half - at : active - at;
  reload_waits = true;
  reload_at = (now > anchor ? now : anchor) + left;
}

// The count register goes to the counting element with the next pulse of CLK.
void PitCounter::load(uint64_t now) {
  active = reload;
  base = 0;
  anchor = now + 1;
  counting = gate || mode == 1 || mode == 5;
  reload_waits = false;
}

void PitCounter::settle(uint64_t now) {
  if (!reload_waits || now < reload_at) return;
  const bool low_half_follows = mode == 3 && elapsed(reload_at) % active == high_half(active);
  active = reload;
  anchor = reload_at;
  base = low_half_follows ? high_half(active) : 0;
  reload_waits = false;
}

void PitCounter::set_gate(uint64_t now, bool level) {
  if (level == gate) return;
  settle(now);
  gate = level;
  switch (mode) {
    case 0:
    case 4:  // level: counting goes on where it stopped
      base = elapsed(now);
      anchor = now;
      counting = gate && active != 0;
      break;
    case 1:
    case 5:  // trigger
      if (gate && reload != 0) load(now);
      break;
    default:  // low stops and sets OUT high, the rising edge starts a cycle
      if (active == 0) return;
      if (gate) return load(now);
      base = 0;
      counting = false;
      reload_waits = false;
      active = reload;
      break;
  }
}

bool PitCounter::out(uint64_t now) {
  settle(now);
  if (active == 0) return mode != 0;
  if (periodic() && !counting) return true;
  const uint64_t t = elapsed(now);
  switch (mode) {
    case 0: return t >= active;
    case 1: return now < anchor || t >= active;
    case 2: return active == 1 || t % active != active - 1;
    case 3: return t % active < high_half(active);
    default: return t != active;  // 4, 5: strobe
  }
}

std::optional<uint64_t> PitCounter::next_rise(uint64_t now) {
  settle(now);
  // [8254] a count of 1 is illegal in modes 2 and 3; OUT stays high.
  if (active == 0 || !counting || (periodic() && active == 1)) return std::nullopt;
  const uint64_t t = elapsed(now);
  const uint64_t from = now > anchor ? now : anchor;
  if (periodic()) {
    // A count that is waiting takes over at an edge of this cycle; after that settle() knows more.
    if (reload_waits && reload_at < from + (active - t % active)) {
      const uint64_t low = reload / 2;
      return reload_at + (low != 0 ? low : 1);
    }
    return from + (active - t % active);
  }
  const uint64_t at = mode == 4 || mode == 5 ? uint64_t{active} + 1 : active;
  if (t >= at) return std::nullopt;
  return from + (at - t);
}

std::optional<uint64_t> PitCounter::next_change(uint64_t now) {
  const auto rise = next_rise(now);
  if (mode != 3 || !rise) return rise;
  const uint64_t at = elapsed(now) % active;
  const uint64_t half = high_half(active);
  if (at >= half) return rise;
  return (now > anchor ? now : anchor) + (half - at);
}

uint16_t PitCounter::count(uint64_t now) {
  settle(now);
  const uint64_t modulus = bcd ? kBcdModulus : kBinaryModulus;
  uint64_t value = reload;
  if (active != 0) {
    const uint64_t t = elapsed(now);
    const uint64_t in_cycle = t % active;
    const uint64_t half = high_half(active);
    if (mode == 2) {
      value = active - in_cycle;
    } else if (mode == 3) {
      value = (active & ~1u) - 2 * (in_cycle < half ? in_cycle : in_cycle - half);
    } else {
      value = active + modulus - t % modulus;
    }
  }
  value %= modulus;
  return bcd ? to_bcd(static_cast<uint32_t>(value)) : static_cast<uint16_t>(value);
}

void PitCounter::latch_count(uint64_t now) {
  if (latched_bytes != 0) return;  // [8254] a second latch before the first was read is ignored
  latch = count(now);
  latched_bytes = access == Access::kLowHigh ? 2 : 1;
}

void PitCounter::latch_status(uint64_t now) {
  if (status_latched) return;
  const bool level = out(now);
  // [8254] null count: what was written last is not in the counting element yet.
  const bool null_count = reload_waits || active == 0 || active != reload || (counting && base == 0 && now < anchor);
  status = static_cast<uint8_t>((level ? 0x80 : 0) | (null_count ? 0x40 : 0) | static_cast<unsigned>(access) << 4 |
                                unsigned{mode} << 1 | (bcd ? 1 : 0));
  status_latched = true;
}

uint8_t PitCounter::read(uint64_t now) {
  if (status_latched) {
    status_latched = false;
    return status;
  }
  const uint16_t value = latched_bytes != 0 ? latch : count(now);
  bool high = access == Access::kHigh;
  if (access == Access::kLowHigh) {
    high = read_high_next;
    read_high_next = !read_high_next;
  }
  if (latched_bytes != 0) --latched_bytes;
  return static_cast<uint8_t>(high ? value >> 8 : value);
}

}  // namespace kite::devices

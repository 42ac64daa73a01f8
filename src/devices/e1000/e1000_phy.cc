#include "devices/e1000/e1000_phy.h"

#include <utility>

namespace kite::devices {

namespace {

// [IEEE 802.3] table 22-6; from 16 on they are Marvell's.
enum Number : uint32_t {
  kControl = 0,
  kStatus = 1,
  kIdHigh = 2,
  kIdLow = 3,
  kAdvertised = 4,
  kPartner = 5,
  kExpansion = 6,
  kNextPage = 7,
  kGigabitControl = 9,
  kGigabitStatus = 10,
  kExtendedStatus = 15,
  kSpecificControl = 16,
  kSpecificStatus = 17,
  kInterruptEnable = 18,
  kExtendedControl = 20,
  kPageSelect = 29,
  kPage = 30,
};

// Control. 22.2.4.1.
constexpr uint16_t kReset = 1u << 15, kLoop = 1u << 14, kSpeedLow = 1u << 13, kAutomatic = 1u << 12,
                   kPowerDown = 1u << 11, kRestart = 1u << 9, kDuplex = 1u << 8, kSpeedHigh = 1u << 6;
// Status. 22.2.4.2: all of 10 and 100 Mbit/s, extended status, preamble suppression, negotiation, extended registers.
constexpr uint16_t kAbilities = 0x7949, kNegotiated = 1u << 5, kLinked = 1u << 2;
constexpr uint16_t kPartnerAbilities = 0x01e0, kAcknowledged = 1u << 14;
constexpr uint16_t kPartnerGigabit = 0x3c00;                                            // both receivers are good
constexpr uint16_t kResolved = 1u << 11, kRealLink = 1u << 10, kRealDuplex = 1u << 13;  // of the specific status
constexpr unsigned kRealSpeedShift = 14;

struct Reset {
  uint32_t number;
  uint16_t value, writable;
};
constexpr Reset kResets[] = {
    {kControl, 0x1140, 0x7dc0},         {kAdvertised, 0x0de1, 0xffff},      {kNextPage, 0, 0xffff},
    {kGigabitControl, 0x0e00, 0xff00},  {kSpecificControl, 0x0360, 0xffff}, {kInterruptEnable, 0, 0xffff},
    {kExtendedControl, 0x0d60, 0xffff}, {kPageSelect, 0, 0xffff},           {kPage, 0, 0xffff},
};

}  // namespace

void E1000Phy::reset(bool cable) {
  state_ = State{.cable = cable};
  for (const Reset& reset : kResets) state_.registers[reset.number] = reset.value;
  state_.negotiated = cable;
  state_.lost = !cable;
  started_ = false;
}

void E1000Phy::soft_reset() {
  state_.registers = {};
  for (const Reset& reset : kResets) state_.registers[reset.number] = reset.value;
  negotiate();
}

bool E1000Phy::automatic() const { return (state_.registers[kControl] & kAutomatic) != 0; }
bool E1000Phy::loops() const { return (state_.registers[kControl] & kLoop) != 0; }

bool E1000Phy::link() const {
  if (!state_.cable || (state_.registers[kControl] & kPowerDown) != 0) return false;
  return automatic() ? state_.negotiated : true;
}

// What is forced counts while nothing is negotiated. 22.2.4.1.3, 22.2.4.1.8.
bool E1000Phy::full_duplex() const { return automatic() || (state_.registers[kControl] & kDuplex) != 0; }

uint32_t E1000Phy::speed() const {
  const uint16_t control = state_.registers[kControl];
  if (automatic() || (control & kSpeedHigh) != 0) return 2;
  return (control & kSpeedLow) != 0 ? 1 : 0;
}

void E1000Phy::negotiate() {
  state_.negotiated = state_.negotiating = false;
  state_.lost = state_.lost || !link();
  if (!automatic() || !state_.cable) return;
  state_.negotiating = started_ = true;
}

bool E1000Phy::take_start() { return std::exchange(started_, false); }

void E1000Phy::end_negotiation() {
  if (!std::exchange(state_.negotiating, false)) return;
  state_.negotiated = true;
}

void E1000Phy::set_cable(bool cable) {
  if (std::exchange(state_.cable, cable) != cable) negotiate();
}

uint16_t E1000Phy::read(uint32_t number) {
  const bool up = link();
  switch (number) {
    case kStatus: {
      // 22.2.4.2.13: a link that was down shows once, even if it is back.
      const bool shown = up && !std::exchange(state_.lost, !up);
      return static_cast<uint16_t>(kAbilities | (shown ? kLinked : 0) | (state_.negotiated ? kNegotiated : 0));
    }
    case kIdHigh: return 0x0141;
    case kIdLow: return 0x0c20;
    case kPartner: return state_.negotiated ? kPartnerAbilities | kAcknowledged : 0;
    case kExpansion: return state_.negotiated ? 1 : 0;  // 28.2.4.1.5: the partner negotiates, too
    case kGigabitStatus: return state_.negotiated ? kPartnerGigabit : 0;
    case kExtendedStatus: return 0x3000;  // 1000BASE-T, both duplexes
    case kSpecificStatus:
      return static_cast<uint16_t>(speed() << kRealSpeedShift | (full_duplex() ? kRealDuplex : 0) |
                                   (state_.negotiating ? 0 : kResolved) | (up ? kRealLink : 0));
    default: return number < kRegisters ? state_.registers[number] : uint16_t{0};
  }
}

void E1000Phy::write(uint32_t number, uint16_t value) {
  for (const Reset& reset : kResets) {
    if (reset.number != number) continue;
    if (number == kControl && (value & kReset) != 0) return soft_reset();
    const uint16_t before = state_.registers[number];
    state_.registers[number] = value & reset.writable;
    if (number != kControl) continue;
    const bool woken = (before & kPowerDown) != 0 && (value & kPowerDown) == 0;
    const bool turned_on = ((before ^ value) & kAutomatic) != 0;
    if ((value & kRestart) != 0 || woken || turned_on) negotiate();
    state_.lost = state_.lost || !link();
  }
}

}  // namespace kite::devices

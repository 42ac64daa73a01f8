#include "devices/i8042/ps2_keyboard.h"

#include "devices/i8042/i8042_regs.h"

namespace kite::devices {

using i8042_regs::kAck;
using i8042_regs::kBatPassed;
using i8042_regs::kResend;

namespace {

// [PS2KBD] "Commands from the system".
enum Command : uint8_t {
  kSetLeds = 0xed,  // one data byte
  kEcho = 0xee,
  kSelectScanSet = 0xf0,  // one data byte
  kReadId = 0xf2,
  kSetTypematic = 0xf3,  // one data byte
  kEnable = 0xf4,
  kDefaultDisable = 0xf5,
  kSetDefault = 0xf6,
  kSetAllFirst = 0xf7,  // 0xf7-0xfa: key types of set 3 for all keys
  kSetAllLast = 0xfa,
  kSetKeyFirst = 0xfb,  // 0xfb-0xfd: key types of set 3 for one key: one data byte
  kSetKeyLast = 0xfd,
  kSendAgain = 0xfe,
  kReset = 0xff,
};
constexpr uint8_t kFirstCommand = kSetLeds;
constexpr uint8_t kIdFirst = 0xab, kIdSecond = 0x83;
constexpr uint8_t kLedBits = 0x07;
constexpr uint8_t kTypematicBits = 0x7f;

bool takes_argument(uint8_t command) {
  return command == kSetLeds || command == kSelectScanSet || command == kSetTypematic ||
         (command >= kSetKeyFirst && command <= kSetKeyLast);
}

}  // namespace

void Ps2Keyboard::write(uint8_t value) {
  const uint8_t pending = state_.pending;
  state_.pending = 0;
  // [PS2KBD] A command where a data byte was due takes its place.
  if (pending != 0 && value < kFirstCommand) {
    argument(pending, value);
  } else {
    command(value);
  }
}

void Ps2Keyboard::command(uint8_t value) {
  if (takes_argument(value)) {
    state_.pending = value;
    state_.replies.push({kAck});
    return;
  }
  switch (value) {
    case kEcho: state_.replies.push({kEcho}); break;
    case kReadId: state_.replies.push({kAck, kIdFirst, kIdSecond}); break;
    case kEnable:
      state_.scans.clear();
      state_.scanning = true;
      state_.replies.push({kAck});
      break;
    case kDefaultDisable:
      set_defaults();
      state_.scanning = false;
      state_.replies.push({kAck});
      break;
    case kSetDefault:
      set_defaults();
      state_.replies.push({kAck});
      break;
    case kSendAgain: state_.replies.push({state_.last_sent}); break;
    case kReset:
      reset();
      state_.replies.push({kAck, kBatPassed});
      break;
    default:
      // Every key of set 3 makes and breaks here, so the types are accepted and change nothing.
      state_.replies.push({value >= kSetAllFirst && value <= kSetAllLast ? kAck : kResend});
      break;
  }
}

void Ps2Keyboard::argument(uint8_t command, uint8_t value) {
  switch (command) {
    case kSetLeds: state_.leds = value & kLedBits; break;
    case kSetTypematic: state_.typematic = value & kTypematicBits; break;
    case kSelectScanSet:
      if (value > 3) {
        state_.replies.push({kResend});
        return;
      }
      if (value == 0) {
        state_.replies.push({kAck, state_.scan_set});
        return;
      }
      state_.scan_set = value;
      state_.scans.clear();
      break;
    default: break;
  }
  state_.replies.push({kAck});
}

void Ps2Keyboard::set_defaults() {
  const State defaults;
  state_.scans.clear();
  state_.scan_set = defaults.scan_set;
  state_.typematic = defaults.typematic;
}

uint8_t Ps2Keyboard::read() {
  const uint8_t value = state_.replies.empty() ? state_.scans.pop() : state_.replies.pop();
  state_.last_sent = value;
  return value;
}

bool Ps2Keyboard::key_event(Key key, bool down) {
  if (!state_.scanning) return false;
  const ScanSequence sequence = scan_sequence(key, down, state_.scan_set);
  return sequence.count > 0 && state_.scans.push(sequence.span());
}

bool Ps2Keyboard::possible(const State& state) {
  return state.replies.possible() && state.scans.possible() && (state.pending == 0 || takes_argument(state.pending)) &&
         state.scan_set >= 1 && state.scan_set <= 3 && (state.leds & ~kLedBits) == 0 &&
         (state.typematic & ~kTypematicBits) == 0;
}

}  // namespace kite::devices

#include "devices/i8042/i8042.h"

#include "devices/i8042/i8042_saved.h"
#include "devices/section.h"
#include "support/log.h"

namespace kite::devices {

using namespace i8042_regs;

namespace {

constexpr uint8_t kBreakPrefix = 0xf0;
constexpr uint8_t kBreakBit = 0x80;
constexpr uint8_t kInputPort = 0x80;  // [8042] "Input port": bit 7, the keyboard is not locked
constexpr uint8_t kStoredStatus = kObf | kSysFlag | kLastWasCommand | kAuxObf;
constexpr uint8_t kStoredOutputPort = static_cast<uint8_t>(~(kOutKeyboardObf | kOutAuxObf));
constexpr uint8_t kRamMask = 0x1f;

uint8_t without(uint8_t value, uint8_t bits) { return static_cast<uint8_t>(value & ~bits); }

bool takes_data(uint8_t command) {
  return (command >= kWriteRam && command <= kWriteRam + kRamMask) ||
         (command >= kWriteOutputPort && command <= kWriteAux);
}

}  // namespace

I8042::I8042(std::string path, Wiring wiring)
    : Device(std::move(path)),
      wiring_(std::move(wiring)),
      data_port_(*this, &I8042::read_data, &I8042::write_data),
      command_port_(*this, &I8042::read_status, &I8042::write_command),
      data_region_(Region::io("i8042-data", 1, data_port_, {.min_size = 1, .max_size = 1})),
      command_region_(Region::io("i8042-command", 1, command_port_, {.min_size = 1, .max_size = 1})) {
  set_reset_values();
}

I8042::~I8042() = default;

// As firmware leaves the controller, for machines that run none: self test passed, keyboard interrupt and translation
// on.
void I8042::set_reset_values() {
  state_ = State{};
  command_byte() = kCcbTranslate | kCcbSysFlag | kCcbKeyboardIrq;
  state_.status = kSysFlag;
  state_.output_port = kOutNotReset | kOutA20;
  keyboard_.reset();
  mouse_.reset();
}

void I8042::reset() {
  const std::lock_guard lock(lock_);
  set_reset_values();
  drive_lines();
}

uint64_t I8042::read_status(uint64_t, unsigned) {
  const std::lock_guard lock(lock_);
  return state_.status | kUnlocked;
}

uint64_t I8042::read_data(uint64_t, unsigned) {
  const std::lock_guard lock(lock_);
  const uint8_t value = state_.output;
  state_.status = without(state_.status, kObf | kAuxObf);
  drive_lines();  // the line falls between two bytes: each is an edge
  fill();
  return value;
}

void I8042::write_data(uint64_t, unsigned, uint64_t value) {
  bool reset = false;
  {
    const std::lock_guard lock(lock_);
    state_.status = without(state_.status, kLastWasCommand);
    const uint8_t command = state_.pending;
    state_.pending = 0;
    const auto byte = static_cast<uint8_t>(value);
    if (command != 0) {
      reset = finish_command(command, byte);
    } else {
      command_byte() = without(command_byte(), kCcbKeyboardOff);  // [8042] sending turns the interface on
      keyboard_.write(byte);
    }
    fill();
    drive_lines();
  }
  if (reset) wiring_.reset();
}

void I8042::write_command(uint64_t, unsigned, uint64_t value) {
  bool reset = false;
  {
    const std::lock_guard lock(lock_);
    state_.status |= kLastWasCommand;
    state_.pending = 0;
    reset = run_command(static_cast<uint8_t>(value));
    fill();
    drive_lines();
  }
  if (reset) wiring_.reset();
}

bool I8042::run_command(uint8_t command) {
  if (takes_data(command)) {
    state_.pending = command;
    return false;
  }
  if (command >= kPulse) return (command & kOutNotReset) == 0;
  if (command >= kReadRam && command <= kReadRam + kRamMask) {
    state_.answers.push({state_.ram[command & kRamMask]});
    return false;
  }
  switch (command) {
    case kAuxDisable: command_byte() |= kCcbAuxOff; break;
    case kAuxEnable: command_byte() = without(command_byte(), kCcbAuxOff); break;
    case kAuxTest:
    case kKeyboardTest: state_.answers.push({kPortTestPassed}); break;
    case kSelfTest:
      state_.status |= kSysFlag;
      state_.answers.push({kSelfTestPassed});
      break;
    case kKeyboardDisable: command_byte() |= kCcbKeyboardOff; break;
    case kKeyboardEnable: command_byte() = without(command_byte(), kCcbKeyboardOff); break;
    case kReadInputPort: state_.answers.push({kInputPort}); break;
    case kReadOutputPort: state_.answers.push({output_port()}); break;
    case kDisableA20: state_.output_port = without(state_.output_port, kOutA20); break;
    case kEnableA20: state_.output_port |= kOutA20; break;
    case kReadTestInputs: state_.answers.push({0}); break;
    default: log::guest_error("{}: unknown command {:#x}", path(), command); break;
  }
  return false;
}

bool I8042::finish_command(uint8_t command, uint8_t value) {
  switch (command) {
    case kWriteRam:
      command_byte() = value & kCcbBits;
      state_.status = static_cast<uint8_t>(without(state_.status, kSysFlag) | (value & kCcbSysFlag));
      return false;
    case kWriteOutputPort: state_.output_port = value & kStoredOutputPort; return (value & kOutNotReset) == 0;
    case kWriteKeyboardBuffer: put(value, kNoFlags); return false;
    case kWriteAuxBuffer: put(value, kAuxObf); return false;
    case kWriteAux:
      command_byte() = without(command_byte(), kCcbAuxOff);
      mouse_.write(value);
      return false;
    default: state_.ram[command & kRamMask] = value; return false;
  }
}

// [8042] "Output port": bits 5:4 show the two interrupts.
uint8_t I8042::output_port() const {
  unsigned value = state_.output_port;
  if ((state_.status & kObf) != 0) value |= (state_.status & kAuxObf) != 0 ? kOutAuxObf : kOutKeyboardObf;
  return static_cast<uint8_t>(value);
}

void I8042::put(uint8_t value, uint8_t flags) {
  state_.output = value;
  state_.status = static_cast<uint8_t>(without(state_.status, kAuxObf) | kObf | flags);
}

// The next byte for the guest, if there is room: the controller's answers, then the keyboard, then the mouse.
void I8042::fill() {
  if ((state_.status & kObf) != 0) return;
  if (!state_.answers.empty()) {
    put(state_.answers.pop(), kNoFlags);
  } else if ((command_byte() & kCcbKeyboardOff) != 0 || !fill_from_keyboard()) {
    if ((command_byte() & kCcbAuxOff) == 0 && mouse_.has_output()) put(mouse_.read(), kAuxObf);
  }
  drive_lines();
}

bool I8042::fill_from_keyboard() {
  const bool translate = (command_byte() & kCcbTranslate) != 0;
  while (keyboard_.has_output()) {
    const uint8_t code = keyboard_.read();
    if (!translate) {
      put(code, kNoFlags);
      return true;
    }
    // [8042] "Scan code translation": a break prefix becomes the top bit of the code after it.
    if (code == kBreakPrefix) {
      state_.break_prefix = true;
      continue;
    }
    put(static_cast<uint8_t>(translate_set2(code) | (state_.break_prefix ? kBreakBit : 0)), kNoFlags);
    state_.break_prefix = false;
    return true;
  }
  return false;
}

void I8042::drive_lines() {
  const bool full = (state_.status & kObf) != 0;
  const bool aux = (state_.status & kAuxObf) != 0;
  wiring_.keyboard_irq.set(full && !aux && (command_byte() & kCcbKeyboardIrq) != 0);
  wiring_.mouse_irq.set(full && aux && (command_byte() & kCcbAuxIrq) != 0);
}

bool I8042::key_event(Key key, bool down) {
  const std::lock_guard lock(lock_);
  const bool taken = keyboard_.key_event(key, down);
  fill();
  return taken;
}

void I8042::mouse_event(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons) {
  const std::lock_guard lock(lock_);
  mouse_.move(dx, dy, dz, buttons);
  fill();
}

uint8_t I8042::leds() {
  const std::lock_guard lock(lock_);
  return keyboard_.state().leds;
}

void I8042::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  const auto& [ram, output, status, output_port, pending, answers, break_prefix] = state_;
  save_section(writer, path(),
               I8042V1{.ram = ram,
                       .output = output,
                       .status = status,
                       .output_port = output_port,
                       .pending = pending,
                       .answers = to_wire(answers),
                       .break_prefix = break_prefix,
                       .keyboard = to_wire(keyboard_.state()),
                       .mouse = to_wire(mouse_.state())});
}

void I8042::restore(StateReader& reader) {
  I8042V1 wire{};
  if (!restore_section(reader, path(), wire)) return;
  const auto keyboard = from_wire(wire.keyboard);
  const auto mouse = from_wire(wire.mouse);
  const State state{.ram = wire.ram,
                    .output = wire.output,
                    .status = wire.status,
                    .output_port = wire.output_port,
                    .pending = wire.pending,
                    .answers = from_wire(wire.answers),
                    .break_prefix = wire.break_prefix != 0};
  if (!require(reader, wire.break_prefix <= 1 && state.answers.possible(), "the controller's queue is impossible") ||
      !require(reader, without(state.status, kStoredStatus) == 0, "the status has unknown bits") ||
      !require(reader, without(state.output_port, kStoredOutputPort) == 0, "the output port has unknown bits") ||
      !require(reader, without(state.ram[0], kCcbBits) == 0, "the command byte has unknown bits") ||
      !require(reader, state.pending == 0 || takes_data(state.pending), "a command waits for data it does not take") ||
      !require(reader, flags_possible(wire.keyboard) && Ps2Keyboard::possible(keyboard),
               "the keyboard is impossible") ||
      !require(reader, flags_possible(wire.mouse) && Ps2Mouse::possible(mouse), "the mouse is impossible"))
    return;
  const std::lock_guard lock(lock_);
  state_ = state;
  keyboard_.set_state(keyboard);
  mouse_.set_state(mouse);
  drive_lines();
}

}  // namespace kite::devices

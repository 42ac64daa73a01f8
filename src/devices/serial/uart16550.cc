#include "devices/serial/uart16550.h"

#include <algorithm>

namespace kite::devices {

using namespace uart_regs;

namespace {

constexpr uint8_t kByteErrors = kPe | kFe | kBi;
constexpr uint8_t kLines = kCts | kDsr | kRi | kDcd;
constexpr uint8_t kDeltas = kDcts | kDdsr | kTeri | kDdcd;
constexpr uint8_t kTriggers[] = {1, 4, 8, 14};  // [16550D] 8.5

uint8_t without(uint8_t value, uint8_t bits) { return static_cast<uint8_t>(value & ~bits); }

bool fifo_possible(const Uart16550::Fifo& fifo, size_t depth) {
  return fifo.count <= depth &&
         std::ranges::all_of(fifo.errors, [](uint8_t e) { return without(e, kByteErrors) == 0; });
}

}  // namespace

void Uart16550::Fifo::push(uint8_t byte, uint8_t error) {
  bytes[count] = byte;
  errors[count] = error;
  ++count;
}

void Uart16550::Fifo::pop(size_t n) {
  const size_t left = count - n;
  for (size_t i = 0; i < left; ++i) {
    bytes[i] = bytes[i + n];
    errors[i] = errors[i + n];
  }
  for (size_t i = left; i < count; ++i) bytes[i] = errors[i] = 0;
  count = static_cast<uint8_t>(left);
}

void Uart16550::reset() {
  state_ = State{};
  state_.msr = outside_lines_;
  ++transmit_epoch_;
}

uint8_t Uart16550::read(unsigned reg) {
  const bool dlab = (state_.lcr & kDlab) != 0;
  switch (reg) {
    case kRbr: return dlab ? static_cast<uint8_t>(state_.divisor) : read_rbr();
    case kIer: return dlab ? static_cast<uint8_t>(state_.divisor >> 8) : state_.ier;
    case kIir: return read_iir();
    case kLcr: return state_.lcr;
    case kMcr: return state_.mcr;
    case kLsr: return read_lsr();
    case kMsr: return read_msr();
    default: return state_.scr;
  }
}

void Uart16550::write(unsigned reg, uint8_t value) {
  const bool dlab = (state_.lcr & kDlab) != 0;
  switch (reg) {
    case kThr:
      if (dlab)
        state_.divisor = static_cast<uint16_t>((state_.divisor & 0xff00) | value);
      else
        write_thr(value);
      break;
    case kIer:
      if (dlab)
        state_.divisor = static_cast<uint16_t>((state_.divisor & 0x00ff) | value << 8);
      else
        write_ier(value);
      break;
    case kFcr: write_fcr(value); break;
    case kLcr: state_.lcr = value; break;
    case kMcr: write_mcr(value); break;
    case kScr: state_.scr = value; break;
    default: break;  // [16550D] 8.4, 8.9: LSR and MSR are for reading; writes are for factory tests
  }
}

size_t Uart16550::trigger_level() const { return fifos_on() ? kTriggers[state_.fcr >> kTriggerShift] : 1; }

// [16550D] 8.6, table V.
uint8_t Uart16550::iir() const {
  const bool line_error = state_.overrun || (state_.rx.count > 0 && state_.rx.errors[0] != 0);
  if ((state_.ier & kElsi) != 0 && line_error) return kIirLineStatus;
  if ((state_.ier & kErbfi) != 0) {
    if (state_.rx.count >= trigger_level()) return kIirData;
    if (state_.timeout_pending) return kIirTimeout;
  }
  if ((state_.ier & kEtbei) != 0 && state_.thre_pending) return kIirThrEmpty;
  if ((state_.ier & kEdssi) != 0 && (state_.msr & kDeltas) != 0) return kIirModemStatus;
  return kIirNone;
}

uint8_t Uart16550::lsr() const {
  unsigned status = state_.overrun ? kOe : 0;
  if (state_.rx.count > 0) status |= kDr | state_.rx.errors[0];
  if (state_.tx.count == 0) status |= kThre | kTemt;
  if (fifos_on() && std::ranges::any_of(state_.rx.errors, [](uint8_t error) { return error != 0; }))
    status |= kFifoError;
  return static_cast<uint8_t>(status);
}

uint8_t Uart16550::read_rbr() {
  if (state_.rx.count == 0) return state_.rbr;
  state_.rbr = state_.rx.bytes[0];
  state_.rx.pop(1);
  state_.timeout_pending = false;  // [16550D] 8.12: a read resets the timeout
  return state_.rbr;
}

uint8_t Uart16550::read_iir() {
  const uint8_t source = iir();
  if (source == kIirThrEmpty) state_.thre_pending = false;  // [16550D] table V: reading it as the source resets it
  return fifos_on() ? source | kIirFifos : source;
}

uint8_t Uart16550::read_lsr() {
  const uint8_t status = lsr();
  state_.overrun = false;
  state_.rx.errors[0] = 0;  // [16550D] 8.4: the error is revealed when its byte is on top, and reset by reading
  return status;
}

uint8_t Uart16550::read_msr() {
  const uint8_t status = state_.msr;
  state_.msr = without(status, kDeltas);
  return status;
}

void Uart16550::write_thr(uint8_t value) {
  if (loopback()) {
    arrive(value, 0);
    state_.thre_pending = true;
    return;
  }
  state_.thre_pending = false;
  if (state_.tx.count < depth()) {
    state_.tx.push(value, 0);
  } else if (!fifos_on()) {
    state_.tx.bytes[0] = value;  // the holding register has one place
  }
}

void Uart16550::write_ier(uint8_t value) {
  const bool newly_enabled = (value & kEtbei) != 0 && (state_.ier & kEtbei) == 0;
  state_.ier = value & kIerBits;
  if (newly_enabled && state_.tx.count == 0) state_.thre_pending = true;
}

// [16550D] 8.5: turning the FIFOs on or off clears them; the other bits count only when bit 0 is set.
void Uart16550::write_fcr(uint8_t value) {
  const bool on = (value & kFifoEnable) != 0;
  const bool changed = on != fifos_on();
  if (changed || (on && (value & kRxFifoReset) != 0)) {
    state_.rx.clear();
    state_.timeout_pending = false;
  }
  if (changed || (on && (value & kTxFifoReset) != 0)) clear_transmitter();
  state_.fcr = on ? value & kFcrKept : 0;
}

void Uart16550::clear_transmitter() {
  if (state_.tx.count > 0) state_.thre_pending = true;
  state_.tx.clear();
  ++transmit_epoch_;
}

void Uart16550::write_mcr(uint8_t value) {
  state_.mcr = value & kMcrBits;
  show_modem_lines();
}

// [16550D] 8.8: in loopback the four outputs drive the four inputs. [16550D] 8.9: changes leave a mark.
void Uart16550::show_modem_lines() {
  unsigned lines = outside_lines_;
  if (loopback()) {
    lines = 0;
    if ((state_.mcr & kRts) != 0) lines |= kCts;
    if ((state_.mcr & kDtr) != 0) lines |= kDsr;
    if ((state_.mcr & kOut1) != 0) lines |= kRi;
    if ((state_.mcr & kOut2) != 0) lines |= kDcd;
  }
  const unsigned before = state_.msr & kLines;
  const unsigned changed = lines ^ before;
  unsigned deltas = state_.msr & kDeltas;
  deltas |= (changed & (kCts | kDsr | kDcd)) >> 4;
  if ((changed & before & kRi) != 0) deltas |= kTeri;
  state_.msr = static_cast<uint8_t>(lines | deltas);
}

void Uart16550::set_modem_lines(uint8_t lines) {
  outside_lines_ = lines & kLines;
  show_modem_lines();
}

bool Uart16550::interrupt_connected() const {
  return interrupt() && (state_.mcr & kOut2) != 0 && !loopback();  // [16550D] 8.8: loopback parks the output pins
}

size_t Uart16550::receive_space() const {
  if (loopback()) return 0;
  return depth() - state_.rx.count;
}

void Uart16550::receive(std::span<const uint8_t> bytes) {
  if (loopback()) return;  // [16550D] 8.8: SIN is disconnected
  for (const uint8_t byte : bytes) arrive(byte, 0);
}

void Uart16550::receive_break() {
  if (!loopback()) arrive(0, kBi);  // [16550D] 8.4: one zero character enters the FIFO
}

// [16550D] 8.4: an overrun loses the newcomer when the FIFO is full, the holder when there is only RBR.
void Uart16550::arrive(uint8_t byte, uint8_t error) {
  if (state_.rx.count == depth()) {
    state_.overrun = true;
    if (fifos_on()) return;
    state_.rx.clear();
  }
  state_.rx.push(byte, error);
  state_.timeout_pending = false;
}

bool Uart16550::wants_timeout() const { return fifos_on() && state_.rx.count > 0 && !state_.timeout_pending; }

void Uart16550::character_timeout() {
  if (wants_timeout()) state_.timeout_pending = true;
}

int64_t Uart16550::character_ns() const {
  constexpr int64_t kNsPerSecond = 1'000'000'000;
  int64_t bits = 1 + 5 + (state_.lcr & kWordLength) + 1;
  if ((state_.lcr & kParity) != 0) ++bits;
  if ((state_.lcr & kStopBits) != 0) ++bits;
  return bits * std::max<int64_t>(state_.divisor, 1) * kNsPerSecond / kBaudBase;
}

void Uart16550::transmitted(size_t bytes) {
  if (state_.tx.count == 0) return;
  state_.tx.pop(std::min<size_t>(bytes, state_.tx.count));
  if (state_.tx.count == 0) state_.thre_pending = true;
}

bool Uart16550::set_state(const State& state) {
  const bool on = (state.fcr & kFifoEnable) != 0;
  const size_t room = on ? kFifoSize : 1;
  if (without(state.ier, kIerBits) != 0 || without(state.fcr, kFcrKept) != 0 || (!on && state.fcr != 0) ||
      without(state.mcr, kMcrBits) != 0 || !fifo_possible(state.rx, room) || !fifo_possible(state.tx, room) ||
      (state.timeout_pending && (!on || state.rx.count == 0)))
    return false;
  state_ = state;
  ++transmit_epoch_;
  return true;
}

}  // namespace kite::devices

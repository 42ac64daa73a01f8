#include "devices/serial/isa_serial.h"

#include <algorithm>

#include "devices/section.h"

namespace kite::devices {

using namespace uart_regs;

namespace {

constexpr int64_t kTimeoutCharacters = 4;  // [16550D] 8.12

struct IsaSerialV1 {
  static constexpr uint32_t kVersion = 1;
  uint16_t divisor;
  uint8_t ier, fcr, lcr, mcr, msr, scr, rbr, overrun, thre_pending, timeout_pending;
  std::array<uint8_t, kFifoSize> rx_bytes, rx_errors;
  uint8_t rx_count;
  std::array<uint8_t, kFifoSize> tx_bytes;
  uint8_t tx_count;
  int64_t timeout_at;
};
template <class Codec>
void visit(Codec& codec, IsaSerialV1& wire) {
  codec.field(1, wire.divisor);
  codec.field(2, wire.ier);
  codec.field(3, wire.fcr);
  codec.field(4, wire.lcr);
  codec.field(5, wire.mcr);
  codec.field(6, wire.msr);
  codec.field(7, wire.scr);
  codec.field(8, wire.rbr);
  codec.field(9, wire.overrun);
  codec.field(10, wire.thre_pending);
  codec.field(11, wire.timeout_pending);
  codec.field(12, wire.rx_bytes);
  codec.field(13, wire.rx_errors);
  codec.field(14, wire.rx_count);
  codec.field(15, wire.tx_bytes);
  codec.field(16, wire.tx_count);
  codec.field(17, wire.timeout_at);
}

IsaSerialV1 to_wire(const Uart16550::State& state, int64_t timeout_at) {
  const auto& [divisor, ier, fcr, lcr, mcr, msr, scr, rbr, overrun, thre_pending, timeout_pending, rx, tx] = state;
  return {.divisor = divisor,
          .ier = ier,
          .fcr = fcr,
          .lcr = lcr,
          .mcr = mcr,
          .msr = msr,
          .scr = scr,
          .rbr = rbr,
          .overrun = overrun,
          .thre_pending = thre_pending,
          .timeout_pending = timeout_pending,
          .rx_bytes = rx.bytes,
          .rx_errors = rx.errors,
          .rx_count = rx.count,
          .tx_bytes = tx.bytes,
          .tx_count = tx.count,
          .timeout_at = timeout_at};
}

Uart16550::State from_wire(const IsaSerialV1& wire) {
  return {.divisor = wire.divisor,
          .ier = wire.ier,
          .fcr = wire.fcr,
          .lcr = wire.lcr,
          .mcr = wire.mcr,
          .msr = wire.msr,
          .scr = wire.scr,
          .rbr = wire.rbr,
          .overrun = wire.overrun != 0,
          .thre_pending = wire.thre_pending != 0,
          .timeout_pending = wire.timeout_pending != 0,
          .rx = {.bytes = wire.rx_bytes, .errors = wire.rx_errors, .count = wire.rx_count},
          .tx = {.bytes = wire.tx_bytes, .errors = {}, .count = wire.tx_count}};
}

}  // namespace

IsaSerial::IsaSerial(std::string path, bus::IrqLine irq, Clock& clock, Chardev* chardev)
    : Device(std::move(path)),
      irq_(irq),
      chardev_(chardev),
      region_(Region::io("serial", 8, *this, {.min_size = 1, .max_size = 1})),
      timer_(clock, [this] { timeout_fired(); }) {
  if (chardev_ != nullptr) chardev_->set_client(this);
}

IsaSerial::~IsaSerial() {
  if (chardev_ != nullptr) chardev_->set_client(nullptr);
}

void IsaSerial::reset() {
  {
    const std::lock_guard lock(lock_);
    uart_.reset();
    restart_timeout();
    update();
  }
  offer_input();
}

void IsaSerial::start() {
  {
    const std::lock_guard lock(lock_);
    stopped_ = false;
  }
  transmit();
  offer_input();
}

void IsaSerial::stop() {
  const std::lock_guard lock(lock_);
  stopped_ = true;
}

uint64_t IsaSerial::io_read(uint64_t offset, unsigned) {
  uint8_t value = 0;
  {
    const std::lock_guard lock(lock_);
    const size_t waiting = uart_.state().rx.count;
    value = uart_.read(static_cast<unsigned>(offset));
    if (uart_.state().rx.count != waiting) restart_timeout();
    update();
  }
  offer_input();
  return value;
}

void IsaSerial::io_write(uint64_t offset, unsigned, uint64_t value) {
  bool sends = false;
  {
    const std::lock_guard lock(lock_);
    const size_t waiting = uart_.state().rx.count;
    uart_.write(static_cast<unsigned>(offset), static_cast<uint8_t>(value));
    if (uart_.state().rx.count != waiting) restart_timeout();
    update();
    sends = !uart_.transmit_queue().empty();
  }
  if (sends) transmit();
  offer_input();
}

void IsaSerial::update() { irq_.set(uart_.interrupt_connected()); }

void IsaSerial::restart_timeout() {
  if (uart_.wants_timeout()) {
    timeout_at_ = timer_.clock().now() + kTimeoutCharacters * uart_.character_ns();
    timer_.arm_at(timeout_at_);
  } else {
    timeout_at_ = Clock::kNever;
    timer_.disarm();
  }
}

void IsaSerial::timeout_fired() {
  const std::lock_guard lock(lock_);
  if (timer_.clock().now() < timeout_at_) return;  // restarted while this was on its way
  timeout_at_ = Clock::kNever;
  uart_.character_timeout();
  update();
}

// The chardev is called without the lock, since it may call back; who finds another thread at it leaves the bytes to
// it.
void IsaSerial::transmit() {
  std::unique_lock lock(lock_);
  transmit_again_ = true;
  if (transmitting_) return;
  transmitting_ = true;
  while (transmit_again_ && !uart_.transmit_queue().empty()) {
    transmit_again_ = false;
    std::array<uint8_t, kFifoSize> bytes{};
    const auto queue = uart_.transmit_queue();
    const size_t count = queue.size();
    std::ranges::copy(queue, bytes.begin());
    const uint32_t epoch = uart_.transmit_epoch();
    lock.unlock();
    const bool connected = chardev_ != nullptr && chardev_->is_open();
    const size_t taken = connected ? chardev_->write(std::span(bytes).first(count)) : count;
    lock.lock();
    if (uart_.transmit_epoch() == epoch) uart_.transmitted(std::min(taken, count));
    update();
  }
  transmitting_ = false;
}

void IsaSerial::offer_input() {
  if (chardev_ == nullptr) return;
  {
    const std::lock_guard lock(lock_);
    if (!input_refused_ || stopped_ || uart_.receive_space() == 0) return;
    input_refused_ = false;
  }
  chardev_->accept_input();
}

size_t IsaSerial::can_receive() {
  const std::lock_guard lock(lock_);
  const size_t space = stopped_ ? 0 : uart_.receive_space();
  input_refused_ = space == 0;
  return space;
}

void IsaSerial::received(std::span<const uint8_t> bytes) {
  const std::lock_guard lock(lock_);
  uart_.receive(bytes);
  restart_timeout();
  update();
}

void IsaSerial::event(ChardevEvent event) {
  if (event == ChardevEvent::kBreak) {
    const std::lock_guard lock(lock_);
    uart_.receive_break();
    restart_timeout();
    update();
  }
  if (event == ChardevEvent::kOpened || event == ChardevEvent::kClosed) transmit();
}

void IsaSerial::writable() { transmit(); }

void IsaSerial::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  save_section(writer, path(), to_wire(uart_.state(), timeout_at_));
}

void IsaSerial::restore(StateReader& reader) {
  IsaSerialV1 wire{};
  if (!restore_section(reader, path(), wire)) return;
  const bool flags = wire.overrun <= 1 && wire.thre_pending <= 1 && wire.timeout_pending <= 1;
  const std::lock_guard lock(lock_);
  if (!require(reader, flags && wire.timeout_at >= 0 && uart_.set_state(from_wire(wire)),
               "the UART cannot be in this state"))
    return;
  timeout_at_ = uart_.wants_timeout() ? wire.timeout_at : Clock::kNever;
  if (timeout_at_ == Clock::kNever) {
    timer_.disarm();
  } else {
    timer_.arm_at(timeout_at_);
  }
  update();
}

}  // namespace kite::devices

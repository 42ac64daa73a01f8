// The 16550A chip by itself: registers, FIFOs, interrupt logic. It knows no bus, no clock and no lock; SerialPort wraps
// it. [16550D] National Semiconductor PC16550D, June 1995.
//
// Transmission has no speed of its own: a byte stays in the transmitter until its owner takes it with transmitted(),
// and THRE and TEMT follow. Reception: the owner offers bytes with receive().
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/serial/uart16550_regs.h"

namespace kite::devices {

class Uart16550 {
 public:
  // Bytes in order; `count` <= kFifoSize.
  struct Fifo {
    std::array<uint8_t, uart_regs::kFifoSize> bytes{};
    std::array<uint8_t, uart_regs::kFifoSize> errors{};  // LSR bits that belong to the byte
    uint8_t count = 0;

    void push(uint8_t byte, uint8_t error);
    void pop(size_t n);
    void clear() { *this = Fifo{}; }
  };
  struct State {
    uint16_t divisor = 12;  // 9600 baud
    uint8_t ier = 0;
    uint8_t fcr = 0;
    uint8_t lcr = 0;
    uint8_t mcr = 0;
    uint8_t msr = 0;
    uint8_t scr = 0;
    uint8_t rbr = 0;  // what RBR reads when nothing new is there
    bool overrun = false;
    bool thre_pending = false;  // the THR-empty interrupt has not been seen yet
    bool timeout_pending = false;
    Fifo rx;
    Fifo tx;
  };

  Uart16550() { reset(); }
  void reset();

  // `reg` 0..7.
  uint8_t read(unsigned reg);
  void write(unsigned reg, uint8_t value);

  // INTR, and whether OUT2 connects it to a PC's bus.
  [[nodiscard]] bool interrupt() const { return (iir() & uart_regs::kIirNone) == 0; }
  [[nodiscard]] bool interrupt_connected() const;

  // Receiver: how many bytes fit, and bytes that arrive; those that do not fit set the overrun error.
  [[nodiscard]] size_t receive_space() const;
  void receive(std::span<const uint8_t> bytes);
  void receive_break();
  // Something waits in the receiver FIFO: four character times without a read or an arrival owe the guest a timeout
  // interrupt.
  [[nodiscard]] bool wants_timeout() const;
  void character_timeout();
  [[nodiscard]] int64_t character_ns() const;  // the time of one character at the programmed speed

  // Transmitter: what waits, oldest first, and how much of it has gone out. An owner that hands the bytes over while
  // the guest goes on compares the epoch: a FIFO that was cleared meanwhile holds others.
  [[nodiscard]] std::span<const uint8_t> transmit_queue() const { return {state_.tx.bytes.data(), state_.tx.count}; }
  [[nodiscard]] uint32_t transmit_epoch() const { return transmit_epoch_; }
  void transmitted(size_t bytes);

  // The modem lines CTS, DSR, RI, DCD as the other side drives them (MSR bits 7:4), shown unless in loopback.
  void set_modem_lines(uint8_t lines);

  [[nodiscard]] const State& state() const { return state_; }
  // False, and nothing changed, for a state the chip cannot be in.
  [[nodiscard]] bool set_state(const State& state);

 private:
  [[nodiscard]] bool fifos_on() const { return (state_.fcr & uart_regs::kFifoEnable) != 0; }
  [[nodiscard]] bool loopback() const { return (state_.mcr & uart_regs::kLoop) != 0; }
  [[nodiscard]] size_t depth() const { return fifos_on() ? uart_regs::kFifoSize : 1; }
  [[nodiscard]] size_t trigger_level() const;
  [[nodiscard]] uint8_t iir() const;
  [[nodiscard]] uint8_t lsr() const;
  uint8_t read_rbr();
  uint8_t read_iir();
  uint8_t read_lsr();
  uint8_t read_msr();
  void write_thr(uint8_t value);
  void write_ier(uint8_t value);
  void write_fcr(uint8_t value);
  void write_lcr(uint8_t value);
  void write_mcr(uint8_t value);
  void arrive(uint8_t byte, uint8_t error);
  void show_modem_lines();
  void clear_transmitter();

  State state_;
  uint32_t transmit_epoch_ = 0;  // times the transmitter was cleared; no part of the chip
  uint8_t outside_lines_ = uart_regs::kCts | uart_regs::kDsr | uart_regs::kDcd;  // wiring: a cable to a ready peer
};

}  // namespace kite::devices

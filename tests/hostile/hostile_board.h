// A hostile guest at the devices of a whole pc or q35 board, driven by a string of bytes: accesses of every size to
// every port, register page and configuration register, mixed with the sequences that reach deep (a timer programmed
// and time passing, command words in their order, DMA, moving BARs), with the host's side of it (input, power button,
// pause, saved and damaged state) in between. The fuzz target and the fixed-seed test share it; the same bytes do the
// same.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/i8042/i8042.h"
#include "display/surface.h"
#include "fuzz/byte_source.h"
#include "hostile/hostile_console.h"
#include "machine/machine.h"

namespace kite::hostile {

class HostileBoard {
 public:
  // `board`: "pc" or "pc-q35-7.2". Fails only when the host lacks memory or descriptors.
  static Result<std::unique_ptr<HostileBoard>> create(std::string board = "pc");
  ~HostileBoard();

  // Plays the input to its end. The error names the device that refused its own state, or that a refused state changed.
  Result<> run(std::span<const uint8_t> input);
  // How many actions have been played, for reports.
  [[nodiscard]] size_t steps() const { return steps_; }

 private:
  using Action = void (HostileBoard::*)();
  struct Weighted {
    unsigned weight;
    Action action;
  };
  static const Weighted kActions[];

  HostileBoard();
  Result<> build(std::string board);
  void act();
  void settle();

  // Bytes of the input, made into what actions need.
  uint8_t byte() { return source_.take<uint8_t>(); }
  bool flip() { return (byte() & 1) != 0; }
  uint32_t below(uint32_t bound) { return bound <= 256 ? byte() % bound : source_.below(bound); }
  unsigned width() { return 1u << below(3); }
  uint32_t value();
  template <class T, size_t N>
  T pick(const T (&from)[N]) {
    return from[below(N)];
  }

  // Accesses as the CPU makes them.
  void out(uint16_t port, uint32_t value, unsigned size = 1) { machine_->io().pio_write(port, size, value); }
  uint32_t in(uint16_t port, unsigned size = 1) { return machine_->io().pio_read(port, size); }
  void config_write(uint8_t devfn, uint8_t offset, uint32_t value, unsigned size);
  uint32_t config_read(uint8_t devfn, uint8_t offset, unsigned size);
  void pass_time(int64_t ns);

  // hostile_board.cc: single accesses, the host's side, time.
  void any_port();
  void any_memory();
  void any_config();
  void time();
  void take_interrupts();
  void console();
  void keys();
  void host_event();
  void save_and_restore();
  void damaged_state();
  // hostile_q35.cc.
  static std::vector<const char*> q35_devices();
  void q35();
  void q35_open();
  void q35_ecam();
  void q35_slot();
  void q35_plug();
  // hostile_sequences.cc: what drivers do, and do wrong.
  void pic();
  void pit();
  void rtc();
  void hpet();
  void uart();
  void i8042();
  void fw_cfg();
  void fw_cfg_dma();
  void ioapic();
  void apic();
  void apic_timer();
  void apic_message();
  void pci_bars();
  void bridge();
  void power_management();
  void resets();
  void test_devices();
  // hostile_virtio.cc.
  void virtio();
  void virtio_set_up(unsigned device);
  void virtio_offer(unsigned device, uint16_t queue, uint64_t buffer, uint32_t bytes, bool write, uint32_t room = 0);
  void virtio_open_ports();
  void virtio_request(unsigned device);
  void virtio_draw();
  void virtio_host();

  Result<> check_state(bus::Device& device);

  TypeRegistry types_;
  std::unique_ptr<Executor> executor_;
  std::array<HostileConsole, 7> consoles_;  // COM1-COM4, debug console, two ports of virtio-serial
  std::unique_ptr<entropy::EntropyRegistry> entropy_;
  std::unique_ptr<machine::Machine> machine_;
  std::vector<bus::Device*> devices_;  // as they are now: some come and go
  bool q35_ = false;
  devices::I8042* keyboard_ = nullptr;
  display::Surface surface_;

  fuzz::ByteSource source_{nullptr, 0};
  size_t steps_ = 0;
  int64_t time_left_ns_ = 0;  // how far this run may still advance the clock
  bool ended_ = false;        // the process would have ended
  Result<> outcome_;
};

}  // namespace kite::hostile

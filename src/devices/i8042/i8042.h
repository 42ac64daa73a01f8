// The 8042 keyboard controller of a PC with a PS/2 keyboard and a PS/2 mouse. [8042] IBM PS/2 Hardware Interface
// Technical Reference, 1988. Ports 0x60 (data) and 0x64 (command, status); IRQ 1 and 12, high while the output buffer
// holds a byte of theirs.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "bus/device.h"
#include "bus/irq_line.h"
#include "devices/i8042/i8042_regs.h"
#include "devices/i8042/ps2_keyboard.h"
#include "devices/i8042/ps2_mouse.h"
#include "devices/io_window.h"
#include "display/input.h"

namespace kite::devices {

class I8042 final : public bus::Device, public display::Keyboard, public display::Pointer {
 public:
  struct Wiring {
    bus::IrqLine keyboard_irq;
    bus::IrqLine mouse_irq;
    std::function<void()> reset;  // the processor's reset line; called with no lock held, on the writing vCPU's thread
  };
  I8042(std::string path, Wiring wiring);
  ~I8042() override;

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // For ports 0x60 and 0x64, 1 byte each.
  [[nodiscard]] const std::shared_ptr<Region>& data_region() const { return data_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& command_region() const { return command_region_; }

  // The host's side, any thread. `key` as in i8042/scancodes.h (key_from_name() knows the monitor's names). False when
  // the event was lost: the keyboard is off, unknown key, or its buffer is full.
  bool key_event(Key key, bool down);
  // Movement since the last event: right, up, wheel towards the user. Buttons: bit 0 left, 1 right, 2 middle, 3, 4
  // extra.
  void mouse_event(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons);
  // As what is in front of a display.
  void key(display::KeyNumber key, bool down) override { key_event(key, down); }
  [[nodiscard]] uint8_t leds() override;
  void move(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons) override { mouse_event(dx, -dy, dz, buttons); }
  [[nodiscard]] std::string_view pointer_name() const override { return "PS/2 Mouse"; }

 private:
  static constexpr uint8_t kNoFlags = 0;
  struct State {
    std::array<uint8_t, 32> ram{};  // location 0 is the command byte
    uint8_t output = 0;             // the output buffer, valid while status has kObf
    uint8_t status = 0;
    uint8_t output_port = 0;
    uint8_t pending = 0;        // the command that waits for its data byte, 0: none
    ByteQueue<4> answers;       // the controller's own, before the devices' bytes
    bool break_prefix = false;  // 0xf0 seen: translation joins it with the next code
  };

  uint64_t read_data(uint64_t offset, unsigned size);
  void write_data(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_status(uint64_t offset, unsigned size);
  void write_command(uint64_t offset, unsigned size, uint64_t value);
  // The following hold lock_.
  [[nodiscard]] uint8_t& command_byte() { return state_.ram[0]; }
  // These two answer true when the reset line is to be pulsed.
  [[nodiscard]] bool run_command(uint8_t command);
  [[nodiscard]] bool finish_command(uint8_t command, uint8_t value);
  [[nodiscard]] uint8_t output_port() const;
  void put(uint8_t value, uint8_t flags);  // flags: kAuxObf or none
  bool fill_from_keyboard();
  void fill();
  void drive_lines();
  void set_reset_values();

  // Wiring.
  Wiring wiring_;
  IoWindow<I8042> data_port_, command_port_;
  std::shared_ptr<Region> data_region_, command_region_;

  // State.
  std::mutex lock_;
  State state_;
  Ps2Keyboard keyboard_;
  Ps2Mouse mouse_;
};

}  // namespace kite::devices

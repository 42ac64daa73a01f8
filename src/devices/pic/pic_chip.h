// One 8259A as a plain value: inputs, command words and the acknowledge cycle, without a bus. [8259A]
#pragma once

#include <cstdint>
#include <optional>

namespace kite::devices {

struct PicChip {
  // Which initialization command word the data port expects next.
  enum class InitStep : uint8_t { kReady = 0, kIcw2 = 1, kIcw3 = 2, kIcw4 = 3 };

  uint8_t lines = 0;  // levels of the inputs
  uint8_t irr = 0;    // latched edges; level-triggered inputs as they are
  uint8_t isr = 0;
  uint8_t imr = 0xff;           // undefined at power-on: nothing disturbs a guest that never programs the chip
  uint8_t elcr = 0;             // 1: level-triggered
  uint8_t vector_base = 0;      // ICW2 7:3
  uint8_t lowest_priority = 7;  // the input with the lowest priority
  InitStep init_step = InitStep::kReady;
  bool single = false;        // ICW1.SNGL: no ICW3
  bool needs_icw4 = false;    // ICW1.IC4
  bool auto_eoi = false;      // ICW4.AEOI
  bool fully_nested = false;  // ICW4.SFNM
  bool rotate_on_aeoi = false;
  bool special_mask = false;
  bool read_isr = false;  // OCW3.RIS
  bool poll = false;      // OCW3.P: the next read is an acknowledge

  void set_line(unsigned input, bool level);
  // `port` 0 is A0 low (commands), 1 is A0 high (mask). `cascade_mask` names the inputs that carry another chip.
  [[nodiscard]] uint8_t read(unsigned port, uint8_t cascade_mask);
  void write(unsigned port, uint8_t value);
  void set_elcr(uint8_t value);

  // The input that INT stands for, if INT is high.
  [[nodiscard]] std::optional<unsigned> requested(uint8_t cascade_mask) const;
  // INTA for `input`: into service.
  void acknowledge(unsigned input);

 private:
  void write_icw1(uint8_t value);
  void write_ocw2(uint8_t value);
  void write_ocw3(uint8_t value);
  void end_non_specific(bool rotate);
  [[nodiscard]] std::optional<unsigned> highest(uint8_t set) const;
  [[nodiscard]] unsigned rank(unsigned input) const { return (input - lowest_priority - 1u) & 7u; }
};

}  // namespace kite::devices

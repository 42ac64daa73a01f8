// The global system interrupts of the PC: lines 0-15 go to the 8259 pair and the IOAPIC, 16-23 to the IOAPIC alone. The
// timer's line 0 is the IOAPIC's input 2.
#pragma once

#include <functional>
#include <mutex>

#include "bus/irq_line.h"

namespace kite::machine {

class GsiLines final : public bus::IrqSink {
 public:
  static constexpr uint32_t kLines = 24;
  GsiLines(bus::IrqSink& pic, bus::IrqSink& ioapic) : pic_(pic), ioapic_(ioapic) {}

  void set_irq(uint32_t line, bool level) override {
    if (line < 16) pic_.set_irq(line, level);
    set_ioapic_input(line, level);
  }
  void set_ioapic_input(uint32_t line, bool level) {
    {
      std::lock_guard lock(tap_mutex_);
      if (tap_) tap_(line, level);
    }
    if (line != 2) ioapic_.set_irq(line == 0 ? 2 : line, level);
  }
  // Hears of every change at the IOAPIC's inputs, by line number.
  void set_tap(std::function<void(uint32_t line, bool level)> tap) {
    std::lock_guard lock(tap_mutex_);
    tap_ = std::move(tap);
  }

 private:
  bus::IrqSink& pic_;
  bus::IrqSink& ioapic_;
  std::mutex tap_mutex_;
  std::function<void(uint32_t, bool)> tap_;
};

}  // namespace kite::machine

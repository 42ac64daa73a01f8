// The global system interrupts of the PC: lines 0-15 go to the 8259 pair and the IOAPIC, 16-23 to the IOAPIC alone. The
// timer's line 0 is the IOAPIC's input 2.
#pragma once

#include <array>
#include <functional>
#include <mutex>

#include "accel/irq_chip.h"
#include "bus/irq_line.h"
#include "devices/hpet/hpet.h"

namespace kite::machine {

class GsiLines final : public bus::IrqSink {
 public:
  static constexpr uint32_t kLines = 24;
  GsiLines(bus::IrqSink& pic, bus::IrqSink& ioapic) : pic_(&pic), ioapic_(&ioapic) {}
  // Both are the accelerator's.
  explicit GsiLines(IrqChip& chip) : chip_(&chip) {}

  void set_irq(uint32_t line, bool level) override {
    if (pic_ != nullptr && line < 16) pic_->set_irq(line, level);
    set_ioapic_input(line, level);
  }
  void set_ioapic_input(uint32_t line, bool level) {
    {
      std::lock_guard lock(tap_mutex_);
      if (tap_) tap_(line, level);
    }
    if (chip_ != nullptr) return chip_->set_line(line, level);
    if (line != 2) ioapic_->set_irq(line == 0 ? 2 : line, level);
  }
  // Hears of every change at the IOAPIC's inputs, by line number.
  void set_tap(std::function<void(uint32_t line, bool level)> tap) {
    std::lock_guard lock(tap_mutex_);
    tap_ = std::move(tap);
  }

 private:
  bus::IrqSink* pic_ = nullptr;
  bus::IrqSink* ioapic_ = nullptr;
  IrqChip* chip_ = nullptr;
  std::mutex tap_mutex_;
  std::function<void(uint32_t, bool)> tap_;
};

// ISA lines 0 and 8: the 8254 and the RTC drive them, or the HPET's timers 0 and 1 while it replaces them.
// [HPET] 2.3.5 "legacy replacement route".
class LegacyTimerLines final : public bus::IrqSink, public devices::LegacySwitch {
 public:
  enum Source : uint32_t { kPit, kRtc, kHpet0, kHpet1 };
  // `timer` is the accelerator's chip where it has the 8254, else null.
  LegacyTimerLines(bus::IrqLine irq0, bus::IrqLine irq8, IrqChip* timer) : irq0_(irq0), irq8_(irq8), timer_(timer) {}

  [[nodiscard]] bus::IrqLine line(Source source) { return {*this, source}; }
  void set_irq(uint32_t source, bool level) override {
    std::lock_guard lock(mutex_);
    const bool rises = level && !std::exchange(levels_[source & 3], level);
    if (source == kRtc && rises && rtc_tap_) rtc_tap_();
    levels_[source & 3] = level;
    drive();
  }
  // Hears of every interrupt of the RTC, with its lock held. Before anything runs.
  void set_rtc_tap(std::function<void()> tap) { rtc_tap_ = std::move(tap); }
  void set_legacy_replacement(bool on) override {
    std::lock_guard lock(mutex_);
    replaced_ = on;
    if (timer_ != nullptr) timer_->set_timer_silenced(on);
    drive();
  }

 private:
  void drive() {
    irq0_.set(levels_[replaced_ ? kHpet0 : kPit]);
    irq8_.set(levels_[replaced_ ? kHpet1 : kRtc]);
  }

  const bus::IrqLine irq0_, irq8_;
  IrqChip* const timer_;
  std::function<void()> rtc_tap_;
  std::mutex mutex_;
  std::array<bool, 4> levels_{};  // as the sources drive them; each source restores its own
  bool replaced_ = false;         // the HPET restores it
};

}  // namespace kite::machine

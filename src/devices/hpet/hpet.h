// High precision event timer with three comparators, a 100 MHz main counter of 64 bits, and legacy replacement routing.
// The counter is worked out from the clock; one host timer serves the comparator that is due next.
// 1 KiB at 0xfed00000. [HPET] IA-PC HPET (High Precision Event Timers) Specification 1.0a.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "bus/device.h"
#include "devices/apic/apic_bus.h"
#include "devices/tick_rate.h"

namespace kite::devices {

// While legacy replacement is on, the HPET's timers 0 and 1 stand in for the 8254 and the RTC on ISA lines 0 and 8; the
// board routes those two lines through one of these. Called with the HPET's lock held.
class LegacySwitch {
 public:
  virtual ~LegacySwitch() = default;
  virtual void set_legacy_replacement(bool on) = 0;
};

struct HpetConfig {
  uint32_t routes = 0x00ff0000 | 1u << 2;  // the IOAPIC inputs a timer may use, one bit each
};

class Hpet final : public bus::Device, private IoHandler {
 public:
  static constexpr unsigned kTimers = 3;
  static constexpr uint64_t kHz = 100'000'000;

  struct Wiring {
    bus::IrqSink* ioapic = nullptr;         // takes the routed inputs
    bus::IrqLine legacy_irq0, legacy_irq8;  // ISA lines, fanned out by the board
    ApicBus* apic_bus = nullptr;            // carries FSB interrupts; without it they are not offered
    LegacySwitch* legacy = nullptr;         // may be absent
  };
  Hpet(std::string path, const HpetConfig& config, const Wiring& wiring, Clock& clock);

  [[nodiscard]] const std::shared_ptr<Region>& region() const { return region_; }

  void reset() override;
  void start() override;
  void stop() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  struct TimerState {
    uint64_t config = 0;  // the writable bits
    uint64_t comparator = ~uint64_t{0};
    uint64_t period = 0;      // periodic mode: what a match adds to the comparator
    uint64_t fsb = 0;         // address << 32 | data
    bool set_value = false;   // the next write of the comparator reaches it in periodic mode
    uint64_t not_before = 0;  // tick: the pace of a periodic timer that is too fast to follow
  };
  struct State {
    uint64_t config = 0;
    uint64_t status = 0;
    uint64_t counter = 0;  // as of tick `since` while enabled, else where it stands
    uint64_t since = 0;
    std::array<TimerState, kTimers> timers;
  };

  uint64_t io_read(uint64_t offset, unsigned size) override;
  void io_write(uint64_t offset, unsigned size, uint64_t value) override;

  // Callers of the following hold lock_.
  [[nodiscard]] uint64_t read_register(uint64_t offset) const;  // 64 bits, offset a multiple of 8
  void write_register(uint64_t offset, uint64_t value, uint64_t mask);
  void write_config(uint64_t value);
  void write_timer(unsigned index, uint64_t offset, uint64_t value, uint64_t mask);
  void write_timer_config(TimerState& timer, uint64_t value);
  [[nodiscard]] uint64_t now() const { return kRate.to_ticks(clock_.now()); }
  [[nodiscard]] bool enabled() const;
  void sync(uint64_t now);  // counter and comparators up to `now`, with the interrupts on the way
  void expire(unsigned index, uint64_t now, uint64_t late);
  void interrupt(unsigned index);
  void drive_lines();
  void schedule(uint64_t now);
  void timer_fired();
  [[nodiscard]] bool level_asserted(unsigned index) const;
  [[nodiscard]] unsigned line_of(unsigned index) const;
  [[nodiscard]] bus::IrqLine wire(unsigned line) const;
  [[nodiscard]] uint64_t distance(const TimerState& timer) const;
  [[nodiscard]] uint64_t timer_capabilities() const;
  [[nodiscard]] const char* impossible(const State& state) const;

  // Static configuration.
  static constexpr TickRate kRate{kHz};
  HpetConfig config_;

  // Wiring.
  Wiring wiring_;
  Clock& clock_;
  std::shared_ptr<Region> region_;

  // State, guarded by lock_.
  std::mutex lock_;
  State state_;
  bool stopped_ = false;
  uint64_t raised_ = 0;  // the lines that are high because of a level-triggered timer; follows from the state
  Timer timer_;          // the last member: destroyed first
};

}  // namespace kite::devices

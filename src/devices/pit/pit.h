// 8254 programmable interval timer and the speaker port of a PC: OUT0 is IRQ 0, OUT1 refreshed memory, OUT2 drives the
// speaker and is gated by port 0x61.
// Ports 0x40-0x43, 0x61. [8254] Intel 231164-005; [PIIX3] Intel 290550-002, 2.5.6 (NMI status and control).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "bus/device.h"
#include "devices/io_window.h"
#include "devices/pit/pit_counter.h"
#include "devices/tick_rate.h"

namespace kite::devices {

class Pit final : public bus::Device {
 public:
  static constexpr uint64_t kHz = 1'193'182;

  // `irq` follows OUT0; the board fans it out to the 8259's input 0 and the IOAPIC's input 2.
  Pit(std::string path, bus::IrqLine irq, Clock& clock);

  // Four ports for 0x40, one port for 0x61.
  [[nodiscard]] const std::shared_ptr<Region>& counter_ports() const { return counter_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& speaker_port() const { return speaker_region_; }

  void reset() override;
  void start() override;
  void stop() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  struct State {
    std::array<PitCounter, 3> counters;
    uint8_t speaker = 0;  // port 0x61 bits 3:0
    bool irq_level = true;
    bool rise_expected = false;
    uint64_t rise_at = 0;     // the next rising edge of OUT0 that irq has not seen
    uint64_t not_before = 0;  // the pace of a counter 0 that is too fast to follow
  };

  uint64_t read_counter(uint64_t offset, unsigned size);
  void write_counter(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_speaker(uint64_t offset, unsigned size);
  void write_speaker(uint64_t offset, unsigned size, uint64_t value);
  // Callers of the following hold lock_.
  void write_control(uint64_t now, uint8_t value);
  void read_back(uint64_t now, uint8_t command);
  [[nodiscard]] uint64_t now() const { return kRate.to_ticks(clock_.now()); }
  void drive_irq(uint64_t now);
  void schedule(uint64_t now);
  void timer_fired();

  // Static configuration.
  static constexpr TickRate kRate{kHz};

  // Wiring.
  bus::IrqLine irq_;
  Clock& clock_;
  IoWindow<Pit> counter_window_{*this, &Pit::read_counter, &Pit::write_counter};
  IoWindow<Pit> speaker_window_{*this, &Pit::read_speaker, &Pit::write_speaker};
  std::shared_ptr<Region> counter_region_, speaker_region_;

  // State, guarded by lock_.
  std::mutex lock_;
  State state_;
  bool stopped_ = false;
  Timer timer_;  // the last member: destroyed first
};

}  // namespace kite::devices

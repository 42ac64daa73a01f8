// MC146818 real-time clock with its battery-backed memory, as in the PIIX4: 128 standard and 128 extended bytes. The
// century is at 0x32. Time and flags are worked out when somebody looks; a timer runs only for an enabled interrupt.
// Ports 0x70-0x71 (bit 7 of 0x70 masks NMI), 0x72-0x73. [MC146818] Motorola MC146818A data sheet; [PIIX4] Intel
// 290562, 8.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "bus/device.h"
#include "devices/io_window.h"
#include "devices/tick_rate.h"

namespace kite::devices {

struct RtcConfig {
  // The time the clock shows is clock.now() + offset_ns, in nanoseconds since 1970-01-01 00:00:00 (of UTC, or of the
  // local time the guest wants to see). With a realtime clock 0 is "now"; with a virtual clock it is the base date.
  int64_t offset_ns = 0;
  // Periodic interrupts that the guest was too late for come later, one after each that it has seen to: its count of
  // them is right again in the end.
  bool replay_missed = false;
};

class Rtc final : public bus::Device {
 public:
  Rtc(std::string path, const RtcConfig& config, bus::IrqLine irq, Clock& clock);

  // Two ports each, for 0x70 and 0x72.
  [[nodiscard]] const std::shared_ptr<Region>& ports() const { return region_; }
  [[nodiscard]] const std::shared_ptr<Region>& extended_ports() const { return extended_region_; }

  // The board's own bytes (memory sizes, boot order, disk geometry): index 0x0e-0x7f standard, 0x80-0xff extended; the
  // century and everything below 0x0e belong to the clock and are left alone. They survive reset.
  void set_cmos(uint8_t index, uint8_t value);
  [[nodiscard]] uint8_t cmos(uint8_t index);
  [[nodiscard]] bool nmi_masked();

  void reset() override;  // the RESET pin: interrupts off; time and memory stay
  void start() override;
  void stop() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  struct State {
    std::array<uint8_t, 256> bytes{};  // the time, the alarm, A, B and memory; C is `flags`
    uint8_t index = 0;                 // bit 7: NMI masked
    uint8_t extended_index = 0;
    uint8_t flags = 0;           // register C: PF, AF, UF
    int64_t next_update_ns = 0;  // the clock's next second; means nothing while the divider is held in reset
    uint64_t next_periodic = 0;  // tick of the next periodic edge; means nothing at rate 0
    uint32_t missed = 0;         // periodic interrupts to replay
  };

  uint64_t read_ports(uint64_t offset, unsigned size);
  void write_ports(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_extended(uint64_t offset, unsigned size);
  void write_extended(uint64_t offset, unsigned size, uint64_t value);

  // Callers hold lock_.
  [[nodiscard]] uint8_t read_register(int64_t now, uint8_t index);
  void write_register(int64_t now, uint8_t index, uint8_t value);
  void write_a(int64_t now, uint8_t value);
  void write_b(uint8_t value);
  void initialize_time(int64_t now);
  void sync(int64_t now);
  void sync_periodic(int64_t now);
  void sync_updates(int64_t now);
  void note_missed(uint64_t edges);
  void drive_irq();
  void schedule();
  void timer_fired();
  [[nodiscard]] bool divider_runs() const;
  [[nodiscard]] bool updates() const;  // the divider runs and SET is clear
  [[nodiscard]] bool update_in_progress(int64_t now) const;
  [[nodiscard]] uint64_t period() const;  // ticks; 0: none
  [[nodiscard]] bool replays() const;     // periodic interrupts are enabled and missed ones are to come
  [[nodiscard]] bool irq_asserted() const;
  [[nodiscard]] std::optional<int64_t> next_event() const;

  // Static configuration.
  static constexpr TickRate kCrystal{32'768};
  RtcConfig config_;

  // Wiring.
  bus::IrqLine irq_;
  Clock& clock_;
  IoWindow<Rtc> window_{*this, &Rtc::read_ports, &Rtc::write_ports};
  IoWindow<Rtc> extended_window_{*this, &Rtc::read_extended, &Rtc::write_extended};
  std::shared_ptr<Region> region_, extended_region_;

  // State, guarded by lock_.
  std::mutex lock_;
  State state_;
  bool stopped_ = false;
  Timer timer_;  // the last member: destroyed first
};

}  // namespace kite::devices

// The ACPI fixed hardware that the PIIX4 and the ICH9 share: PM1 event and control registers, the 3.579545 MHz timer
// (24 bits), one general purpose event block, and the SCI that they raise. [ACPI 6.4] 4.8. A part, not a device: the
// power management function that owns it places its registers and saves its state.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include "async/clock.h"
#include "bus/irq_line.h"
#include "state/codec.h"

namespace kite::devices {

class AcpiPm {
 public:
  struct Wiring {
    Clock& clock;      // guest time; the timer counts from its 0
    bus::IrqLine sci;  // active while an enabled event is pending and SCI_EN is set
    // SLP_EN was written with this SLP_TYP. No lock held, on the writing vCPU's thread.
    std::function<void(uint8_t type)> sleep;
  };
  struct State {
    uint16_t pm1_status = 0;
    uint16_t pm1_enable = 0;
    uint16_t pm1_control = 0;
    int64_t overflow_tick = 0;  // TMR_STS is due when the timer gets here
    uint64_t gpe_status = 0;
    uint64_t gpe_enable = 0;
  };

  // `gpe_events`: a multiple of 8, at most 64.
  AcpiPm(Wiring wiring, unsigned gpe_events);

  void reset();
  // The guest's side: `offset` from the power management base, below kPm1End, aligned to `size` of 1, 2 or 4.
  uint64_t read(uint64_t offset, unsigned size);
  void write(uint64_t offset, unsigned size, uint64_t value);
  // The event block: status bytes, then as many enable bytes. `offset` + `size` within it.
  uint64_t read_gpe(uint64_t offset, unsigned size);
  void write_gpe(uint64_t offset, unsigned size, uint64_t value);
  // ACPI mode on and off, for an SMI command port where there is no SMM behind it.
  void set_sci_enabled(bool enabled);

  // The host's side, any thread.
  void raise_pm1(uint16_t status_bits);  // kPwrbtn, kRtc, kWak
  void raise_gpe(unsigned event);        // ignored beyond the block
  // True: an event that is enabled is pending, whether or not the SCI is.
  [[nodiscard]] bool wake_pending();

  // For the owner's save and restore.
  [[nodiscard]] State snapshot();
  [[nodiscard]] bool possible(StateReader& reader, const State& state) const;  // rejects what cannot be
  void restore(const State& state);

 private:
  // The following hold lock_.
  [[nodiscard]] int64_t ticks() const;
  [[nodiscard]] int64_t next_overflow() const;
  void catch_up();  // sets TMR_STS when it is due
  void update();    // the SCI's level and the timer
  [[nodiscard]] uint16_t word(uint64_t offset) const;
  [[nodiscard]] bool write_word(uint64_t offset, uint16_t value, uint16_t lanes);  // true: go to sleep
  [[nodiscard]] bool pending() const;
  void timer_fired();

  // Static configuration and wiring.
  const unsigned gpe_events_;
  Wiring wiring_;

  // State.
  std::mutex lock_;  // a leaf but for the SCI's sink
  State state_;

  Timer timer_;  // armed for overflow_tick while TMR_EN; derived. Last: its destructor waits for timer_fired()
};

}  // namespace kite::devices

// The TCO watchdog timer of the ICH9, a part of its LPC bridge. [ICH9] 316972-004, 13.9.
//
// Counts down from TCO_TMR in ticks of 0.6 s. Reaching 0 sets TIMEOUT, asks for an SMI and starts over; reaching 0
// again before anyone has reloaded it sets SECOND_TO_STS and is what the watchdog barks at. It counts from the first
// reload or release on.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>

#include "async/clock.h"
#include "state/codec.h"

namespace kite::devices {

class Tco {
 public:
  struct Wiring {
    Clock& clock;                // guest time
    std::function<void()> smi;   // TCO wants one; any thread, no lock held
    std::function<void()> bark;  // the second time-out; any thread, no lock held
  };
  struct State {
    uint8_t data_in = 0, data_out = 0;
    uint16_t status1 = 0, status2 = 0;
    uint16_t control1 = 0, control2 = 0;
    uint8_t message1 = 0, message2 = 0, watchdog = 0, sw_irq = 0;
    uint16_t initial = 0;
    bool loaded = false;      // counting or halted at `left`
    uint16_t left = 0;        // ticks, while it is halted
    int64_t deadline_ns = 0;  // when the count reaches 0, while it is not
    uint8_t timeouts = 0;     // since the last reload: 0 or 1
  };

  explicit Tco(Wiring wiring);

  void reset();
  // `offset` below kTcoSize; any size of 1, 2 or 4.
  uint64_t read(uint64_t offset, unsigned size);
  void write(uint64_t offset, unsigned size, uint64_t value);
  [[nodiscard]] bool locked();  // TCO_LOCK

  // For the owner's save and restore.
  [[nodiscard]] State snapshot();
  [[nodiscard]] static bool possible(StateReader& reader, const State& state);
  void restore(const State& state);

 private:
  enum class Ask : uint8_t { kNothing, kSmi };
  // The following hold lock_.
  [[nodiscard]] bool counting() const;
  [[nodiscard]] uint16_t count() const;
  [[nodiscard]] uint8_t byte(uint64_t offset) const;
  Ask write_byte(uint64_t offset, uint8_t value);
  void write_control1(uint16_t value);
  void write_initial(uint16_t value);
  void reload();
  void arm();
  void timer_fired();

  // Wiring.
  Wiring wiring_;

  // State.
  std::mutex lock_;  // a leaf
  State state_;

  Timer timer_;  // armed for deadline_ns while it counts; derived. Last: its destructor waits for timer_fired()
};

}  // namespace kite::devices

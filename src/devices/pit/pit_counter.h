// One counter of an 8254 as a plain value. Time is the number of CLK pulses since the oscillator's clock read 0, so
// that everything here is exact; nothing counts by itself, values are worked out when they are asked for. [8254]
#pragma once

#include <cstdint>
#include <optional>

namespace kite::devices {

struct PitCounter {
  // r- control word 5:4
  enum class Access : uint8_t { kLow = 1, kHigh = 2, kLowHigh = 3 };

  uint8_t mode = 3;  // 0-5; 6 and 7 are stored as 2 and 3
  bool bcd = false;
  Access access = Access::kLowHigh;
  bool gate = true;

  uint32_t reload = 0;  // the count register: 1-65536, 0 before the first write
  uint32_t active = 0;  // what the counting element started from; 0: nothing was loaded yet
  bool counting = false;
  uint64_t anchor = 0;        // pulse at which `base` was valid; the load takes effect there
  uint64_t base = 0;          // pulses counted since the load, up to `anchor`
  bool reload_waits = false;  // modes 2 and 3: a new count takes over at `reload_at`
  uint64_t reload_at = 0;

  bool write_high_next = false;
  uint8_t write_low = 0;
  bool read_high_next = false;
  uint8_t latched_bytes = 0;  // how many bytes of `latch` are still to be read
  uint16_t latch = 0;
  bool status_latched = false;
  uint8_t status = 0;

  void write_control(uint8_t control);
  // All of the following: `now` never goes back.
  void write_count(uint64_t now, uint8_t value);
  [[nodiscard]] uint8_t read(uint64_t now);
  void latch_count(uint64_t now);
  void latch_status(uint64_t now);
  void set_gate(uint64_t now, bool level);

  // OUT at `now`.
  [[nodiscard]] bool out(uint64_t now);
  // The first pulse after `now` at which OUT rises, and the first at which it changes for longer than one pulse.
  [[nodiscard]] std::optional<uint64_t> next_rise(uint64_t now);
  [[nodiscard]] std::optional<uint64_t> next_change(uint64_t now);

 private:
  void settle(uint64_t now);  // carries out a waiting reload
  void load(uint64_t now);
  void accept_count(uint64_t now, uint16_t raw);
  [[nodiscard]] uint64_t elapsed(uint64_t now) const { return counting && now > anchor ? base + (now - anchor) : base; }
  [[nodiscard]] bool periodic() const { return mode == 2 || mode == 3; }
  [[nodiscard]] uint16_t count(uint64_t now);
};

}  // namespace kite::devices

// The card's EEPROM, a 93C46 of 64 words behind four wires (Microwire). [8254x] 5.3, 5.6. What is written to it lasts
// for as long as the machine does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "net/net_backend.h"

namespace kite::devices {

class E1000Eeprom {
 public:
  static constexpr size_t kWords = 64;
  struct State {
    std::array<uint16_t, kWords> words{};
    bool selected = false, clock = false;
    bool out = true;        // DO; nobody pulls it down
    bool writable = false;  // EWEN was given
    uint32_t shift = 0;     // bits of a command so far, from the start bit
    uint8_t bits = 0;       // how many; kReading while a read goes on
    uint8_t address = 0;    // what a read is at
    uint8_t left = 0;       // bits of that word that are not out
    bool operator==(const State&) const = default;
  };

  // As it leaves the factory.
  explicit E1000Eeprom(const net::MacAddress& mac);

  // The wires as software drives them; answers the level of DO.
  bool drive(bool select, bool clock, bool in);
  [[nodiscard]] bool out() const { return state_.out; }
  [[nodiscard]] uint16_t word(size_t address) const { return state_.words[address % kWords]; }
  // The address in it, whatever the checksum says.
  [[nodiscard]] net::MacAddress mac() const;

  [[nodiscard]] const State& state() const { return state_; }
  void set_state(const State& state) { state_ = state; }
  [[nodiscard]] static bool possible(const State& state);

 private:
  void take_bit(bool in);
  void put_bit();
  void execute();

  State state_;
};

}  // namespace kite::devices

// A PS/2 keyboard (101 keys and a few more): commands, answers, scan codes. Pure: no lock, no clock, no controller.
// [PS2KBD]. Keys do not repeat by themselves; whoever injects events repeats them.
#pragma once

#include <cstdint>

#include "devices/i8042/byte_queue.h"
#include "devices/i8042/scancodes.h"

namespace kite::devices {

class Ps2Keyboard {
 public:
  struct State {
    ByteQueue<16> replies;  // go out before scan codes
    ByteQueue<128> scans;
    uint8_t pending = 0;    // the command that waits for its data byte, 0: none
    uint8_t last_sent = 0;  // for RESEND
    uint8_t scan_set = 2;   // 1..3
    uint8_t leds = 0;       // bit 0 scroll, 1 num, 2 caps
    uint8_t typematic = 0x2b;
    bool scanning = true;
  };

  void reset() { state_ = State{}; }
  void write(uint8_t value);  // a byte from the host
  [[nodiscard]] bool has_output() const { return !state_.replies.empty() || !state_.scans.empty(); }
  uint8_t read();  // only when has_output()
  // False when the keyboard does not scan, does not know the key or its buffer is full: the event is lost.
  bool key_event(Key key, bool down);

  [[nodiscard]] const State& state() const { return state_; }
  [[nodiscard]] static bool possible(const State& state);
  void set_state(const State& state) { state_ = state; }

 private:
  void command(uint8_t value);
  void argument(uint8_t command, uint8_t value);
  void set_defaults();

  State state_;
};

}  // namespace kite::devices

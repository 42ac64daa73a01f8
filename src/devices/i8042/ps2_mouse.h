// A PS/2 mouse with a wheel and five buttons: the standard protocol and the IntelliMouse extensions. Pure: no lock, no
// clock, no controller. [PS2MOUSE], [INTELLIMOUSE].
#pragma once

#include <array>
#include <cstdint>

#include "devices/i8042/byte_queue.h"

namespace kite::devices {

class Ps2Mouse {
 public:
  struct State {
    ByteQueue<16> replies;  // go out before movement packets
    ByteQueue<64> packets;
    int32_t dx = 0, dy = 0,
            dz = 0;       // moved and not yet reported; right, up, wheel towards the user; each in +-kMaxPending
    uint8_t buttons = 0;  // bit 0 left, 1 right, 2 middle, 3 side, 4 extra
    uint8_t reported_buttons = 0;
    uint8_t pending = 0;    // the command that waits for its data byte, 0: none
    uint8_t last_sent = 0;  // for RESEND
    uint8_t id = 0;         // 0 standard, 3 wheel, 4 wheel and five buttons
    uint8_t sample_rate = 100;
    uint8_t resolution = 2;               // 0..3
    std::array<uint8_t, 2> last_rates{};  // the two rates set before the last: the knock of the extensions
    bool reporting = false;
    bool remote = false;
    bool wrap = false;
    bool scaling_2_to_1 = false;
  };
  static constexpr int32_t kMaxPending = 0xffff;

  void reset() { state_ = State{}; }
  void write(uint8_t value);  // a byte from the host
  [[nodiscard]] bool has_output() const { return !state_.replies.empty() || !state_.packets.empty(); }
  uint8_t read();  // only when has_output()
  // Movement since the last event (right, up, wheel towards the user) and the buttons as they are now.
  void move(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons);

  [[nodiscard]] const State& state() const { return state_; }
  [[nodiscard]] static bool possible(const State& state);
  void set_state(const State& state) { state_ = state; }

 private:
  void command(uint8_t value);
  void argument(uint8_t command, uint8_t value);
  void set_rate(uint8_t rate);
  void set_defaults();
  void stream();
  [[nodiscard]] bool streaming() const { return state_.reporting && !state_.remote; }
  [[nodiscard]] uint8_t status_byte() const;
  [[nodiscard]] bool something_to_report() const;
  template <size_t N>
  void build_packet(ByteQueue<N>& queue);

  State state_;
};

}  // namespace kite::devices

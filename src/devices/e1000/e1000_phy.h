// The card's PHY, a Marvell 88E1000, behind MDIC. [8254x] 13.4.7.1, [IEEE 802.3] 22.2.4, 28.2.4. Its link partner can
// do all that it can, full duplex at 1000 Mbit/s at most.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace kite::devices {

class E1000Phy {
 public:
  static constexpr size_t kRegisters = 32;
  struct State {
    std::array<uint16_t, kRegisters> registers{};  // those that software writes
    bool cable = false;                            // something is at its other end
    bool negotiating = false, negotiated = false;
    bool lost = false;  // the link was down since the status was last read
    bool operator==(const State&) const = default;
  };

  // Power-on: registers have their reset values, and negotiation, which takes less time than a machine's start, is
  // over.
  void reset(bool cable);
  // By its reset pin or its reset bit: it negotiates again.
  void soft_reset();

  uint16_t read(uint32_t number);
  void write(uint32_t number, uint16_t value);
  // True: negotiation has begun since this was last asked. It goes on until end_negotiation().
  bool take_start();
  void end_negotiation();
  void set_cable(bool cable);

  [[nodiscard]] bool link() const;
  [[nodiscard]] bool loops() const;
  [[nodiscard]] bool full_duplex() const;
  [[nodiscard]] uint32_t speed() const;  // 0: 10, 1: 100, 2: 1000 Mbit/s

  [[nodiscard]] const State& state() const { return state_; }
  void set_state(const State& state) {
    state_ = state;
    started_ = false;
  }

 private:
  void negotiate();
  [[nodiscard]] bool automatic() const;

  State state_;
  bool started_ = false;
};

}  // namespace kite::devices

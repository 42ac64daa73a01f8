// The wire form of the keyboard controller, its keyboard and its mouse.
#pragma once

#include <array>
#include <cstdint>

#include "devices/i8042/ps2_keyboard.h"
#include "devices/i8042/ps2_mouse.h"

namespace kite::devices {

template <size_t N>
struct QueueV1 {
  std::array<uint8_t, N> bytes;
  uint8_t count;
};

struct Ps2KeyboardV1 {
  QueueV1<16> replies;
  QueueV1<128> scans;
  uint8_t pending, last_sent, scan_set, leds, typematic, scanning;
};

struct Ps2MouseV1 {
  QueueV1<16> replies;
  QueueV1<64> packets;
  int32_t dx, dy, dz;
  uint8_t buttons, reported_buttons, pending, last_sent, id, sample_rate, resolution;
  std::array<uint8_t, 2> last_rates;
  uint8_t reporting, remote, wrap, scaling_2_to_1;
};

struct I8042V1 {
  static constexpr uint32_t kVersion = 1;
  std::array<uint8_t, 32> ram;
  uint8_t output, status, output_port, pending;
  QueueV1<4> answers;
  uint8_t break_prefix;
  Ps2KeyboardV1 keyboard;
  Ps2MouseV1 mouse;
};

template <class Codec>
void visit(Codec& codec, I8042V1& wire) {
  codec.field(1, wire.ram);
  codec.field(2, wire.output);
  codec.field(3, wire.status);
  codec.field(4, wire.output_port);
  codec.field(5, wire.pending);
  codec.field(6, wire.answers.bytes);
  codec.field(7, wire.answers.count);
  codec.field(8, wire.break_prefix);
  Ps2KeyboardV1& keyboard = wire.keyboard;
  codec.field(32, keyboard.replies.bytes);
  codec.field(33, keyboard.replies.count);
  codec.field(34, keyboard.scans.bytes);
  codec.field(35, keyboard.scans.count);
  codec.field(36, keyboard.pending);
  codec.field(37, keyboard.last_sent);
  codec.field(38, keyboard.scan_set);
  codec.field(39, keyboard.leds);
  codec.field(40, keyboard.typematic);
  codec.field(41, keyboard.scanning);
  Ps2MouseV1& mouse = wire.mouse;
  codec.field(64, mouse.replies.bytes);
  codec.field(65, mouse.replies.count);
  codec.field(66, mouse.packets.bytes);
  codec.field(67, mouse.packets.count);
  codec.field(68, mouse.dx);
  codec.field(69, mouse.dy);
  codec.field(70, mouse.dz);
  codec.field(71, mouse.buttons);
  codec.field(72, mouse.reported_buttons);
  codec.field(73, mouse.pending);
  codec.field(74, mouse.last_sent);
  codec.field(75, mouse.id);
  codec.field(76, mouse.sample_rate);
  codec.field(77, mouse.resolution);
  codec.field(78, mouse.last_rates);
  codec.field(79, mouse.reporting);
  codec.field(80, mouse.remote);
  codec.field(81, mouse.wrap);
  codec.field(82, mouse.scaling_2_to_1);
}

template <size_t N>
QueueV1<N> to_wire(const ByteQueue<N>& queue) {
  const auto& [bytes, count] = queue;
  return {.bytes = bytes, .count = count};
}
template <size_t N>
ByteQueue<N> from_wire(const QueueV1<N>& wire) {
  return {.bytes = wire.bytes, .count = wire.count};
}

Ps2KeyboardV1 to_wire(const Ps2Keyboard::State& state);
Ps2Keyboard::State from_wire(const Ps2KeyboardV1& wire);
Ps2MouseV1 to_wire(const Ps2Mouse::State& state);
Ps2Mouse::State from_wire(const Ps2MouseV1& wire);

// Whether every yes-or-no is one of the two.
inline bool flags_possible(const Ps2KeyboardV1& wire) { return wire.scanning <= 1; }
inline bool flags_possible(const Ps2MouseV1& wire) {
  return wire.reporting <= 1 && wire.remote <= 1 && wire.wrap <= 1 && wire.scaling_2_to_1 <= 1;
}

}  // namespace kite::devices

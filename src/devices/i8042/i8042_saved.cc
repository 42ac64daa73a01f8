#include "devices/i8042/i8042_saved.h"

namespace kite::devices {

Ps2KeyboardV1 to_wire(const Ps2Keyboard::State& state) {
  const auto& [replies, scans, pending, last_sent, scan_set, leds, typematic, scanning] = state;
  return {.replies = to_wire(replies),
          .scans = to_wire(scans),
          .pending = pending,
          .last_sent = last_sent,
          .scan_set = scan_set,
          .leds = leds,
          .typematic = typematic,
          .scanning = scanning};
}

Ps2Keyboard::State from_wire(const Ps2KeyboardV1& wire) {
  return {.replies = from_wire(wire.replies),
          .scans = from_wire(wire.scans),
          .pending = wire.pending,
          .last_sent = wire.last_sent,
          .scan_set = wire.scan_set,
          .leds = wire.leds,
          .typematic = wire.typematic,
          .scanning = wire.scanning != 0};
}

Ps2MouseV1 to_wire(const Ps2Mouse::State& state) {
  const auto& [replies, packets, dx, dy, dz, buttons, reported_buttons, pending, last_sent, id, sample_rate, resolution,
               last_rates, reporting, remote, wrap, scaling_2_to_1] = state;
  return {.replies = to_wire(replies),
          .packets = to_wire(packets),
          .dx = dx,
          .dy = dy,
          .dz = dz,
          .buttons = buttons,
          .reported_buttons = reported_buttons,
          .pending = pending,
          .last_sent = last_sent,
          .id = id,
          .sample_rate = sample_rate,
          .resolution = resolution,
          .last_rates = last_rates,
          .reporting = reporting,
          .remote = remote,
          .wrap = wrap,
          .scaling_2_to_1 = scaling_2_to_1};
}

Ps2Mouse::State from_wire(const Ps2MouseV1& wire) {
  return {.replies = from_wire(wire.replies),
          .packets = from_wire(wire.packets),
          .dx = wire.dx,
          .dy = wire.dy,
          .dz = wire.dz,
          .buttons = wire.buttons,
          .reported_buttons = wire.reported_buttons,
          .pending = wire.pending,
          .last_sent = wire.last_sent,
          .id = wire.id,
          .sample_rate = wire.sample_rate,
          .resolution = wire.resolution,
          .last_rates = wire.last_rates,
          .reporting = wire.reporting != 0,
          .remote = wire.remote != 0,
          .wrap = wire.wrap != 0,
          .scaling_2_to_1 = wire.scaling_2_to_1 != 0};
}

}  // namespace kite::devices

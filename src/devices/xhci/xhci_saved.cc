// Saved state of the xHCI controller.
#include "devices/section.h"
#include "devices/xhci/xhci.h"

namespace kite::devices {

using namespace xhci;

namespace {

struct XhciV1 {
  static constexpr uint32_t kVersion = 1;
  struct Set {
    std::array<uint32_t, 5> numbers;    // management, moderation, table size, size, next
    std::array<uint64_t, 3> addresses;  // table, dequeue, segment
    bool cycle;
  };
  std::array<uint32_t, 4> registers;  // command, status, notifications, config
  std::array<uint64_t, 2> addresses;  // commands, contexts
  std::array<bool, 3> flags;          // the command ring's cycle, runs, put off
  std::array<Set, kInterrupters> sets;
  std::vector<uint8_t> ports, slots;
};
template <class Codec>
void visit(Codec& codec, XhciV1& wire) {
  codec.field(1, wire.registers);
  codec.field(2, wire.addresses);
  codec.field(3, wire.flags);
  codec.field(4, wire.ports);
  codec.field(5, wire.slots);
  uint16_t number = 10;
  for (XhciV1::Set& set : wire.sets) {
    codec.field(number, set.numbers);
    codec.field(static_cast<uint16_t>(number + 1), set.addresses);
    codec.field(static_cast<uint16_t>(number + 2), set.cycle);
    number = static_cast<uint16_t>(number + 3);
  }
}

constexpr size_t kPortBytes = 5;
constexpr size_t kEndpointBytes = 10, kSlotBytes = 10 + kEndpoints * kEndpointBytes;  // besides the first of a slot
constexpr uint32_t kPortBits = kConnected | kEnabled | kLinkMask | kPower | kSpeedMask | kPortChanges | kPortWritable;
constexpr uint8_t kFlagCycle = 1, kFlagParked = 2, kFlagPutOff = 4;

template <class T>
void put(std::vector<uint8_t>& bytes, T value) {
  const size_t at = bytes.size();
  bytes.resize(at + sizeof value);
  store(&bytes[at], value);
}

// Takes numbers off the front of bytes whose length is known to suffice.
class Numbers {
 public:
  explicit Numbers(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  [[nodiscard]] size_t left() const { return bytes_.size(); }
  template <class T>
  T take() {
    const T value = load<T>(bytes_.data());
    bytes_ = bytes_.subspan(sizeof value);
    return value;
  }

 private:
  std::span<const uint8_t> bytes_;
};

bool possible(const XhciV1& wire) {
  const auto& [command, status, notifications, config] = wire.registers;
  constexpr uint32_t kStatusBits = kStatusClears | kHalted | kControllerError;
  bool good = (command & ~kCommandBits) == 0 && (status & ~kStatusBits) == 0 && notifications <= 0xffff &&
              config <= kConfigBits && (wire.addresses[0] & 0xf) == 0 && (wire.addresses[1] & 0x3f) == 0;
  for (const XhciV1::Set& set : wire.sets) {
    const auto& [management, moderation, table_size, size, next] = set.numbers;
    const bool ring = size == 0 ? next == 0 : size >= kLeastRing && size <= kMostRing && next < size;
    good = good && (management & ~(kPending | kEnable)) == 0 && table_size <= 0xffff && ring &&
           (set.addresses[0] & 0x3f) == 0 && (set.addresses[2] & 0x3f) == 0;
  }
  return good;
}

}  // namespace

void Xhci::save(StateWriter& writer) {
  XhciV1 wire{};
  {
    const std::lock_guard lock(lock_);
    const auto& [command, status, notifications, config, commands, commands_running, commands_put_off, contexts,
                 interrupters, ports, slots] = state_;
    wire.registers = {command, status, notifications, config};
    wire.addresses = {commands.dequeue, contexts};
    wire.flags = {commands.cycle, commands_running, commands_put_off};
    for (unsigned number = 0; number < kInterrupters; ++number) {
      const auto& [management, moderation, table_size, table, dequeue, segment, size, next, cycle] =
          interrupters[number];
      wire.sets[number] = {.numbers = {management, moderation, table_size, size, next},
                           .addresses = {table, dequeue, segment},
                           .cycle = cycle};
    }
    for (const auto& [port_status, event_due] : ports) {
      put(wire.ports, port_status);
      put(wire.ports, static_cast<uint8_t>(event_due ? 1 : 0));
    }
    for (const auto& [enabled, state, port, context, endpoints] : slots) {
      put(wire.slots, static_cast<uint8_t>(enabled ? 1 : 0));
      if (!enabled) continue;  // the rest is as new
      put(wire.slots, state);
      put(wire.slots, port);
      put(wire.slots, context);
      for (const auto& [endpoint_state, type, ring, parked, waits] : endpoints) {
        put(wire.slots, static_cast<uint8_t>(endpoint_state | type << 4));
        put(wire.slots, static_cast<uint8_t>((ring.cycle ? kFlagCycle : 0) | (parked ? kFlagParked : 0) |
                                             (waits ? kFlagPutOff : 0)));
        put(wire.slots, ring.dequeue);
      }
    }
  }
  save_section(writer, path(), std::move(wire), [&] { save_config(writer); });
}

bool Xhci::restore_slots(std::span<const uint8_t> bytes, std::array<Slot, kSlots>& slots) const {
  Numbers numbers(bytes);
  bool good = true;
  for (Slot& slot : slots) {
    if (numbers.left() == 0) return false;
    const auto enabled = numbers.take<uint8_t>();
    if (enabled > 1 || (enabled != 0 && numbers.left() < kSlotBytes)) return false;
    slot = Slot{.enabled = enabled != 0};
    if (!slot.enabled) continue;
    slot.state = numbers.take<uint8_t>();
    slot.port = numbers.take<uint8_t>();
    slot.context = numbers.take<uint64_t>();
    good = good && slot.state <= kSlotConfigured && slot.port <= port_count() && (slot.context & 0x3f) == 0;
    for (Endpoint& endpoint : slot.endpoints) {
      const auto kind = numbers.take<uint8_t>(), flags = numbers.take<uint8_t>();
      endpoint = {.state = static_cast<uint8_t>(kind & 0xf),
                  .type = static_cast<uint8_t>(kind >> 4),
                  .ring = {.dequeue = numbers.take<uint64_t>(), .cycle = (flags & kFlagCycle) != 0},
                  .parked = (flags & kFlagParked) != 0,
                  .put_off = (flags & kFlagPutOff) != 0};
      good = good && endpoint.state <= kEndpointError && endpoint.type <= kInterruptIn &&
             (endpoint.ring.dequeue & 0xf) == 0 && flags <= (kFlagCycle | kFlagParked | kFlagPutOff);
    }
  }
  return good && numbers.left() == 0;
}

bool Xhci::restore_ports(std::span<const uint8_t> bytes, std::vector<RootPort>& ports) const {
  if (bytes.size() != port_count() * kPortBytes) return false;
  Numbers numbers(bytes);
  while (numbers.left() != 0) {
    const auto status = numbers.take<uint32_t>();
    const auto due = numbers.take<uint8_t>();
    if ((status & ~kPortBits) != 0 || (status & kPower) == 0 || due > 1) return false;
    ports.push_back({.status = status, .event_due = due != 0});
  }
  return true;
}

void Xhci::restore(StateReader& reader) {
  XhciV1 wire{};
  State state;
  if (!restore_section(reader, path(), wire, [&] {
        require(reader, possible(wire), "a register has reserved bits") &&
            require(reader, restore_ports(wire.ports, state.ports), "a port is impossible") &&
            require(reader, restore_slots(wire.slots, state.slots), "a device slot is impossible") &&
            (restore_config(reader), true);
      }))
    return;
  state.command = wire.registers[0];
  state.status = wire.registers[1];
  state.notifications = wire.registers[2];
  state.config = wire.registers[3];
  state.commands = {.dequeue = wire.addresses[0], .cycle = wire.flags[0]};
  state.commands_running = wire.flags[1];
  state.commands_put_off = wire.flags[2];
  state.contexts = wire.addresses[1];
  for (unsigned number = 0; number < kInterrupters; ++number) {
    const auto& [numbers, addresses, cycle] = wire.sets[number];
    state.interrupters[number] = {.management = numbers[0],
                                  .moderation = numbers[1],
                                  .table_size = numbers[2],
                                  .table = addresses[0],
                                  .dequeue = addresses[1],
                                  .segment = addresses[2],
                                  .size = numbers[3],
                                  .next = numbers[4],
                                  .cycle = cycle};
  }
  const std::lock_guard lock(lock_);
  state_ = std::move(state);
  // What is plugged in is not the state's to say.
  for (unsigned port = 0; port < port_count(); ++port)
    if (((state_.ports[port].status & kConnected) != 0) != (bus_.device(port) != nullptr)) connect(port);
}

}  // namespace kite::devices

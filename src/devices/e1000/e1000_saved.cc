// The saved state of an e1000.
#include "devices/e1000/e1000.h"
#include "devices/section.h"

namespace kite::devices {

using namespace e1000;

namespace {

using ContextWords = std::array<uint16_t, 9>;

struct E1000V1 {
  static constexpr uint32_t kVersion = 1;
  E1000Registers::Words registers;
  uint32_t port_address;
  ContextWords plain, segmented;
  std::vector<uint8_t> packet;
  std::array<bool, 3> packet_flags;     // started, whole, bad
  std::array<uint64_t, 2> packet_ends;  // second halves of its first and last descriptor
  std::array<uint32_t, 2> packet_sent;  // bytes, frames
  std::array<int64_t, 6> deadlines;
  bool line;
  std::array<uint16_t, E1000Phy::kRegisters> phy;
  std::array<bool, 4> phy_flags;  // cable, negotiating, negotiated, lost
  std::array<uint16_t, E1000Eeprom::kWords> eeprom;
  std::array<bool, 4> eeprom_flags;  // selected, clock, out, writable
  uint32_t eeprom_shift;
  std::array<uint8_t, 3> eeprom_counts;  // bits, address, left
};
template <class Codec>
void visit(Codec& codec, E1000V1& wire) {
  codec.field(1, wire.registers);
  codec.field(2, wire.port_address);
  codec.field(3, wire.plain);
  codec.field(4, wire.segmented);
  codec.field(5, wire.packet);
  codec.field(6, wire.packet_flags);
  codec.field(7, wire.packet_ends);
  codec.field(8, wire.packet_sent);
  codec.field(9, wire.deadlines);
  codec.field(10, wire.line);
  codec.field(11, wire.phy);
  codec.field(12, wire.phy_flags);
  codec.field(13, wire.eeprom);
  codec.field(14, wire.eeprom_flags);
  codec.field(15, wire.eeprom_shift);
  codec.field(16, wire.eeprom_counts);
}

template <class Context>
ContextWords to_words(const Context& context) {
  const auto& [ip_start, ip_place, l4_start, l4_place, command, header, ip_end, l4_end, mss] = context;
  return {ip_start, ip_place, l4_start, l4_place, command, header, ip_end, l4_end, mss};
}
template <class Context>
Context from_words(const ContextWords& words) {
  const auto byte = [&](size_t at) { return static_cast<uint8_t>(words[at]); };
  return {.ip_start = byte(0),
          .ip_place = byte(1),
          .l4_start = byte(2),
          .l4_place = byte(3),
          .command = byte(4),
          .header = byte(5),
          .ip_end = words[6],
          .l4_end = words[7],
          .mss = words[8]};
}
bool fits(const ContextWords& words) {
  return std::ranges::all_of(std::span(words).first(6), [](uint16_t word) { return word <= 0xff; });
}

bool possible_times(const std::array<int64_t, 6>& times) {
  return std::ranges::all_of(times, [](int64_t time) { return time >= 0 && time <= Clock::kNever / 2; });
}

E1000Phy::State phy_of(const E1000V1& wire) {
  const auto& [cable, negotiating, negotiated, lost] = wire.phy_flags;
  return {.registers = wire.phy, .cable = cable, .negotiating = negotiating, .negotiated = negotiated, .lost = lost};
}

E1000Eeprom::State eeprom_of(const E1000V1& wire) {
  const auto& [selected, clock, out, writable] = wire.eeprom_flags;
  const auto& [bits, address, left] = wire.eeprom_counts;
  return {.words = wire.eeprom,
          .selected = selected,
          .clock = clock,
          .out = out,
          .writable = writable,
          .shift = wire.eeprom_shift,
          .bits = bits,
          .address = address,
          .left = left};
}

}  // namespace

void E1000::save(StateWriter& writer) {
  E1000V1 wire{};
  {
    const std::lock_guard lock(lock_);
    static_assert(kDeadlines == 6);
    const auto& [registers, port_address, plain, segmented, packet, deadlines, line] = state_;
    const auto& [bytes, started, whole, bad, first, last, bytes_sent, frames] = packet;
    const auto& [phy, cable, negotiating, negotiated, lost] = phy_.state();
    const auto& [words, selected, clock, out, writable, shift, bits, address, left] = eeprom_.state();
    wire = {.registers = registers.words(),
            .port_address = port_address,
            .plain = to_words(plain),
            .segmented = to_words(segmented),
            .packet = bytes,
            .packet_flags = {started, whole, bad},
            .packet_ends = {first, last},
            .packet_sent = {bytes_sent, frames},
            .deadlines = deadlines,
            .line = line,
            .phy = phy,
            .phy_flags = {cable, negotiating, negotiated, lost},
            .eeprom = words,
            .eeprom_flags = {selected, clock, out, writable},
            .eeprom_shift = shift,
            .eeprom_counts = {bits, address, left}};
  }
  save_section(writer, path(), std::move(wire), [&] { save_config(writer); });
}

void E1000::restore(StateReader& reader) {
  E1000V1 wire{};
  const auto possible = [&] {
    const auto& [started, whole, bad] = wire.packet_flags;
    const E1000Phy::State phy = phy_of(wire);
    return require(reader, E1000Registers::possible(wire.registers), "a register has bits that it cannot have") &&
           require(reader, (wire.port_address & ~(kMemoryBytes - 4)) == 0, "IOADDR is no register's") &&
           require(reader, fits(wire.plain) && fits(wire.segmented), "a context has too large numbers") &&
           require(reader, wire.packet.size() <= kMostPacket && wire.packet_sent[0] <= wire.packet.size(),
                   "a packet is too long") &&
           require(reader, started || (!whole && !bad && wire.packet.empty()), "a packet has no beginning") &&
           require(reader, possible_times(wire.deadlines), "an impossible time") &&
           require(reader, !phy.negotiating || (phy.cable && !phy.negotiated), "negotiation goes on and is over") &&
           require(reader, phy.negotiating == (wire.deadlines[kNegotiation] != 0), "negotiation has no end") &&
           require(reader, E1000Eeprom::possible(eeprom_of(wire)), "the EEPROM counts impossible bits");
  };
  if (!restore_section(reader, path(), wire, [&] {
        if (possible()) restore_config(reader);
      }))
    return;
  {
    const std::lock_guard lock(lock_);
    ++life_;
    state_.registers.set_words(wire.registers);
    state_.port_address = wire.port_address;
    state_.plain = from_words<Context>(wire.plain);
    state_.segmented = from_words<Context>(wire.segmented);
    state_.packet = {.bytes = std::move(wire.packet),
                     .started = wire.packet_flags[0],
                     .whole = wire.packet_flags[1],
                     .bad = wire.packet_flags[2],
                     .first = wire.packet_ends[0],
                     .last = wire.packet_ends[1],
                     .sent = wire.packet_sent[0],
                     .frames = wire.packet_sent[1]};
    state_.deadlines = wire.deadlines;
    state_.line = wire.line;
    phy_.set_state(phy_of(wire));
    eeprom_.set_state(eeprom_of(wire));
    // Whether there is a cable is not the state's to say.
    phy_.set_cable(backend_ != nullptr && backend_->link_up());
    update_link();
    drive_interrupt();
    arm();
  }
  ask_for_both();
}

}  // namespace kite::devices

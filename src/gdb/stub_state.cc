// Registers, memory, points.
#include "gdb/stub.h"
#include "machine/saved_vcpu.h"

namespace kite::gdb {

namespace {

// "ADDRESS,LENGTH", and with `end` what comes behind it.
struct Range {
  uint64_t address = 0, bytes = 0;
};
std::optional<Range> take_range(std::string_view& text, std::string_view end) {
  const auto address = take_number(text);
  if (!address || !take(text, ",")) return std::nullopt;
  const auto bytes = take_number(text);
  if (!bytes || (end.empty() ? !text.empty() : !take(text, end))) return std::nullopt;
  return Range{*address, *bytes};
}

}  // namespace

// --- registers

// CR8 is a part of the local APIC.
x86::ArchState Stub::state_of(size_t vcpu) {
  x86::ArchState state;
  machine_.vcpu(vcpu).get_state(state);
  if (const LocalApic* apic = machine_.board().local_apic(static_cast<uint32_t>(vcpu)); apic != nullptr)
    state.cr8 = apic->cr8();
  return state;
}

// False: no processor can be in it.
bool Stub::set_state(size_t vcpu, const x86::ArchState& state) {
  if (!machine::is_possible(state)) return false;
  machine_.vcpu(vcpu).set_state(state);
  if (LocalApic* apic = machine_.board().local_apic(static_cast<uint32_t>(vcpu)); apic != nullptr)
    apic->set_cr8(static_cast<uint8_t>(state.cr8));
  return true;
}

// A client that has no description takes those that it knows.
size_t Stub::registers_shown() const {
  if (described_) return registers_.count();
  size_t known = 0;
  while (known < registers_.count() && registers_.name_of(known) != "fs_base") ++known;
  return known;
}

void Stub::read_registers(std::string_view) {
  const x86::ArchState state = state_of(thread_);
  std::string text;
  for (size_t number = 0; number < registers_shown(); ++number) {
    std::vector<uint8_t> value(registers_.bytes_of(number));
    registers_.read(state, number, value);
    text += to_hex(value);
  }
  reply(text);
}

// As many as there are values of.
void Stub::write_registers(std::string_view rest) {
  const auto bytes = from_hex(rest);
  if (!bytes) return reply(kBadArgument);
  x86::ArchState state = state_of(thread_);
  std::span<const uint8_t> left(*bytes);
  for (size_t number = 0; number < registers_shown() && left.size() >= registers_.bytes_of(number); ++number) {
    if (!registers_.write(state, number, left.first(registers_.bytes_of(number)))) return reply(kBadArgument);
    left = left.subspan(registers_.bytes_of(number));
  }
  reply_ok(left.empty() && set_state(thread_, state));
}

void Stub::read_register(std::string_view rest) {
  const auto number = take_number(rest);
  if (!number || !rest.empty() || *number >= registers_.count()) return reply(kBadAddress);
  std::vector<uint8_t> value(registers_.bytes_of(*number));
  registers_.read(state_of(thread_), *number, value);
  reply(to_hex(value));
}

void Stub::write_register(std::string_view rest) {
  const auto number = take_number(rest);
  if (!number || !take(rest, "=") || *number >= registers_.count()) return reply(kBadArgument);
  const auto value = from_hex(rest);
  if (!value || value->size() != registers_.bytes_of(*number)) return reply(kBadArgument);
  x86::ArchState state = state_of(thread_);
  reply_ok(registers_.write(state, *number, *value) && set_state(thread_, state));
}

// --- memory

// [E.2, m] Fewer bytes than were asked for say that the rest cannot be read.
void Stub::read_memory(std::string_view rest) {
  const auto range = take_range(rest, "");
  if (!range || range->bytes > PacketReader::kMostBytes / 2) return reply(kBadArgument);
  std::vector<uint8_t> bytes(range->bytes);
  bytes.resize(view_.read(thread_, range->address, bytes));
  if (bytes.empty() && range->bytes != 0) return reply(kBadAddress);
  reply(to_hex(bytes));
}

void Stub::write_memory(std::string_view rest) {
  const auto range = take_range(rest, ":");
  const auto bytes = from_hex(rest);
  if (!range || !bytes || bytes->size() != range->bytes) return reply(kBadArgument);
  reply_ok(view_.write(thread_, range->address, *bytes) == bytes->size(), kBadAddress);
}

void Stub::write_binary(std::string_view rest) {
  const auto range = take_range(rest, ":");
  if (!range || rest.size() != range->bytes) return reply(kBadArgument);
  const std::span bytes(reinterpret_cast<const uint8_t*>(rest.data()), rest.size());
  reply_ok(view_.write(thread_, range->address, bytes) == bytes.size(), kBadAddress);
}

// --- points

void Stub::change_point(std::string_view rest,
                        Points::Outcome (Points::*change)(size_t, PointKind, uint64_t, uint64_t)) {
  const auto kind = take_number(rest);
  const auto range = take(rest, ",") ? take_range(rest, "") : std::nullopt;
  if (!kind || !range) return reply(kBadArgument);
  if (*kind > static_cast<uint64_t>(PointKind::kAccess)) return reply("");
  switch ((points_.*change)(thread_, static_cast<PointKind>(*kind), range->address, range->bytes)) {
    case Points::Outcome::kDone: return reply("OK");
    case Points::Outcome::kUnsupported: return reply("");
    case Points::Outcome::kFailed: return reply(kBadArgument);
  }
}

void Stub::insert_point(std::string_view rest) { change_point(rest, &Points::insert); }
void Stub::remove_point(std::string_view rest) { change_point(rest, &Points::remove); }

}  // namespace kite::gdb

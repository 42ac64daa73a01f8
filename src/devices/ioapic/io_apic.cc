#include "devices/ioapic/io_apic.h"

#include <utility>

#include "devices/apic/apic_message.h"
#include "devices/section.h"

namespace kite::devices {
namespace {

constexpr uint64_t kRegionSize = 0x1000;
constexpr uint64_t kSelectOffset = 0x00;
constexpr uint64_t kWindowOffset = 0x10;
constexpr uint64_t kEoiOffset = 0x40;

// Registers behind the window. [82093AA] 3.2
enum Register : uint8_t {
  kId = 0x00,           // rw  27:24
  kVersion = 0x01,      // r-
  kArbitration = 0x02,  // r-  27:24
  kTable = 0x10,        // rw  two for each input
};
constexpr uint32_t kIdMask = 0x0f000000;

// A redirection table entry. [82093AA] 3.2.4
constexpr uint64_t kModeShift = 8;
constexpr uint64_t kLogical = 1u << 11;
constexpr uint64_t kRemoteIrr = 1u << 14;  // r-
constexpr uint64_t kLevel = 1u << 15;
constexpr uint64_t kMasked = 1u << 16;
constexpr uint64_t kWritable = 0xff00'0000'0001'afff;  // without delivery status and remote IRR
constexpr unsigned kDestinationShift = 56;

constexpr uint8_t kVersionWithEoi = 0x20;

DeliveryMode mode_of(uint64_t entry) { return static_cast<DeliveryMode>(entry >> kModeShift & 7); }

// [82093AA] 3.2.4: SMI, NMI, INIT and ExtINT are always treated as edge-triggered.
bool is_level(uint64_t entry) {
  const DeliveryMode mode = mode_of(entry);
  return (entry & kLevel) != 0 && (mode == DeliveryMode::kFixed || mode == DeliveryMode::kLowestPriority);
}

struct IoApicStateV1 {
  static constexpr uint32_t kVersion = 1;
  std::array<uint64_t, IoApic::kInputs> entries{};
  uint32_t levels = 0, id = 0;
  uint8_t select = 0;
};

template <class Codec>
void visit(Codec& codec, IoApicStateV1& s) {
  codec.field(1, s.entries);
  codec.field(2, s.levels);
  codec.field(3, s.id);
  codec.field(4, s.select);
}

}  // namespace

IoApic::IoApic(std::string path, const IoApicConfig& config, ApicBus& bus)
    : Device(std::move(path)), config_(config), bus_(bus) {
  region_ = Region::io("ioapic", kRegionSize, *this, {.min_size = 1, .max_size = 4});
  state_.entries.fill(kMasked);
  bus.attach(static_cast<EoiListener&>(*this));
}

void IoApic::set_irq(uint32_t line, bool level) {
  if (line >= kInputs) return;
  const std::lock_guard guard(lock_);
  const uint32_t bit = 1u << line;
  if (((state_.levels & bit) != 0) == level) return;
  state_.levels ^= bit;
  const uint64_t entry = state_.entries[line];
  if (is_level(entry)) return evaluate(line);
  // [82093AA] 3.2.4: an edge at a masked input is ignored; it is not remembered.
  if (level && (entry & kMasked) == 0) deliver(line);
}

void IoApic::evaluate(unsigned input) {
  uint64_t& entry = state_.entries[input];
  if (!is_level(entry) || (entry & (kMasked | kRemoteIrr)) != 0 || (state_.levels >> input & 1) == 0) return;
  // Remote IRR: a local APIC has taken it. While none does, it is sent again when that may have changed.
  if (deliver(input)) entry |= kRemoteIrr;
}

bool IoApic::deliver(unsigned input) {
  const std::optional<ApicMessage> message = message_of(input);
  return message && bus_.send(*message);
}

std::optional<ApicMessage> IoApic::message_of(unsigned input) const {
  const uint64_t entry = state_.entries[input];
  const DeliveryMode mode = mode_of(entry);
  if (mode == DeliveryMode::kReserved || mode == DeliveryMode::kStartup) return std::nullopt;
  return ApicMessage{.destination = static_cast<uint32_t>(entry >> kDestinationShift),
                     .logical = (entry & kLogical) != 0,
                     .mode = mode,
                     .vector = static_cast<uint8_t>(entry),
                     .level = is_level(entry)};
}

void IoApic::tell_pin(unsigned input) {
  if (pin_listener_ == nullptr) return;
  const bool masked = (state_.entries[input] & kMasked) != 0;
  pin_listener_->pin_changed(input, masked ? std::nullopt : message_of(input));
}

void IoApic::end_of_interrupt(uint8_t vector) {
  const std::lock_guard guard(lock_);
  end_level(vector);
}

void IoApic::destinations_changed() {
  const std::lock_guard guard(lock_);
  for (unsigned input = 0; input < kInputs; ++input) evaluate(input);
}

void IoApic::end_level(uint8_t vector) {
  for (unsigned input = 0; input < kInputs; ++input) {
    uint64_t& entry = state_.entries[input];
    if (static_cast<uint8_t>(entry) != vector || (entry & kRemoteIrr) == 0) continue;
    entry &= ~kRemoteIrr;
    evaluate(input);  // still asserted: again
  }
}

uint32_t IoApic::read_register() const {
  const uint8_t select = state_.select;
  if (select >= kTable && select < kTable + 2 * kInputs) {
    const uint64_t entry = state_.entries[(select - kTable) / 2u];
    return static_cast<uint32_t>((select & 1) != 0 ? entry >> 32 : entry);
  }
  switch (select) {
    case kId:
    case kArbitration: return state_.id;  // [82093AA] 3.2.3: loaded whenever the id is written
    case kVersion: return (kInputs - 1) << 16 | config_.version;
    default: return 0;
  }
}

void IoApic::write_register(uint32_t value) {
  const uint8_t select = state_.select;
  if (select == kId) {
    state_.id = value & kIdMask;
  } else if (select >= kTable && select < kTable + 2 * kInputs) {
    write_entry((select - kTable) / 2u, (select & 1) != 0, value);
  }
}

void IoApic::write_entry(unsigned input, bool high, uint32_t value) {
  uint64_t& entry = state_.entries[input];
  const uint64_t half = high ? 0xffffffff'00000000 : 0xffffffff;
  const uint64_t written = high ? uint64_t{value} << 32 : value;
  entry = (entry & ~(half & kWritable)) | (written & half & kWritable);
  // An input that was made edge-triggered has no level under way; drivers of version 0x11 end one this way.
  if (!is_level(entry)) entry &= ~kRemoteIrr;
  tell_pin(input);
  evaluate(input);
}

uint64_t IoApic::io_read(uint64_t offset, unsigned) {
  const std::lock_guard guard(lock_);
  switch (offset) {
    case kSelectOffset: return state_.select;
    case kWindowOffset: return read_register();
    default: return 0;
  }
}

void IoApic::io_write(uint64_t offset, unsigned size, uint64_t value) {
  const std::lock_guard guard(lock_);
  switch (offset) {
    case kSelectOffset: state_.select = static_cast<uint8_t>(value); break;
    case kWindowOffset:
      if (size == 4) write_register(static_cast<uint32_t>(value));  // [82093AA] 3.1.2: 32-bit accesses only
      break;
    case kEoiOffset:
      if (config_.version >= kVersionWithEoi) end_level(static_cast<uint8_t>(value));
      break;
    default: break;
  }
}

void IoApic::reset() {
  const std::lock_guard guard(lock_);
  const uint32_t levels = state_.levels;  // the devices at the other ends decide about those
  state_ = {};
  state_.entries.fill(kMasked);
  state_.levels = levels;
  for (unsigned input = 0; input < kInputs; ++input) tell_pin(input);
}

void IoApic::save(StateWriter& writer) {
  const std::lock_guard guard(lock_);
  const auto& [entries, levels, id, select] = state_;
  IoApicStateV1 wire{entries, levels, id, select};
  save_section(writer, path(), wire);
}

void IoApic::restore(StateReader& reader) {
  IoApicStateV1 wire;
  if (!restore_section(reader, path(), wire)) return;
  for (unsigned input = 0; input < kInputs; ++input) {
    const uint64_t entry = wire.entries[input];
    if ((entry & ~(kWritable | kRemoteIrr)) != 0)
      reader.reject(fmt::format("{}: input {} has reserved bits", path(), input));
    if ((entry & kRemoteIrr) != 0 && !is_level(entry))
      reader.reject(fmt::format("{}: input {} is edge-triggered and has a level under way", path(), input));
  }
  if (wire.levels >> kInputs != 0) reader.reject(fmt::format("{}: there are only {} inputs", path(), kInputs));
  if ((wire.id & ~kIdMask) != 0) reader.reject(fmt::format("{}: the id has reserved bits", path()));
  if (!reader.ok()) return;
  const std::lock_guard guard(lock_);
  state_ = {wire.entries, wire.levels, wire.id, wire.select};
  for (unsigned input = 0; input < kInputs; ++input) tell_pin(input);
}

}  // namespace kite::devices

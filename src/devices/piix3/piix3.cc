#include "devices/piix3/piix3.h"

#include "devices/piix3/piix3_regs.h"
#include "devices/section.h"
#include "support/bits.h"

namespace kite::devices {

using namespace piix3_regs;

namespace {

constexpr unsigned kPirqs = 4;
constexpr uint8_t kCommand = 0x04, kStatus = 0x06, kHeaderType = 0x0e;

struct Piix3V1 {
  static constexpr uint32_t kVersion = 1;
  uint8_t reset_control;
  uint8_t pirq_levels;
  uint16_t isa_levels;
};
template <class Codec>
void visit(Codec& codec, Piix3V1& wire) {
  codec.field(1, wire.reset_control);
  codec.field(2, wire.pirq_levels);
  codec.field(3, wire.isa_levels);
}

// One byte of configuration space: its value after a reset and the bits a guest may change.
struct Register {
  uint8_t offset, reset, writable;
};
constexpr Register kRegisters[] = {
    {kIort, 0x4d, 0xff},        {kXbcs, 0x03, 0xff},        {kXbcs + 1, 0x00, 0x01},    {kPirqrcA, 0x80, 0x8f},
    {kPirqrcA + 1, 0x80, 0x8f}, {kPirqrcA + 2, 0x80, 0x8f}, {kPirqrcA + 3, 0x80, 0x8f}, {kTom, 0x02, 0xfe},
    {kMstat, 0x00, 0x00},       {kMstat + 1, 0x00, 0x80},   {kMbirq0, 0x80, 0xef},      {kMbdma0, 0x0c, 0x8f},
    {kMbdma0 + 1, 0x0c, 0x8f},  {kPcsc, 0x02, 0xff},        {kPcsc + 1, 0x00, 0xff},    {kApicbase, 0x00, 0x7f},
    {kDlc, 0x00, 0x0f},         {kSmicntl, 0x08, 0x1f},     {kSmien, 0x00, 0xff},       {kSmien + 1, 0x00, 0x01},
    {kSee, 0x00, 0xff},         {kSee + 1, 0x00, 0xff},     {kSee + 2, 0x00, 0xff},     {kSee + 3, 0x00, 0xff},
    {kFtmr, 0x0f, 0xff},        {kSmireq, 0x00, 0xff},      {kSmireq + 1, 0x00, 0x01},  {kCtltmr, 0x00, 0xff},
    {kCthtmr, 0x00, 0xff},
};

}  // namespace

Piix3::Piix3(std::string path, Wiring wiring)
    : PciDevice(std::move(path), {.vendor = 0x8086, .device = 0x7000, .class_code = 0x060100}),
      wiring_(std::move(wiring)),
      reset_control_(wiring_.reset, ResetControl::kCpu | ResetControl::kHard) {
  config_.bytes[kHeaderType] = 0x80;  // several functions
  for (const Register& reg : kRegisters) config_.writable[reg.offset] = reg.writable;
  // [PIIX3] 2.2.3: I/O, memory and bus mastering are always on; special cycles and SERR# can be chosen.
  config_.writable[kCommand] = 0x08;
  config_.writable[kCommand + 1] = 0x01;
  const std::lock_guard lock(config_lock_);
  set_reset_values();
}

void Piix3::set_reset_values() {
  for (const Register& reg : kRegisters) config_.bytes[reg.offset] = reg.reset;
  config_.set16(kCommand, 0x0007);
  config_.set16(kStatus, 0x0200);  // medium DEVSEL#
  load_routes();
}

void Piix3::reset() {
  reset_config();
  const std::lock_guard lock(config_lock_);
  set_reset_values();
  reset_control_.set_value(0);  // the levels are what others drive: they lower their own lines
}

void Piix3::config_written(uint16_t offset, unsigned size, uint32_t) {
  if (offset < kPirqrcA + kPirqs && offset + size > kPirqrcA) load_routes();
}

void Piix3::load_routes() {
  const std::lock_guard lock(lock_);
  for (unsigned i = 0; i < kPirqs; ++i) routes_[i] = config_.bytes[kPirqrcA + i];
  drive_changed();
}

void Piix3::set_irq(uint32_t line, bool level) {
  const std::lock_guard lock(lock_);
  const auto put = [level](auto& levels, uint32_t n) {
    using Levels = std::remove_reference_t<decltype(levels)>;
    levels = static_cast<Levels>(level ? levels | 1u << n : levels & ~(1u << n));
  };
  if (line < kPirqs) {
    put(state_.pirq_levels, line);
  } else if (line >= kIsaSource && line < kIsaSource + 16) {
    put(state_.isa_levels, line - kIsaSource);
  }
  drive_changed();
}

void Piix3::drive_changed() {
  unsigned levels = state_.isa_levels;
  for (unsigned i = 0; i < kPirqs; ++i) {
    const unsigned irq = 1u << (routes_[i] & kPirqIrqMask);
    if ((state_.pirq_levels & 1u << i) != 0 && (routes_[i] & kPirqDisabled) == 0) levels |= irq & kPirqAllowed;
  }
  const unsigned changed = levels ^ driven_;
  driven_ = static_cast<uint16_t>(levels);
  for (unsigned i = 0; i < 16; ++i)
    if ((changed & 1u << i) != 0) wiring_.isa_irqs[i].set((levels & 1u << i) != 0);
}

void Piix3::save(StateWriter& writer) {
  const State state = [this] {
    const std::lock_guard lock(lock_);
    return state_;
  }();
  const auto& [pirq_levels, isa_levels] = state;
  save_section(writer, path(),
               Piix3V1{.reset_control = reset_control_.value(), .pirq_levels = pirq_levels, .isa_levels = isa_levels},
               [&] { save_config(writer); });
}

void Piix3::restore(StateReader& reader) {
  Piix3V1 wire{};
  const auto possible = [&] {
    return require(reader, (wire.reset_control & ~reset_control_.writable()) == 0, "reset control has unknown bits") &&
           require(reader, wire.pirq_levels < bit<uint8_t>(kPirqs), "a PIRQ above D is driven");
  };
  if (!restore_section(reader, path(), wire, [&] {
        if (possible()) restore_config(reader);
      }))
    return;
  const std::lock_guard lock(config_lock_);
  {
    const std::lock_guard state_lock(lock_);
    state_ = State{.pirq_levels = wire.pirq_levels, .isa_levels = wire.isa_levels};
  }
  reset_control_.set_value(wire.reset_control);
  load_routes();
}

}  // namespace kite::devices

#include "devices/ahci/ahci.h"

#include <algorithm>

#include "devices/section.h"

namespace kite::devices {

using namespace ahci;

namespace {

struct AhciV1 {
  static constexpr uint32_t kVersion = 1;
  struct Port {
    std::array<uint64_t, 2> addresses;  // command list, FISes
    std::array<uint32_t, 9> registers;  // IS, IE, CMD, TFD, SIG, SCTL, SERR, SACT, CI
    std::array<bool, 3> flags;          // signature due, halted, running
    uint8_t slot;
    std::array<uint32_t, 4> progress;  // entry, bytes used of it, bytes moved, queued tags
  };
  std::array<uint32_t, 3> host;  // GHC, IS, index
  bool level;
  std::array<Port, kPorts> ports;
};
template <class Codec>
void visit(Codec& codec, AhciV1& wire) {
  codec.field(1, wire.host);
  codec.field(2, wire.level);
  uint16_t number = 10;
  for (AhciV1::Port& port : wire.ports) {
    codec.field(number, port.addresses);
    codec.field(static_cast<uint16_t>(number + 1), port.registers);
    codec.field(static_cast<uint16_t>(number + 2), port.flags);
    codec.field(static_cast<uint16_t>(number + 3), port.slot);
    codec.field(static_cast<uint16_t>(number + 4), port.progress);
    number = static_cast<uint16_t>(number + 10);
  }
}

AhciV1::Port to_wire(const AhciPort::State& state) {
  const auto& [clb, fb, is, ie, cmd, tfd, sig, sctl, serr, sact, ci, signature_due, halted, running, slot, entry, used,
               moved, queued] = state;
  return {.addresses = {clb, fb},
          .registers = {is, ie, cmd, tfd, sig, sctl, serr, sact, ci},
          .flags = {signature_due, halted, running},
          .slot = slot,
          .progress = {entry, used, moved, queued}};
}

AhciPort::State from_wire(const AhciV1::Port& wire) {
  const auto& r = wire.registers;
  return {.clb = wire.addresses[0],
          .fb = wire.addresses[1],
          .is = r[0],
          .ie = r[1],
          .cmd = r[2],
          .tfd = r[3],
          .sig = r[4],
          .sctl = r[5],
          .serr = r[6],
          .sact = r[7],
          .ci = r[8],
          .signature_due = wire.flags[0],
          .halted = wire.flags[1],
          .running = wire.flags[2],
          .slot = wire.slot,
          .entry = wire.progress[0],
          .used = wire.progress[1],
          .moved = wire.progress[2],
          .queued = wire.progress[3]};
}

}  // namespace

Ahci::Ahci(std::string path, Wiring wiring)
    : PciDevice(std::move(path), {.vendor = 0x8086, .device = 0x2922, .revision = 0x02, .class_code = 0x010601}),
      abar_window_(*this, &Ahci::read_abar, &Ahci::write_abar),
      pair_window_(*this, &Ahci::read_pair, &Ahci::write_pair),
      msi_(*this, {.offset = kMsiOffset, .vectors = 1, .maskable = false}) {
  declare_bar(4, Region::io("ahci-index", kPairSize, pair_window_, {.min_size = 4, .max_size = 4}), {.io = true});
  declare_bar(5, Region::io("ahci", kAbarSize, abar_window_, {.min_size = 4, .max_size = 4}), {});
  set_interrupt_pin(1);
  add_capability(0x12, kSataCap);
  config_.set16(kSataCap + 2, kSataCapRevision);
  config_.set32(kSataCap + 4, kSataCapLocation);
  config_.writable[kPcs92] = 0x3f;
  for (unsigned i = 0; i < kPorts; ++i) {
    ports_[i] =
        std::make_unique<AhciPort>(AtaBus::Config{.name = wiring.bus_names[i], .units = 1, .number = i, .serial = true},
                                   AhciPort::Wiring{.memory = wiring.memory,
                                                    .lock = lock_,
                                                    .changed = [this] { changed(); },
                                                    .may_master = [this] { return may_master(); }});
  }
  set_reset_values();
}

void Ahci::set_reset_values() {
  const std::lock_guard lock(config_lock_);
  config_.bytes[kMap] = kMapAhci;
  config_.bytes[kPcs92] = 0;
}

void Ahci::reset() {
  reset_config();
  set_reset_values();
  const std::lock_guard lock(lock_);
  state_ = State{.ghc = kGhcAe};
  for (auto& port : ports_) port->reset_power();
}

void Ahci::start() {
  const std::lock_guard lock(lock_);
  for (auto& port : ports_) port->start();
  changed();
}

// --- registers

uint64_t Ahci::read_abar(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  return read_register(offset);
}

void Ahci::write_abar(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard lock(lock_);
  write_register(offset, static_cast<uint32_t>(value));
}

uint64_t Ahci::read_pair(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  if (offset == kPairIndex) return state_.index;
  return offset == kPairData ? read_register(state_.index) : 0;
}

void Ahci::write_pair(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard lock(lock_);
  if (offset == kPairIndex) state_.index = static_cast<uint32_t>(value) & (kAbarSize - 4);
  if (offset == kPairData) write_register(state_.index, static_cast<uint32_t>(value));
}

uint32_t Ahci::read_register(uint64_t offset) const {
  if (offset >= kPortBase) {
    const uint64_t port = (offset - kPortBase) / kPortSize;
    return port < kPorts ? ports_[port]->read((offset - kPortBase) % kPortSize) : 0;
  }
  switch (offset) {
    case kCap: return kCapValue;
    case kGhc: return state_.ghc;
    case kIs: return state_.is;
    case kPi: return (1u << kPorts) - 1;
    case kVs: return kVersion;
    default: return 0;
  }
}

void Ahci::write_register(uint64_t offset, uint32_t value) {
  if ((state_.ghc & kGhcHr) != 0) return;  // until the reset is over
  if (offset >= kPortBase) {
    const uint64_t port = (offset - kPortBase) / kPortSize;
    if (port < kPorts) ports_[port]->write((offset - kPortBase) % kPortSize, value);
  } else if (offset == kGhc) {
    write_ghc(value);
  } else if (offset == kIs) {
    state_.is &= ~value;
    changed();
    return drive_interrupt(true);
  }
  changed();
}

// [AHCI] 10.4.3: HR reads 1 until everything has stopped.
void Ahci::write_ghc(uint32_t value) {
  if ((value & kGhcHr) == 0) {
    state_.ghc = kGhcAe | (value & kGhcIe);
    return;
  }
  state_.ghc = kGhcAe | kGhcHr;
  state_.is = 0;
  for (auto& port : ports_) port->reset_adapter();
}

bool Ahci::ports_busy() const {
  return std::ranges::any_of(ports_, [](const auto& port) { return port->busy(); });
}

// --- interrupts. [AHCI] 10.7

void Ahci::changed() {
  if ((state_.ghc & kGhcHr) != 0 && !ports_busy()) state_.ghc = kGhcAe;
  const uint32_t before = state_.is;
  for (unsigned i = 0; i < kPorts; ++i)
    if (ports_[i] != nullptr && ports_[i]->interrupts()) state_.is |= 1u << i;
  drive_interrupt((state_.is & ~before) != 0);
}

// `again`: a message even if the level was high before.
void Ahci::drive_interrupt(bool again) {
  const bool level = (state_.ghc & kGhcIe) != 0 && state_.is != 0;
  if (msi_.enabled()) {
    set_intx(false);
    if (level && (again || !state_.level)) msi_.notify(0);
  } else {
    set_intx(level);
  }
  state_.level = level;
}

// --- saved state

void Ahci::save(StateWriter& writer) {
  AhciV1 wire{};
  {
    const std::lock_guard lock(lock_);
    const auto& [ghc, is, index, level] = state_;
    wire.host = {ghc, is, index};
    wire.level = level;
    for (unsigned i = 0; i < kPorts; ++i) wire.ports[i] = to_wire(ports_[i]->snapshot());
  }
  save_section(writer, path(), wire, [&] { save_config(writer); });
}

void Ahci::restore(StateReader& reader) {
  AhciV1 wire{};
  if (!restore_section(reader, path(), wire, [&] {
        const auto& [ghc, is, index] = wire.host;
        bool good =
            (ghc & ~(kGhcAe | kGhcIe | kGhcHr)) == 0 && (is >> kPorts) == 0 && index < kAbarSize && index % 4 == 0;
        for (const AhciV1::Port& port : wire.ports) good = good && AhciPort::possible(from_wire(port));
        if (require(reader, good, "a register has reserved bits")) restore_config(reader);
      }))
    return;
  const std::lock_guard lock(lock_);
  state_ = {.ghc = wire.host[0], .is = wire.host[1], .index = wire.host[2], .level = wire.level};
  for (unsigned i = 0; i < kPorts; ++i) ports_[i]->restore(from_wire(wire.ports[i]));
  if (!msi_.enabled()) set_intx(state_.level);
}

}  // namespace kite::devices

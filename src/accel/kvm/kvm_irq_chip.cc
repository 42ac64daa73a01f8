#include "accel/kvm/kvm_irq_chip.h"

#include <cerrno>
#include <cstring>

#include "support/log.h"

namespace kite {

namespace {

constexpr uint32_t kFirstRoute = KvmIrqChip::kPins;
constexpr uint32_t kPicInputs = 16, kCascade = 2, kTimerGsi = 0, kTimerPin = 2;
constexpr uint64_t kIoApicBase = 0xfec00000;
constexpr uint64_t kMasked = 1u << 16;

kvm_irq_routing_entry chip_route(uint32_t gsi, uint32_t chip, uint32_t pin) {
  kvm_irq_routing_entry entry{};
  entry.gsi = gsi;
  entry.type = KVM_IRQ_ROUTING_IRQCHIP;
  entry.u.irqchip.irqchip = chip;
  entry.u.irqchip.pin = pin;
  return entry;
}

kvm_irq_routing_entry msi_route(uint32_t gsi, const MsiWrite& message) {
  kvm_irq_routing_entry entry{};
  entry.gsi = gsi;
  entry.type = KVM_IRQ_ROUTING_MSI;
  entry.u.msi.address_lo = static_cast<uint32_t>(message.address);
  entry.u.msi.address_hi = static_cast<uint32_t>(message.address >> 32);
  entry.u.msi.data = message.data;
  return entry;
}

Result<> did(int answer, const char* what) {
  if (answer >= 0) return {};
  return fail("KVM refuses {}: {}", what, errno_text(-answer));
}

}  // namespace

KvmIrqChip::KvmIrqChip(const KvmSystem& system, const KvmFd& vm, Parts parts)
    : vm_(vm),
      parts_(parts),
      route_limit_(static_cast<uint32_t>(system.check(KVM_CAP_IRQ_ROUTING))),
      signals_(system.check(KVM_CAP_SIGNAL_MSI) != 0),
      events_(system.check(KVM_CAP_IRQFD) != 0),
      resamples_(system.check(KVM_CAP_IRQFD_RESAMPLE) != 0) {}

Result<std::unique_ptr<KvmIrqChip>> KvmIrqChip::create(const KvmSystem& system, const KvmFd& vm, Parts parts) {
  const auto need = [&](uint32_t capability, const char* name, const char* remedy) -> Result<> {
    if (system.check(capability) != 0) return {};
    return fail("this kernel's KVM lacks KVM_CAP_{}; use {}", name, remedy);
  };
  if (parts == Parts::kLocalApics)
    KITE_TRY(need(KVM_CAP_SPLIT_IRQCHIP, "SPLIT_IRQCHIP", "kernel-irqchip=on or off"));
  else
    KITE_TRY(need(KVM_CAP_IRQCHIP, "IRQCHIP", "kernel-irqchip=off"));
  KITE_TRY(need(KVM_CAP_IRQ_ROUTING, "IRQ_ROUTING", "kernel-irqchip=off"));
  KITE_TRY(need(KVM_CAP_SIGNAL_MSI, "SIGNAL_MSI", "kernel-irqchip=off"));
  std::unique_ptr<KvmIrqChip> chip(new KvmIrqChip(system, vm, parts));
  KITE_TRY(chip->make_parts());
  return chip;
}

Result<> KvmIrqChip::make_parts() {
  if (parts_ == Parts::kLocalApics) {
    kvm_enable_cap split{};
    split.cap = KVM_CAP_SPLIT_IRQCHIP;
    split.args[0] = kPins;
    return did(vm_.ioctl(KVM_ENABLE_CAP, &split), "local APICs of its own (KVM_CAP_SPLIT_IRQCHIP)");
  }
  KITE_TRY(did(vm_.ioctl(KVM_CREATE_IRQCHIP), "interrupt controllers of its own (KVM_CREATE_IRQCHIP)"));
  if (has_timer()) {
    kvm_pit_config config{};
    config.flags = KVM_PIT_SPEAKER_DUMMY;  // port 0x61 belongs to the 8254's third counter
    KITE_TRY(did(vm_.ioctl(KVM_CREATE_PIT2, &config), "an 8254 of its own (KVM_CREATE_PIT2)"));
    kvm_reinject_control reinject{};
    reinject.pit_reinject = 1;  // ticks that the guest could not take are made up for
    vm_.ioctl(KVM_REINJECT_CONTROL, &reinject);
  }
  KITE_TRY(read(initial_));
  for (auto& entry : initial_.chips[2].chip.ioapic.redirtbl) entry.bits = kMasked;
  const std::lock_guard lock(mutex_);
  return apply_routes();
}

// --- lines and messages

void KvmIrqChip::set_line(uint32_t gsi, bool level) {
  if (gsi >= kPins) return;
  kvm_irq_level line{};
  line.irq = gsi;
  line.level = level ? 1 : 0;
  vm_.ioctl(KVM_IRQ_LINE, &line);
}

bool KvmIrqChip::send_msi(const MsiWrite& message) {
  kvm_msi msi{};
  msi.address_lo = static_cast<uint32_t>(message.address);
  msi.address_hi = static_cast<uint32_t>(message.address >> 32);
  msi.data = message.data;
  return vm_.ioctl(KVM_SIGNAL_MSI, &msi) > 0;
}

Result<> KvmIrqChip::apply_routes() {
  std::vector<kvm_irq_routing_entry> entries;
  if (has_io_controllers()) {
    for (uint32_t gsi = 0; gsi < kPins; ++gsi) {
      if (gsi < kPicInputs && gsi != kCascade)
        entries.push_back(chip_route(gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi & 7));
      entries.push_back(chip_route(gsi, KVM_IRQCHIP_IOAPIC, gsi == kTimerGsi ? kTimerPin : gsi));
    }
  } else {
    for (uint32_t pin = 0; pin < kPins; ++pin)
      if (pins_[pin]) entries.push_back(msi_route(pin, *pins_[pin]));
  }
  for (const auto& [gsi, message] : routes_) entries.push_back(msi_route(gsi, message));

  std::vector<uint64_t> buffer((sizeof(kvm_irq_routing) + entries.size() * sizeof(kvm_irq_routing_entry) + 7) / 8);
  auto* const table = reinterpret_cast<kvm_irq_routing*>(buffer.data());
  table->nr = static_cast<uint32_t>(entries.size());
  if (!entries.empty())
    std::memcpy(reinterpret_cast<uint8_t*>(buffer.data()) + sizeof(kvm_irq_routing), entries.data(),
                entries.size() * sizeof(kvm_irq_routing_entry));
  return did(vm_.ioctl(KVM_SET_GSI_ROUTING, table), "interrupt routes (KVM_SET_GSI_ROUTING)");
}

Result<uint32_t> KvmIrqChip::add_route(const MsiWrite& message) {
  const std::lock_guard lock(mutex_);
  uint32_t gsi = kFirstRoute;
  for (const auto& [taken, other] : routes_) {
    if (taken != gsi) break;
    ++gsi;
  }
  // Three entries for each line and one for each route count against the limit.
  if (routes_.size() + 2 * kPins + 1 > route_limit_ || gsi >= route_limit_)
    return fail("all {} interrupt routes of KVM are in use; give the machine fewer devices with MSI-X", route_limit_);
  routes_.emplace(gsi, message);
  if (auto done = apply_routes(); !done) {
    routes_.erase(gsi);
    return Failure(std::move(done).error());
  }
  return gsi;
}

Result<> KvmIrqChip::change_route(uint32_t gsi, const MsiWrite& message) {
  const std::lock_guard lock(mutex_);
  const auto at = routes_.find(gsi);
  if (at == routes_.end()) return fail("there is no interrupt route {}", gsi);
  if (at->second == message) return {};
  const MsiWrite before = std::exchange(at->second, message);
  auto done = apply_routes();
  if (!done) at->second = before;
  return done;
}

void KvmIrqChip::remove_route(uint32_t gsi) {
  const std::lock_guard lock(mutex_);
  if (routes_.erase(gsi) != 0) (void)apply_routes();
}

void KvmIrqChip::set_pin(uint32_t pin, const std::optional<MsiWrite>& message) {
  if (pin >= kPins || has_io_controllers()) return;
  const std::lock_guard lock(mutex_);
  if (pins_[pin] == message) return;
  pins_[pin] = message;
  if (const auto done = apply_routes(); !done) log::error("input {} of the IOAPIC: {}", pin, done.error().message);
}

Result<> KvmIrqChip::attach_event(int event_fd, uint32_t gsi, int resample_fd) {
  if (!events_) return fail("this kernel's KVM lacks KVM_CAP_IRQFD");
  if (resample_fd >= 0 && !resamples_) return fail("this kernel's KVM lacks KVM_CAP_IRQFD_RESAMPLE");
  kvm_irqfd request{};
  request.fd = static_cast<uint32_t>(event_fd);
  request.gsi = gsi;
  if (resample_fd >= 0) {
    request.flags = KVM_IRQFD_FLAG_RESAMPLE;
    request.resamplefd = static_cast<uint32_t>(resample_fd);
  }
  return did(vm_.ioctl(KVM_IRQFD, &request), "an eventfd as interrupt source (KVM_IRQFD)");
}

void KvmIrqChip::detach_event(int event_fd, uint32_t gsi) {
  kvm_irqfd request{};
  request.fd = static_cast<uint32_t>(event_fd);
  request.gsi = gsi;
  request.flags = KVM_IRQFD_FLAG_DEASSIGN;
  if (const int answer = vm_.ioctl(KVM_IRQFD, &request); answer < 0)
    log::error("KVM does not let go of an interrupt's eventfd: {}", errno_text(-answer));
}

// --- state

Result<> KvmIrqChip::read(State& state) const {
  state = {};
  for (uint32_t chip = 0; chip < state.chips.size(); ++chip) {
    state.chips[chip].chip_id = chip;
    KITE_TRY(did(vm_.ioctl(KVM_GET_IRQCHIP, &state.chips[chip]), "to show its interrupt controllers"));
  }
  if (!has_timer()) return {};
  state.has_timer = 1;
  if (stopped_timer_) {
    state.timer = *stopped_timer_;
    return {};
  }
  return did(vm_.ioctl(KVM_GET_PIT2, &state.timer), "to show its 8254");
}

Result<> KvmIrqChip::write(State& state) {
  for (kvm_irqchip& chip : state.chips)
    KITE_TRY(did(vm_.ioctl(KVM_SET_IRQCHIP, &chip), "a state of its interrupt controllers"));
  if (!has_timer()) return {};
  if (stopped_timer_) {
    stopped_timer_ = state.timer;
    return {};
  }
  return did(vm_.ioctl(KVM_SET_PIT2, &state.timer), "a state of its 8254");
}

void KvmIrqChip::reset() {
  if (!has_io_controllers()) return;
  State state = initial_;
  State now;
  if (const auto read_now = read(now); read_now) {
    // The wires keep their levels: the devices at their other ends decide about those.
    for (size_t chip = 0; chip < 2; ++chip) {
      state.chips[chip].chip.pic.last_irr = now.chips[chip].chip.pic.last_irr;
      state.chips[chip].chip.pic.elcr = 0;
    }
  }
  state.chips[2].chip.ioapic.base_address = kIoApicBase;
  if (const auto done = write(state); !done) log::error("reset: {}", done.error().message);
}

void KvmIrqChip::program_as_firmware(uint16_t level_triggered) {
  if (wire_mode_) wire_mode_();
  if (!has_io_controllers()) return;
  State state;
  if (const auto done = read(state); !done) return log::error("{}", done.error().message);
  struct Setting {
    uint8_t vector, mask, levels;
  };
  const Setting settings[] = {{0x08, 0xfb, static_cast<uint8_t>(level_triggered)},
                              {0x70, 0xff, static_cast<uint8_t>(level_triggered >> 8)}};
  for (size_t chip = 0; chip < 2; ++chip) {
    kvm_pic_state& pic = state.chips[chip].chip.pic;
    pic.irq_base = settings[chip].vector;
    pic.imr = settings[chip].mask;
    pic.elcr = settings[chip].levels & pic.elcr_mask;
    pic.init4 = 1;
  }
  if (has_timer()) {
    kvm_pit_channel_state& counter = state.timer.channels[0];
    counter.count = 0x10000;
    counter.mode = 2;
    counter.rw_mode = 3;
    counter.gate = 1;
  }
  if (const auto done = write(state); !done) log::error("{}", done.error().message);
}

void KvmIrqChip::time_stopped() {
  if (!has_timer()) return;
  kvm_pit_state2 state{};
  if (vm_.ioctl(KVM_GET_PIT2, &state) < 0) return;
  stopped_timer_ = state;
  for (kvm_pit_channel_state& counter : state.channels) counter.mode = 0;  // one-shot: counts out and is silent
  state.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
  vm_.ioctl(KVM_SET_PIT2, &state);
}

void KvmIrqChip::time_resumed() {
  if (!stopped_timer_) return;
  kvm_pit_state2 state = *std::exchange(stopped_timer_, std::nullopt);
  if (const int answer = vm_.ioctl(KVM_SET_PIT2, &state); answer < 0)
    log::error("KVM does not restart its 8254: {}", errno_text(-answer));
}

void KvmIrqChip::set_timer_silenced(bool silenced) {
  if (!has_timer()) return;
  const std::lock_guard lock(mutex_);
  kvm_pit_state2 state{};
  if (vm_.ioctl(KVM_GET_PIT2, &state) < 0) return;
  const uint32_t flags =
      silenced ? state.flags | KVM_PIT_FLAGS_HPET_LEGACY : state.flags & ~uint32_t{KVM_PIT_FLAGS_HPET_LEGACY};
  if (flags == state.flags) return;
  state.flags = flags;
  if (const int answer = vm_.ioctl(KVM_SET_PIT2, &state); answer < 0)
    log::error("KVM does not {} its 8254: {}", silenced ? "silence" : "restart", errno_text(-answer));
}

Result<std::vector<uint8_t>> KvmIrqChip::get_state() {
  if (!has_io_controllers()) return std::vector<uint8_t>{};
  State state;
  KITE_TRY(read(state));
  std::vector<uint8_t> bytes(sizeof state);
  std::memcpy(bytes.data(), &state, sizeof state);
  return bytes;
}

Result<> KvmIrqChip::set_state(const std::vector<uint8_t>& bytes) {
  if (!has_io_controllers() && bytes.empty()) return {};
  State state;
  if (!has_io_controllers() || bytes.size() != sizeof state)
    return fail("{} bytes are no state of KVM's interrupt controllers", bytes.size());
  std::memcpy(&state, bytes.data(), sizeof state);
  if ((state.has_timer != 0) != has_timer())
    return fail("the saved machine {} an 8254 in KVM, and this one {}", has_timer() ? "lacks" : "has",
                has_timer() ? "has it" : "does not");
  for (uint32_t chip = 0; chip < state.chips.size(); ++chip)
    if (state.chips[chip].chip_id != chip) return fail("the state of KVM's interrupt controllers is damaged");
  return write(state);
}

}  // namespace kite

#include "devices/pci_bridges/pcie_root_port.h"

#include "devices/section.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::devices {

using namespace bus::pcie;

namespace {

constexpr uint8_t kMsiOffset = 0x60, kExpressOffset = 0x90;
constexpr uint8_t kSlotControlAt = kExpressOffset + kSlotControl, kSlotStatusAt = kExpressOffset + kSlotStatus,
                  kLinkStatusAt = kExpressOffset + kLinkStatus;
constexpr uint16_t kEvents = kButtonPressed | kPresenceChanged | kCommandCompleted | kLinkStateChanged;
// The enables of link state changes are elsewhere than their event.
constexpr uint16_t kLinkStateEnable = 1u << 12;
constexpr uint16_t kSlotControlBits = kButtonPressed | kPresenceChanged | kCommandCompleted | kInterruptEnable |
                                      kAttentionIndicator | kPowerIndicator | kPowerOff | kLinkStateEnable;

struct PcieRootPortV1 {
  static constexpr uint32_t kVersion = 1;
  bool unplug_requested;
};
template <class Codec>
void visit(Codec& codec, PcieRootPortV1& wire) {
  codec.field(1, wire.unplug_requested);
}

bus::PciIds ids_of(PcieRootPort::Model model) {
  if (model == PcieRootPort::Model::kIoh3420)
    return {.vendor = 0x8086, .device = 0x3420, .revision = 0x02, .class_code = 0x060400};
  return {.vendor = 0x1b36, .device = 0x000c, .revision = 0x00, .class_code = 0x060400};
}

uint16_t enabled_events(uint16_t control) {
  const unsigned same_place = control & (kButtonPressed | kPresenceChanged | kCommandCompleted);
  return static_cast<uint16_t>(same_place | ((control & kLinkStateEnable) != 0 ? kLinkStateChanged : 0u));
}

}  // namespace

PcieRootPort::PcieRootPort(std::string path, Config config, Wiring wiring)
    : PciBridge(std::move(path), ids_of(config.model), bus::PciGeneration::kExpress,
                {.name = config.bus_name, .express = true, .slots = 1}),
      static_config_(std::move(config)),
      wiring_(std::move(wiring)),
      msi_(*this, {.offset = kMsiOffset, .vectors = 1, .maskable = true}) {
  add_express_capability(
      {.offset = kExpressOffset, .type = bus::PcieType::kRootPort, .port = static_config_.port, .slot = true});
  uint32_t slot = uint32_t{static_config_.slot} << kSlotNumberShift;
  if (static_config_.hotplug) {
    slot |= kSlotButton | kSlotPowerController | kSlotAttentionIndicator | kSlotPowerIndicator | kSlotSurprise |
            kSlotHotplug;
    const uint16_t link = kExpressOffset + kLinkCapabilities;
    config_.set32(link, config_.get32(link) | kLinkActiveReporting);
    config_.let_write16(kSlotControlAt, kSlotControlBits);
    config_.let_clear16(kSlotStatusAt, kEvents);
    store(&config_.own[kSlotStatusAt], uint16_t{kPresence});
    store(&config_.own[kLinkStatusAt], kLinkActive);
  }
  config_.set32(kExpressOffset + kSlotCapabilities, slot);
  set_interrupt_pin(1);
}

bool PcieRootPort::occupied() const { return secondary().find(0) != nullptr; }
bool PcieRootPort::powered() const { return (slot_control_ & kPowerOff) == 0; }

void PcieRootPort::reset() {
  reset_bridge();
  const std::lock_guard lock(config_lock_);
  // After a reset nobody remembers that it was asked to let go.
  if (std::exchange(state_.unplug_requested, false)) wiring_.eject();
  for (unsigned i = kExpressOffset; i < kExpressOffset + 0x3cu; ++i)
    config_.bytes[i] = static_cast<uint8_t>(config_.bytes[i] & ~(config_.writable[i] | config_.clear_on_one[i]));
  if (!static_config_.hotplug) return;
  // A slot with a card starts with its power on.
  config_.set16(kSlotControlAt,
                static_cast<uint16_t>(kAttentionIndicatorOff |
                                      (occupied() ? kPowerIndicatorOn : kPowerIndicatorOff | unsigned{kPowerOff})));
  slot_control_ = config_.get16(kSlotControlAt);
  show_presence();
  update_interrupt();
}

void PcieRootPort::config_loaded() {
  PciBridge::config_loaded();
  slot_control_ = config_.get16(kSlotControlAt);
  show_presence();
  update_interrupt();
}

// Presence and link state as they are; the caller notes the changes.
void PcieRootPort::show_presence() {
  if (!static_config_.hotplug) return;
  const bool present = occupied(), active = present && powered();
  const uint16_t status = config_.get16(kSlotStatusAt), link = config_.get16(kLinkStatusAt);
  config_.set16(kSlotStatusAt, static_cast<uint16_t>(present ? status | kPresence : status & ~unsigned{kPresence}));
  config_.set16(kLinkStatusAt, static_cast<uint16_t>(active ? link | kLinkActive : link & ~unsigned{kLinkActive}));
  set_link_up(active);
}

void PcieRootPort::note(uint16_t events) {
  config_.set16(kSlotStatusAt, static_cast<uint16_t>(config_.get16(kSlotStatusAt) | events));
  update_interrupt();
}

// [PCIe 3.0] 6.7.3.4: a message for each time that there begins to be an enabled event; INTx while there is.
void PcieRootPort::update_interrupt() {
  const uint16_t pending = config_.get16(kSlotStatusAt) & enabled_events(slot_control_);
  const bool now = (slot_control_ & kInterruptEnable) != 0 && pending != 0;
  const bool before = std::exchange(asserted_, now);
  if (msi_.enabled()) {
    set_intx(false);
    if (now && !before) msi_.notify(0);
  } else {
    set_intx(now);
  }
}

void PcieRootPort::config_written(uint16_t offset, unsigned size, uint32_t value) {
  PciBridge::config_written(offset, size, value);
  if (!static_config_.hotplug) return;
  const auto touches = [=](uint16_t first, unsigned count) { return offset < first + count && offset + size > first; };
  if (touches(kSlotControlAt, 2))
    slot_control_written(std::exchange(slot_control_, config_.get16(kSlotControlAt)));
  else if (touches(kSlotStatusAt, 2) || touches(kMsiOffset, 4))
    update_interrupt();
}

// [PCIe 3.0] 6.7.3.2: every write of slot control is a command, which completes at once here.
void PcieRootPort::slot_control_written(uint16_t before) {
  uint16_t events = kCommandCompleted;
  const bool was_powered = (before & kPowerOff) == 0;
  if (was_powered != powered() && occupied()) {
    events |= kLinkStateChanged;
    show_presence();
    if (!powered()) {
      log::print(log::Category::kPci, "pci: {} has its slot's power switched off", path());
      for (bus::PciDevice* device : secondary().devices()) device->reset();
      if (state_.unplug_requested) wiring_.eject();
    }
  }
  note(events);
}

void PcieRootPort::plugged() {
  const std::lock_guard lock(config_lock_);
  if (!static_config_.hotplug) return set_link_up(occupied());
  // Where nobody is told of events, nobody would ever switch the power on.
  if ((slot_control_ & kInterruptEnable) == 0) {
    config_.set16(kSlotControlAt,
                  static_cast<uint16_t>((slot_control_ & ~(kPowerIndicator | kPowerOff)) | kPowerIndicatorOn));
    slot_control_ = config_.get16(kSlotControlAt);
  }
  show_presence();
  // As who puts a card in does: systems that see a button listen to it alone.
  note(static_cast<uint16_t>(kPresenceChanged | kButtonPressed | (powered() ? kLinkStateChanged : 0)));
}

void PcieRootPort::unplugged() {
  const std::lock_guard lock(config_lock_);
  state_.unplug_requested = false;
  const bool was_active = (config_.get16(kLinkStatusAt) & kLinkActive) != 0;
  show_presence();
  if (static_config_.hotplug) note(static_cast<uint16_t>(kPresenceChanged | (was_active ? kLinkStateChanged : 0)));
}

Result<> PcieRootPort::request_unplug() {
  const std::lock_guard lock(config_lock_);
  if (!static_config_.hotplug) return fail("the slot of '{}' has no hot-plugging (hotplug=off)", path());
  if (!occupied()) return fail("the slot of '{}' is empty", path());
  if (!powered()) {  // the guest has nothing to let go of
    wiring_.eject();
    return {};
  }
  if (state_.unplug_requested) return fail("the guest was asked to let go of the device in '{}' already", path());
  state_.unplug_requested = true;
  note(kButtonPressed);
  return {};
}

bool PcieRootPort::unplug_requested() {
  const std::lock_guard lock(config_lock_);
  return state_.unplug_requested;
}

void PcieRootPort::save(StateWriter& writer) {
  const bool requested = unplug_requested();
  save_section(writer, path(), PcieRootPortV1{.unplug_requested = requested}, [&] { save_config(writer); });
}

void PcieRootPort::restore(StateReader& reader) {
  PcieRootPortV1 wire{};
  if (!restore_section(reader, path(), wire, [&] { restore_config(reader); })) return;
  const std::lock_guard lock(config_lock_);
  state_ = State{.unplug_requested = wire.unplug_requested};
}

}  // namespace kite::devices

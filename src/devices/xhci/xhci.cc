#include "devices/xhci/xhci.h"

#include <algorithm>

#include "support/log.h"

namespace kite::devices {

using namespace xhci;

namespace {

constexpr uint8_t kMsixOffset = 0x90, kMsiOffset = 0x70, kExpressOffset = 0xa0;
constexpr uint16_t kSbrn = 0x60;
constexpr uint8_t kSbrnUsb3 = 0x30;

bus::PciGeneration generation_of(const Xhci::Config& config) {
  return config.express ? bus::PciGeneration::kExpress : bus::PciGeneration::kConventional;
}

// The halves of a 64-bit register.
void set_low(uint64_t& target, uint32_t value) { target = (target & ~uint64_t{0xffffffff}) | value; }
void set_high(uint64_t& target, uint32_t value) { target = (target & 0xffffffff) | uint64_t{value} << 32; }

uint32_t speed_id(usb::Speed speed) {
  switch (speed) {
    case usb::Speed::kFull: return 1;
    case usb::Speed::kLow: return 2;
    case usb::Speed::kHigh: return 3;
    case usb::Speed::kSuper: return 4;
  }
  return 0;
}

}  // namespace

Xhci::Xhci(std::string path, Config config, GuestMemory& memory, Clock& clock)
    : PciDevice(std::move(path),
                {.vendor = config.vendor, .device = config.device, .revision = config.revision, .class_code = 0x0c0330},
                bus::PciHeader::kDevice, generation_of(config)),
      config_of_(std::move(config)),
      memory_(memory),
      clock_(clock),
      window_(*this, &Xhci::read_register, &Xhci::write_register),
      msix_(*this,
            {.offset = kMsixOffset, .vectors = kInterrupters, .bar = 0, .table = kMsixTable, .pending = kMsixPending}),
      msi_(*this, {.offset = kMsiOffset, .vectors = 1, .maskable = true}),
      bus_(config_of_.bus_name, root_ports(config_of_), *this),
      continue_timer_(clock_, [this] {
        const std::lock_guard lock(lock_);
        serve_put_off();
      }) {
  auto registers = Region::container("xhci", kBarSize);
  registers->add(0, Region::io("xhci-registers", kRegistersSize, window_, {.min_size = 4, .max_size = 4}));
  registers->add(kMsixTable, msix_.table_region());
  registers->add(kMsixPending, msix_.pending_region());
  declare_bar(0, std::move(registers), {.size = kBarSize, .is_64 = true});
  set_interrupt_pin(1);
  config_.bytes[kSbrn] = kSbrnUsb3;
  if (config_of_.express) add_express_capability({.offset = kExpressOffset, .type = *config_of_.express});
  const std::lock_guard lock(lock_);
  set_reset_values();
}

Xhci::~Xhci() = default;

// USB 2 ports come first. Port N of either kind is connector N.
std::vector<UsbBus::Port> Xhci::root_ports(const Config& config) {
  std::vector<UsbBus::Port> ports;
  for (unsigned port = 1; port <= config.ports2; ++port)
    ports.push_back({.name = std::to_string(port), .speeds = {usb::Speed::kHigh, usb::Speed::kFull, usb::Speed::kLow}});
  for (unsigned port = 1; port <= config.ports3; ++port)
    ports.push_back({.name = std::to_string(port), .speeds = {usb::Speed::kSuper}});
  return ports;
}

// --- life

void Xhci::set_reset_values() {
  state_ = State{};
  state_.status = kHalted;
  state_.ports.resize(port_count());
  for (unsigned port = 0; port < port_count(); ++port) connect(port);
}

void Xhci::reset() {
  reset_config();
  const std::lock_guard lock(lock_);
  set_reset_values();
  continue_timer_.disarm();
}

void Xhci::start() {
  const std::lock_guard lock(lock_);
  serve_put_off();
}

void Xhci::config_written(uint16_t offset, unsigned, uint32_t) {
  if (offset >= kMsiOffset && offset < kMsixOffset + 4 && (msix_.enabled() || msi_.enabled())) set_intx(false);
}

// --- registers

uint64_t Xhci::read_register(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  if (offset < kOperational) return offset < kExtended ? read_capability(offset) : read_protocol(offset - kExtended);
  if (offset < kRuntime) return read_operational(offset - kOperational);
  return offset < kDoorbells ? read_runtime(offset - kRuntime) : 0;
}

void Xhci::write_register(uint64_t offset, unsigned, uint64_t wide) {
  const auto value = static_cast<uint32_t>(wide);
  const std::lock_guard lock(lock_);
  if (offset < kOperational) return;
  if (offset < kRuntime) return write_operational(offset - kOperational, value);
  if (offset < kDoorbells) return write_runtime(offset - kRuntime, value);
  ring_doorbell(static_cast<unsigned>((offset - kDoorbells) / 4), value);
}

uint32_t Xhci::read_capability(uint64_t offset) const {
  switch (offset) {
    case CAPLENGTH: return kVersion << 16 | kOperational;
    case HCSPARAMS1: return port_count() << 24 | kInterrupters << 8 | kSlots;
    case HCSPARAMS2: return kHcsParams2;
    case HCCPARAMS1: return kHccParams1;
    case DBOFF: return kDoorbells;
    case RTSOFF: return kRuntime;
    default: return 0;
  }
}

// 7.2: which ports speak which protocol; a capability for each kind that is there.
uint32_t Xhci::read_protocol(uint64_t offset) const {
  constexpr uint32_t kBytes = 16;
  const bool both = config_of_.ports2 != 0 && config_of_.ports3 != 0;
  const bool second = offset >= kBytes;
  const bool super = config_of_.ports2 == 0 || second;
  if (second && !both) return 0;
  const unsigned first = super ? config_of_.ports2 : 0, count = super ? config_of_.ports3 : config_of_.ports2;
  switch (offset % kBytes) {
    case 0: return (super ? 0x0300u : 0x0200u) << 16 | (both && !second ? kBytes / 4 : 0) << 8 | kProtocolCapability;
    case 4: return kUsbName;
    case 8: return count << 8 | (first + 1);
    default: return 0;
  }
}

uint32_t Xhci::read_operational(uint64_t offset) const {
  if (offset >= kPortRegisters) {
    const uint64_t port = (offset - kPortRegisters) / kPortStride;
    return port < port_count() && offset % kPortStride == 0 ? state_.ports[port].status : 0;
  }
  switch (offset) {
    case USBCMD: return state_.command;
    case USBSTS: return state_.status;
    case PAGESIZE: return 1;  // 4 KiB
    case DNCTRL: return state_.notifications;
    case CRCR: return state_.commands_running ? kRingRunning : 0;  // 5.4.5: the rest reads 0
    case DCBAAP: return static_cast<uint32_t>(state_.contexts);
    case DCBAAP + 4: return static_cast<uint32_t>(state_.contexts >> 32);
    case CONFIG: return state_.config;
    default: return 0;
  }
}

void Xhci::write_operational(uint64_t offset, uint32_t value) {
  if (offset >= kPortRegisters) {
    const uint64_t port = (offset - kPortRegisters) / kPortStride;
    if (port < port_count() && offset % kPortStride == 0) write_portsc(static_cast<unsigned>(port), value);
    return;
  }
  switch (offset) {
    case USBCMD: return write_command(value);
    case USBSTS: state_.status &= ~(value & kStatusClears); return drive_interrupts();
    case DNCTRL: state_.notifications = value & 0xffff; return;
    case CRCR: return write_ring_control(value);
    case CRCR + 4:
      if (!state_.commands_running) set_high(state_.commands.dequeue, value);
      return;
    case DCBAAP: return set_low(state_.contexts, value & ~0x3fu);
    case DCBAAP + 4: return set_high(state_.contexts, value);
    case CONFIG: state_.config = value & kConfigBits; return;
    default: return;
  }
}

void Xhci::write_command(uint32_t value) {
  if ((value & kHcReset) != 0) {
    // No slot knows a device any more: whoever uses one next resets it first, and nobody uses it meanwhile.
    for (unsigned port = 0; port < port_count(); ++port)
      if (UsbDevice* const device = bus_.device(port); device != nullptr) device->bus_reset();
    set_reset_values();
    return drive_interrupts();
  }
  // 4.23.2: a state that is restored was saved by nobody; the driver starts anew.
  if ((value & kRestoreState) != 0) state_.status |= kRestoreError;
  const bool ran = running();
  state_.command = value & kCommandBits;
  if ((state_.status & (kSystemError | kControllerError)) != 0) state_.command &= ~kRun;
  if (running()) {
    state_.status &= ~kHalted;
    if (!ran) tell_ports();
  } else {
    state_.status |= kHalted;
    state_.commands_running = false;
  }
  drive_interrupts();
}

// 4.6.1.1, 4.6.1.2: no command is on its way between two register accesses, so that stopping and aborting are one.
void Xhci::write_ring_control(uint32_t value) {
  if (!state_.commands_running) {
    set_low(state_.commands.dequeue, value & ~0x3fu);
    state_.commands.cycle = (value & kRingCycle) != 0;
    return;
  }
  if ((value & (kCommandStop | kCommandAbort)) == 0) return;
  state_.commands_running = false;
  post_event(0, {.parameter = state_.commands.dequeue,
                 .status = uint32_t{kCommandRingStopped} << 24,
                 .control = kCommandEvent << 10});
}

uint32_t Xhci::read_runtime(uint64_t offset) const {
  if (offset == MFINDEX) return running() ? static_cast<uint32_t>(clock_.now() / kMicroframeNs) & 0x3fff : 0;
  if (offset < kInterrupterSets) return 0;
  const uint64_t number = (offset - kInterrupterSets) / kInterrupterStride;
  if (number >= kInterrupters) return 0;
  const Interrupter& set = state_.interrupters[number];
  switch (offset % kInterrupterStride) {
    case IMAN: return set.management;
    case IMOD: return set.moderation;
    case ERSTSZ: return set.table_size;
    case ERSTBA: return static_cast<uint32_t>(set.table);
    case ERSTBA + 4: return static_cast<uint32_t>(set.table >> 32);
    case ERDP: return static_cast<uint32_t>(set.dequeue);
    case ERDP + 4: return static_cast<uint32_t>(set.dequeue >> 32);
    default: return 0;
  }
}

void Xhci::write_runtime(uint64_t offset, uint32_t value) {
  if (offset < kInterrupterSets) return;
  const auto number = static_cast<unsigned>((offset - kInterrupterSets) / kInterrupterStride);
  if (number >= kInterrupters) return;
  Interrupter& set = state_.interrupters[number];
  switch (offset % kInterrupterStride) {
    case IMAN: set.management = (set.management & kPending & ~value) | (value & kEnable); return drive_interrupts();
    case IMOD: set.moderation = value; return;
    case ERSTSZ: set.table_size = value & 0xffff; return;
    case ERSTBA: return set_low(set.table, value & ~0x3fu);
    case ERSTBA + 4: set_high(set.table, value); return open_event_ring(set);
    case ERDP: {
      const bool done = (value & kHandlerBusy) != 0;
      const uint32_t busy = done ? 0 : static_cast<uint32_t>(set.dequeue) & kHandlerBusy;
      set_low(set.dequeue, (value & ~kHandlerBusy) | busy);
      return events_taken(number);
    }
    case ERDP + 4: set_high(set.dequeue, value); return events_taken(number);
    default: return;
  }
}

// 4.17.2: once the handler is done, what has come meanwhile interrupts again. And there is room in the ring.
void Xhci::events_taken(unsigned number) {
  const Interrupter& set = state_.interrupters[number];
  const uint64_t next = set.segment + uint64_t{set.next} * kTrbBytes;
  if ((set.dequeue & kHandlerBusy) == 0 && set.size != 0 && (set.dequeue & ~uint64_t{0xf}) != next) raise(number);
  tell_ports();
  serve_put_off();
}

void Xhci::ring_doorbell(unsigned slot, uint32_t value) {
  if (!running() || slot > kSlots) return;
  const uint32_t target = value & 0xff;
  if (slot == 0) {
    if (target == 0) run_commands();
    return;
  }
  if (target == 0 || target > kEndpoints || !state_.slots[slot - 1].enabled) return;
  Endpoint& endpoint = state_.slots[slot - 1].endpoints[target - 1];
  if (endpoint.state == kEndpointStopped) {
    endpoint.state = kRunning;
    tell_endpoint(slot, target);
  }
  serve(slot, target);
}

// --- ports. 4.19

void Xhci::connect(unsigned port) {
  const UsbDevice* const device = bus_.device(port);
  uint32_t& status = state_.ports[port].status;
  status = kPower | (status & kPortWritable);
  if (device == nullptr) {
    status |= kRxDetect << kLinkShift;
    return;
  }
  status |= kConnected | kConnectChange | speed_id(device->speed()) << kSpeedShift;
  // A USB 3 link trains by itself; one of USB 2 is reset first.
  status |= is_super(port) ? kEnabled | kU0 << kLinkShift : kPolling << kLinkShift;
}

void Xhci::port_attached(unsigned port) {
  const std::lock_guard lock(lock_);
  connect(port);
  port_changed(port, kConnectChange);
}

void Xhci::port_detached(unsigned port) {
  const std::lock_guard lock(lock_);
  connect(port);
  port_changed(port, kConnectChange);
}

void Xhci::endpoint_ready(unsigned port, uint8_t endpoint) {
  const std::lock_guard lock(lock_);
  uint32_t& status = state_.ports[port].status;
  UsbDevice* const device = bus_.device(port);
  if ((status & kLinkMask) == kU3 << kLinkShift && device != nullptr && device->wakes_remotely()) {
    status = (status & ~kLinkMask) | kResume << kLinkShift;
    port_changed(port, kLinkChange);
  }
  const unsigned index = 2 * (endpoint & 0xfu) + ((endpoint & usb::kDirectionIn) != 0 ? 1 : 0);
  for (unsigned number = 1; number <= kSlots; ++number) {
    Slot& slot = state_.slots[number - 1];
    if (slot.enabled && slot.port == port + 1 && slot.endpoints[index - 1].parked) serve(number, index);
  }
}

void Xhci::port_changed(unsigned port, uint32_t changes) {
  RootPort& root = state_.ports[port];
  root.status |= changes;
  root.event_due = true;
  state_.status |= kPortChange;
  tell_ports();
}

// Events of port changes, as far as there is room.
void Xhci::tell_ports() {
  if (!running()) return;
  for (unsigned port = 0; port < port_count(); ++port) {
    RootPort& root = state_.ports[port];
    if (!root.event_due || event_room(0) == 0) continue;
    root.event_due = false;
    post_event(
        0, {.parameter = uint64_t{port + 1} << 24, .status = uint32_t{kSuccess} << 24, .control = kPortEvent << 10});
  }
}

void Xhci::write_portsc(unsigned port, uint32_t value) {
  uint32_t& status = state_.ports[port].status;
  status &= ~(value & kPortChanges);
  status = (status & ~kPortWritable) | (value & kPortWritable);
  if ((status & kConnected) == 0) return;
  if ((value & kPortReset) != 0) return reset_port(port, false);
  if ((value & kWarmReset) != 0 && is_super(port)) return reset_port(port, true);
  if ((value & kEnabled) != 0) status &= ~kEnabled;  // writing 1 disables
  if ((value & kLinkWrite) != 0) write_link(port, (value & kLinkMask) >> kLinkShift);
}

// 4.15: suspend and resume. The link is where it was told to be at once.
void Xhci::write_link(unsigned port, uint32_t link) {
  uint32_t& status = state_.ports[port].status;
  const uint32_t before = (status & kLinkMask) >> kLinkShift;
  const bool known = link == kU0 || link == kU3 || link == kResume;
  if (!known || (status & kEnabled) == 0 || link == before) return;
  status = (status & ~kLinkMask) | link << kLinkShift;
  if (link == kU0 && before != kU0) port_changed(port, kLinkChange);
}

void Xhci::reset_port(unsigned port, bool warm) {
  uint32_t& status = state_.ports[port].status;
  bus_.device(port)->bus_reset();
  status = (status & ~kLinkMask) | kEnabled | kU0 << kLinkShift;
  port_changed(port, kResetChange | (warm ? kWarmResetChange : 0));
}

}  // namespace kite::devices

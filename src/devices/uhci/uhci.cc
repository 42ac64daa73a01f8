#include "devices/uhci/uhci.h"

#include <algorithm>
#include <iterator>

#include "devices/section.h"
#include "support/log.h"

namespace kite::devices {

using namespace uhci;

namespace {

constexpr Uhci::Model kModels[] = {
    {"piix3-usb-uhci", 0x8086, 0x7020, 0x01, 4}, {"piix4-usb-uhci", 0x8086, 0x7112, 0x01, 4},
    {"ich9-usb-uhci1", 0x8086, 0x2934, 0x03, 1}, {"ich9-usb-uhci2", 0x8086, 0x2935, 0x03, 2},
    {"ich9-usb-uhci3", 0x8086, 0x2936, 0x03, 3}, {"ich9-usb-uhci4", 0x8086, 0x2937, 0x03, 1},
    {"ich9-usb-uhci5", 0x8086, 0x2938, 0x03, 2}, {"ich9-usb-uhci6", 0x8086, 0x2939, 0x03, 3}};

constexpr uint8_t kBar = 4;
constexpr uint16_t kPirqEnabled = 0x2000;

std::vector<UsbBus::Port> root_ports() {
  std::vector<UsbBus::Port> ports;
  for (unsigned port = 0; port < kPorts; ++port)
    ports.push_back({.name = std::to_string(port + 1), .speeds = {usb::Speed::kFull}});
  return ports;
}

struct UhciV1 {
  static constexpr uint32_t kVersion = 1;
  std::array<uint16_t, 4> registers;  // command, status, enables, frame
  uint32_t list;
  uint8_t sof;
  std::array<uint16_t, kPorts> ports;
  std::array<bool, 4> causes;
  int64_t next_frame;
  uint16_t quiet;
};
template <class Codec>
void visit(Codec& codec, UhciV1& wire) {
  codec.field(1, wire.registers);
  codec.field(2, wire.list);
  codec.field(3, wire.sof);
  codec.field(4, wire.ports);
  codec.field(5, wire.causes);
  codec.field(6, wire.next_frame);
  codec.field(7, wire.quiet);
}

}  // namespace

std::span<const Uhci::Model> Uhci::models() { return kModels; }

const Uhci::Model* Uhci::find_model(std::string_view type) {
  const auto* const found = std::ranges::find(kModels, type, &Model::type);
  return found == std::end(kModels) ? nullptr : found;
}

Uhci::Uhci(std::string path, const Model& model, Wiring wiring)
    : PciDevice(std::move(path),
                {.vendor = model.vendor, .device = model.device, .revision = model.revision, .class_code = 0x0c0300}),
      memory_(wiring.memory),
      clock_(wiring.clock),
      window_(*this, &Uhci::read_port, &Uhci::write_port),
      bus_(std::move(wiring.bus_name), root_ports(), *this),
      frame_timer_(clock_, [this] {
        const std::lock_guard lock(lock_);
        catch_up();
        arm();
      }) {
  // 2.1: words, and the frame list's address as one double word. Bytes come with zeros beside them.
  declare_bar(kBar, Region::io("uhci", kPortsSize, window_, {.min_size = 2, .max_size = 2}), {.io = true});
  set_interrupt_pin(model.pin);
  config_.bytes[kSbrn] = 0x10;
  config_.set16(kLegacySupport, kPirqEnabled);
  const std::lock_guard lock(lock_);
  set_reset_values();
}

Uhci::~Uhci() = default;

// --- life

void Uhci::set_reset_values() {
  state_ = State{.status = kHalted, .sof = kSofReset};
  for (unsigned port = 0; port < kPorts; ++port) connect(port);
}

void Uhci::reset() {
  reset_config();
  const std::lock_guard lock(lock_);
  set_reset_values();
  frame_timer_.disarm();
  drive_interrupt();
}

void Uhci::start() {
  const std::lock_guard lock(lock_);
  arm();
}

void Uhci::stop() { frame_timer_.disarm(); }

// --- ports

void Uhci::connect(unsigned port) {
  uint16_t& value = state_.ports[port];
  value = kAlwaysOne;
  if (bus_.device(port) != nullptr) value |= kConnected | kConnectChange | kLinePlus;
}

void Uhci::port_attached(unsigned port) {
  const std::lock_guard lock(lock_);
  catch_up();
  connect(port);
  wake_bus();
  state_.quiet = 0;
  arm();
}

// 2.1.1, 2.1.2: a plug, or a device that wakes the host, ends a global suspend.
void Uhci::wake_bus() {
  if ((state_.command & kGlobalSuspend) == 0) return;
  state_.command |= kGlobalResume;
  state_.status |= kResumeDetect;
  drive_interrupt();
}

void Uhci::port_detached(unsigned port) {
  const std::lock_guard lock(lock_);
  const bool enabled = (state_.ports[port] & kEnabled) != 0;
  state_.ports[port] = static_cast<uint16_t>(kAlwaysOne | kConnectChange | (enabled ? kEnableChange : 0));
  wake_bus();
  state_.quiet = 0;
  arm();
}

void Uhci::endpoint_ready(unsigned port, uint8_t) {
  const std::lock_guard lock(lock_);
  uint16_t& value = state_.ports[port];
  if (bus_.device(port) != nullptr && bus_.device(port)->wakes_remotely()) {
    if ((value & kSuspend) != 0) {
      value |= kResume;
      state_.status |= kResumeDetect;
      drive_interrupt();
    }
    wake_bus();
  }
  catch_up();
  state_.quiet = 0;
  arm();
}

void Uhci::reset_bus_device(unsigned port) {
  if (UsbDevice* const device = bus_.device(port); device != nullptr) device->bus_reset();
}

void Uhci::write_portsc(unsigned port, uint16_t value) {
  uint16_t& now = state_.ports[port];
  const bool resets = (value & kPortReset) != 0, reset_before = (now & kPortReset) != 0;
  now = static_cast<uint16_t>(now & ~(value & kPortClears));
  now = static_cast<uint16_t>((now & ~kPortWritable) | (value & kPortWritable));
  if (resets && !reset_before) reset_bus_device(port);
  if (resets || (now & kConnected) == 0) now = static_cast<uint16_t>(now & ~kEnabled);
  if ((now & kConnected) == 0) now = static_cast<uint16_t>(now & ~(kSuspend | kResume));
}

// --- registers

uint64_t Uhci::read_port(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  catch_up();
  arm();
  switch (offset) {
    case USBCMD: return state_.command;
    case USBSTS: return state_.status;
    case USBINTR: return state_.enables;
    case FRNUM: return state_.frame;
    case FLBASEADD: return state_.list & 0xffff;
    case FLBASEADD + 2: return state_.list >> 16;
    case SOFMOD: return state_.sof;
    case PORTSC1: return state_.ports[0];
    case PORTSC1 + 2: return state_.ports[1];
    default: return 0;  // 2.1.7: by bit 7, which is not set here, drivers count the ports
  }
}

void Uhci::write_port(uint64_t offset, unsigned, uint64_t wide) {
  const auto value = static_cast<uint16_t>(wide);
  const std::lock_guard lock(lock_);
  catch_up();
  switch (offset) {
    case USBCMD: write_command(value); break;
    case USBSTS:
      state_.status = static_cast<uint16_t>(state_.status & ~(value & kStatusClears));
      if ((value & kInterrupt) != 0) state_.completed = state_.was_short = false;
      break;
    case USBINTR: state_.enables = value & 0xf; break;
    case FRNUM:  // 2.1.4: not while it runs
      if ((state_.command & kRun) == 0) state_.frame = value & kFrameBits;
      break;
    case FLBASEADD: state_.list = (state_.list & 0xffff0000) | (value & 0xf000u); break;
    case FLBASEADD + 2: state_.list = (state_.list & 0xffff) | uint32_t{value} << 16; break;
    case SOFMOD: state_.sof = value & 0x7f; break;
    case PORTSC1: write_portsc(0, value); break;
    case PORTSC1 + 2: write_portsc(1, value); break;
    default: break;
  }
  state_.quiet = 0;
  drive_interrupt();
  arm();
}

void Uhci::write_command(uint16_t value) {
  if ((value & kHcReset) != 0) {
    // The ports are closed: whoever uses a device next resets it first, and nobody uses it meanwhile.
    for (unsigned port = 0; port < kPorts; ++port) reset_bus_device(port);
    set_reset_values();
    return;
  }
  if ((value & kGlobalReset) != 0 && (state_.command & kGlobalReset) == 0)
    for (unsigned port = 0; port < kPorts; ++port) {
      reset_bus_device(port);
      state_.ports[port] = static_cast<uint16_t>(state_.ports[port] & ~kEnabled);
    }
  const bool ran = (state_.command & kRun) != 0, runs = (value & kRun) != 0;
  state_.command = value & kCommandBits;
  if (runs && !ran) state_.next_frame = clock_.now() + kFrameNs;
  state_.status = static_cast<uint16_t>(runs ? state_.status & ~kHalted : state_.status | kHalted);
}

// 2.1.2, 2.1.3. The two errors that stop the controller cannot be masked.
void Uhci::drive_interrupt() {
  const auto& [status, enables] = std::pair(state_.status, state_.enables);
  const bool complete =
      (state_.completed && (enables & kOnComplete) != 0) || (state_.was_short && (enables & kOnShort) != 0);
  set_intx(((status & kInterrupt) != 0 && complete) || ((status & kError) != 0 && (enables & kOnError) != 0) ||
           ((status & kResumeDetect) != 0 && (enables & kOnResume) != 0) ||
           (status & (kSystemError | kProcessError)) != 0);
}

// --- saved state

void Uhci::save(StateWriter& writer) {
  UhciV1 wire{};
  {
    const std::lock_guard lock(lock_);
    const auto& [command, status, enables, frame, list, sof, ports, completed, was_short, complete_due, short_due,
                 next_frame, quiet] = state_;
    wire = {.registers = {command, status, enables, frame},
            .list = list,
            .sof = sof,
            .ports = ports,
            .causes = {completed, was_short, complete_due, short_due},
            .next_frame = next_frame,
            .quiet = quiet};
  }
  save_section(writer, path(), wire, [&] { save_config(writer); });
}

void Uhci::restore(StateReader& reader) {
  UhciV1 wire{};
  if (!restore_section(reader, path(), wire, [&] {
        const auto& [command, status, enables, frame] = wire.registers;
        bool good = (command & ~kCommandBits) == 0 && (status & ~(kStatusClears | kHalted)) == 0 && enables <= 0xf &&
                    frame <= kFrameBits && (wire.list & 0xfff) == 0 && wire.sof <= 0x7f && wire.quiet <= kQuietAfter;
        for (const uint16_t port : wire.ports) good = good && (port & ~kPortBits) == 0 && (port & kAlwaysOne) != 0;
        require(reader, good, "a register has reserved bits") &&
            require(reader, wire.next_frame >= 0 && wire.next_frame <= Clock::kNever / 2, "an impossible time") &&
            (restore_config(reader), true);
      }))
    return;
  const std::lock_guard lock(lock_);
  state_ = {.command = wire.registers[0],
            .status = wire.registers[1],
            .enables = wire.registers[2],
            .frame = wire.registers[3],
            .list = wire.list,
            .sof = wire.sof,
            .ports = wire.ports,
            .completed = wire.causes[0],
            .was_short = wire.causes[1],
            .complete_due = wire.causes[2],
            .short_due = wire.causes[3],
            .next_frame = wire.next_frame,
            .quiet = wire.quiet};
  // What is plugged in is not the state's to say.
  for (unsigned port = 0; port < kPorts; ++port)
    if (((state_.ports[port] & kConnected) != 0) != (bus_.device(port) != nullptr)) connect(port);
  arm();
}

}  // namespace kite::devices

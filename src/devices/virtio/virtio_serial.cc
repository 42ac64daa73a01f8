#include "devices/virtio/virtio_serial.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "devices/section.h"
#include "devices/virtio/virtio_serial_port.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::devices {

using namespace virtio_serial;

namespace {

constexpr size_t kMostInput = 65536;  // bytes of one buffer
constexpr size_t kOutputPiece = 4096;
constexpr uint64_t kOutputAtOnce = 1 << 20;

VirtioDevice::Shape shape_of(const VirtioSerial::Config& config) {
  uint64_t features = config.ports > 1 ? kMultiport : 0;
  if (config.emergency_write) features |= kEmergencyWrite;
  return {.type = kType,
          .name = config.name,
          .queues = static_cast<uint16_t>(queues_of(config.ports)),
          .queue_size = 128,
          .config_bytes = kConfigBytes,
          .features = features};
}

}  // namespace

VirtioSerial::VirtioSerial(Config config, GuestMemory& memory, Executor& home, const Options& options)
    : VirtioDevice(home, memory, shape_of(config), options),
      config_(std::move(config)),
      ports_(config_.ports),
      states_(config_.ports),
      held_(config_.ports) {}

VirtioSerial::~VirtioSerial() {
  for (VirtioSerialPort* const port : ports_)
    if (port != nullptr) port->controller_gone();
  retire();
}

// --- ports

Result<uint32_t> VirtioSerial::number_for(std::optional<uint64_t> wanted, bool console) const {
  if (wanted) {
    if (*wanted >= config_.ports)
      return fail("nr={}: '{}' has ports 0 to {}", *wanted, config_.bus_name, config_.ports - 1);
    if (*wanted == 0 && !console) return fail("nr=0: port 0 is for a virtconsole; take another or leave nr out");
    if (ports_[*wanted] != nullptr)
      return fail("nr={}: port {} of '{}' is taken by '{}'", *wanted, *wanted, config_.bus_name,
                  ports_[*wanted]->path());
    return static_cast<uint32_t>(*wanted);
  }
  for (uint32_t number = console ? 0 : 1; number < config_.ports; ++number)
    if (ports_[number] == nullptr) return number;
  return fail("all ports of '{}' are taken", config_.bus_name);
}

std::vector<VirtioSerialPort*> VirtioSerial::ports() const {
  std::vector<VirtioSerialPort*> there;
  std::ranges::copy_if(ports_, std::back_inserter(there), [](const VirtioSerialPort* port) { return port != nullptr; });
  return there;
}

void VirtioSerial::attach(VirtioSerialPort& port, uint32_t number) {
  {
    const std::lock_guard guard(lock());
    ports_[number] = &port;
    reconcile(number);
  }
  kick_control();
}

void VirtioSerial::detach(uint32_t number) {
  {
    const std::lock_guard guard(lock());
    ports_[number] = nullptr;
    reconcile(number);
  }
  // The driver takes all of its buffers back once it hears of this: none may be used afterwards.
  Held held = std::exchange(held_[number], {});
  for (Chain* const chain : {&held.receiving, &held.sending})
    if (*chain != nullptr) finish(std::move(*chain), 0);
  kick_control();
}

// The driver will hear of what it does not know.
void VirtioSerial::reconcile(uint32_t number) {
  PortState& state = states_[number];
  const VirtioSerialPort* const port = ports_[number];
  if (port == nullptr) {
    state = {.told = state.told, .pending = static_cast<uint8_t>(state.told ? kRemove : 0)};
    return;
  }
  if (!driver_knows_ports_) return;
  if (!state.told || (state.pending & kRemove) != 0) state.pending = static_cast<uint8_t>(state.pending | kAdd);
  if (state.ready && state.shown_open != port->host_open()) state.pending = static_cast<uint8_t>(state.pending | kOpen);
}

void VirtioSerial::host_changed(uint32_t number) {
  {
    const std::lock_guard guard(lock());
    reconcile(number);
  }
  kick_control();
}

void VirtioSerial::kick_control() {
  if (config_.ports > 1) kick(kControlReceive);
}

bool VirtioSerial::listens(uint32_t number) const {
  return ports_[number] != nullptr && (agreed(kMultiport) ? states_[number].guest_open : number == 0);
}

void VirtioSerial::set_guest_open(uint32_t number, bool open) {
  if (std::exchange(states_[number].guest_open, open) == open || ports_[number] == nullptr) return;
  ports_[number]->guest_changed(open);
  if (open) ports_[number]->accept_input();
}

// --- configuration, lives

void VirtioSerial::read_config(std::span<uint8_t> config) { store(&config[kMostPortsAt], config_.ports); }

void VirtioSerial::config_written(uint32_t offset, std::span<const uint8_t> bytes) {
  // 5.3.5.1: at any time, on a device that nobody has set up.
  if (!config_.emergency_write || offset != kEmergencyAt) return;
  for (VirtioSerialPort* const port : ports_) {
    if (port == nullptr || !port->console()) continue;
    static_cast<void>(port->output(bytes.first(1)));
    return;
  }
}

// A driver that knows one port only has it open.
void VirtioSerial::driver_ready() {
  if (!agreed(kMultiport)) set_guest_open(0, true);
}

void VirtioSerial::device_reset() {
  driver_knows_ports_ = false;
  for (uint32_t number = 0; number < config_.ports; ++number) {
    set_guest_open(number, false);
    states_[number] = PortState{};
  }
}

void VirtioSerial::cancel_requests() {
  for (Held& held : held_) {
    drop_old(held.receiving);
    drop_old(held.sending);
  }
}

void VirtioSerial::drop_old(Chain& chain) {
  if (chain != nullptr && !current(*chain)) finish(std::move(chain), 0);
}

void VirtioSerial::refuse(Chain chain, std::string_view why) {
  break_device(why);
  finish(std::move(chain), 0);
}

void VirtioSerial::serve(uint16_t queue) {
  serving_ = true;
  if (config_.ports > 1 && queue == kControlReceive)
    send_control();
  else if (config_.ports > 1 && queue == kControlTransmit)
    serve_control();
  else if (const uint32_t number = port_of(queue); queue == receive_queue(number))
    serve_receive(number);
  else
    serve_transmit(number);
  serving_ = false;
}

// --- from the host to the guest

bool VirtioSerial::take_receive_chain(uint32_t number) {
  Chain& chain = held_[number].receiving;
  drop_old(chain);
  if (chain == nullptr) chain = next(receive_queue(number));
  if (chain != nullptr && chain->in_bytes == 0) refuse(std::move(chain), "a buffer for input has no room");
  // The driver's kicks count again once serve() has found the queue empty, too.
  if (chain == nullptr && !serving_) kick(receive_queue(number));
  return chain != nullptr;
}

void VirtioSerial::serve_receive(uint32_t number) {
  if (ports_[number] != nullptr && take_receive_chain(number)) ports_[number]->accept_input();
}

size_t VirtioSerial::room(uint32_t number) {
  {
    const std::lock_guard guard(lock());
    if (!running() || !listens(number)) return 0;
  }
  if (!take_receive_chain(number)) return 0;
  return std::min<uint64_t>(held_[number].receiving->in_bytes, kMostInput);
}

void VirtioSerial::input(uint32_t number, std::span<const uint8_t> bytes) {
  Chain chain = std::move(held_[number].receiving);
  if (chain == nullptr) return;
  const auto part = bytes.first(std::min<uint64_t>(bytes.size(), chain->in_bytes));
  if (!chain->write(memory(), 0, part)) return refuse(std::move(chain), "a buffer for input is not in RAM");
  finish(std::move(chain), part.size());
}

// --- from the guest to the host

void VirtioSerial::serve_transmit(uint32_t number) {
  Held& held = held_[number];
  drop_old(held.sending);
  for (uint64_t budget = kOutputAtOnce; budget != 0;) {
    if (held.sending == nullptr) {
      held.sending = next(transmit_queue(number));
      if (held.sending == nullptr) return;
      const std::lock_guard guard(lock());
      held.sent = std::exchange(states_[number].sent, 0);
    }
    const uint64_t before = held.sent;
    if (!transmit(number)) return;
    budget -= std::min(budget, std::max<uint64_t>(held.sent - before, 1));
    if (held.sent >= held.sending->out_bytes) finish(std::move(held.sending), 0);
  }
  writable(number);
}

// A piece of the chain at hand.
bool VirtioSerial::transmit(uint32_t number) {
  Held& held = held_[number];
  const uint64_t left = held.sending->out_bytes - std::min(held.sent, held.sending->out_bytes);
  if (left == 0) return true;
  bytes_.resize(std::min<uint64_t>(left, kOutputPiece));
  if (!held.sending->read(memory(), held.sent, bytes_)) {
    refuse(std::move(held.sending), "output is not in RAM");
    return false;
  }
  VirtioSerialPort* const port = ports_[number];
  const size_t taken = port == nullptr ? bytes_.size() : port->output(bytes_);
  held.sent += taken;
  return taken != 0;
}

// --- control

void VirtioSerial::send_control() {
  for (unsigned count = 0; count < shape().queue_size; ++count) {
    {
      const std::lock_guard guard(lock());
      if (!first_pending()) return;
    }
    Chain chain = next(kControlReceive);
    if (chain == nullptr) return;
    std::vector<uint8_t> message;
    {
      const std::lock_guard guard(lock());
      const auto number = first_pending();
      if (number && current(*chain)) message = pop_message(*number);
    }
    if (message.empty()) {
      finish(std::move(chain), 0);
      continue;
    }
    if (chain->in_bytes < kMessageBytes) return refuse(std::move(chain), "a buffer has no room for a control message");
    message.resize(std::min<uint64_t>(message.size(), chain->in_bytes));
    if (!chain->write(memory(), 0, message))
      return refuse(std::move(chain), "a buffer for control messages is not in RAM");
    finish(std::move(chain), message.size());
  }
  kick_control();
}

std::optional<uint32_t> VirtioSerial::first_pending() const {
  const auto found = std::ranges::find_if(states_, [](const PortState& state) { return state.pending != 0; });
  if (found == states_.end()) return {};
  return static_cast<uint32_t>(found - states_.begin());
}

std::vector<uint8_t> VirtioSerial::pop_message(uint32_t number) {
  PortState& state = states_[number];
  const VirtioSerialPort* const port = ports_[number];
  const auto kind = static_cast<Pending>(1u << std::countr_zero(state.pending));
  state.pending = static_cast<uint8_t>(state.pending & ~kind);
  const auto message = [number](Event event, bool value) {
    std::vector<uint8_t> bytes(kMessageBytes);
    store(&bytes[0], number);
    store(&bytes[4], static_cast<uint16_t>(event));
    store(&bytes[6], static_cast<uint16_t>(value));
    return bytes;
  };
  switch (kind) {
    case kRemove: state = {.pending = state.pending}; return message(kPortRemove, true);
    case kAdd: state.told = true; return message(kPortAdd, true);
    case kConsole: return message(kConsolePort, true);
    case kOpen: state.shown_open = port != nullptr && port->host_open(); return message(kPortOpen, state.shown_open);
    default: break;
  }
  std::vector<uint8_t> named = message(kPortName, true);
  if (port != nullptr) named.insert(named.end(), port->name().begin(), port->name().end());
  return named;
}

void VirtioSerial::serve_control() {
  for (unsigned count = 0; count < shape().queue_size; ++count) {
    Chain chain = next(kControlTransmit);
    if (chain == nullptr) return;
    std::array<uint8_t, kMessageBytes> bytes{};
    if (chain->out_bytes < bytes.size()) return refuse(std::move(chain), "a control message is too short");
    if (!chain->read(memory(), 0, bytes)) return refuse(std::move(chain), "a control message is not in RAM");
    if (current(*chain)) control(load<uint32_t>(&bytes[0]), load<uint16_t>(&bytes[4]), load<uint16_t>(&bytes[6]));
    finish(std::move(chain), 0);
  }
  kick(kControlTransmit);
}

void VirtioSerial::control(uint32_t number, uint16_t event, uint16_t value) {
  {
    const std::lock_guard guard(lock());
    if (event == kDeviceReady) {
      driver_knows_ports_ = value != 0;
      for (uint32_t each = 0; each < config_.ports; ++each) reconcile(each);
    } else if (number >= config_.ports || ports_[number] == nullptr || !states_[number].told) {
      log::guest_error("{}: the driver speaks of port {}, which it was not told of", config_.name, number);
      return;
    } else if (event == kPortReady) {
      port_ready(number, value != 0);
    } else if (event == kPortOpen) {
      set_guest_open(number, value != 0);
    } else {
      log::guest_error("{}: control message {} is none of a driver's", config_.name, event);
    }
  }
  kick_control();
}

void VirtioSerial::port_ready(uint32_t number, bool good) {
  PortState& state = states_[number];
  state.ready = good;
  if (!good) {
    log::guest_error("{}: the driver could not set port {} up", config_.name, number);
    return;
  }
  const VirtioSerialPort& port = *ports_[number];
  unsigned pending = state.pending;
  if (port.console()) pending |= kConsole;
  if (!port.name().empty()) pending |= kName;
  if (port.host_open()) pending |= kOpen;
  state.pending = static_cast<uint8_t>(pending);
}

// --- state

namespace {

constexpr uint16_t kFieldKnown = 1, kFieldPorts = 2;
constexpr uint8_t kTold = 1, kReady = 2, kGuestOpen = 4, kShownOpen = 8, kAllFlags = 15;
constexpr size_t kPortBytes = 2 + sizeof(uint64_t);

}  // namespace

void VirtioSerial::save_type(StateWriter& writer) {
  std::vector<uint8_t> bytes(config_.ports * kPortBytes);
  for (uint32_t number = 0; number < config_.ports; ++number) {
    const auto& [told, ready, guest_open, shown_open, pending, sent] = states_[number];
    uint8_t* const at = &bytes[number * kPortBytes];
    at[0] = static_cast<uint8_t>((told ? kTold : 0) | (ready ? kReady : 0) | (guest_open ? kGuestOpen : 0) |
                                 (shown_open ? kShownOpen : 0));
    at[1] = pending;
    const Held& held = held_[number];
    store(at + 2, held.sending != nullptr && current(*held.sending) ? held.sent : sent);
  }
  writer.field(kFieldKnown, driver_knows_ports_);
  writer.field(kFieldPorts, bytes);
}

void VirtioSerial::restore_type(StateReader& reader) {
  restored_ = {};
  std::vector<uint8_t> bytes;
  reader.field(kFieldKnown, restored_.driver_knows_ports);
  reader.field(kFieldPorts, bytes);
  if (!require(reader, bytes.size() == config_.ports * kPortBytes, "the device has another number of ports here"))
    return;
  for (size_t at = 0; at < bytes.size(); at += kPortBytes) {
    if (!require(reader, bytes[at] <= kAllFlags && bytes[at + 1] <= kAllPending, "the state of a port is impossible"))
      return;
    restored_.states.push_back({.told = (bytes[at] & kTold) != 0,
                                .ready = (bytes[at] & kReady) != 0,
                                .guest_open = (bytes[at] & kGuestOpen) != 0,
                                .shown_open = (bytes[at] & kShownOpen) != 0,
                                .pending = bytes[at + 1],
                                .sent = load<uint64_t>(&bytes[at + 2])});
  }
}

// Ports that are others here than where the state is from are news for the driver.
void VirtioSerial::apply_type() {
  driver_knows_ports_ = restored_.driver_knows_ports;
  for (uint32_t number = 0; number < config_.ports; ++number) {
    const bool open = std::exchange(restored_.states[number].guest_open, states_[number].guest_open);
    states_[number] = restored_.states[number];
    set_guest_open(number, open);
    reconcile(number);
  }
  restored_ = {};
}

}  // namespace kite::devices

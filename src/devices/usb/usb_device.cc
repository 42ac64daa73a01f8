#include "devices/usb/usb_device.h"

#include <algorithm>

#include "devices/section.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace usb;

namespace {

constexpr uint16_t kEnglish = 0x0409;
constexpr uint8_t kSerialIndex = 3;  // strings: 1 the maker, 2 the product, 3 the serial number

usb::Setup parse(std::span<const uint8_t, 8> bytes) {
  return {.type = bytes[0],
          .request = bytes[1],
          .value = load<uint16_t>(&bytes[2]),
          .index = load<uint16_t>(&bytes[4]),
          .length = load<uint16_t>(&bytes[6])};
}

std::vector<uint8_t> half(uint16_t value) { return {static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8)}; }

// [USB 2.0] 9.6.7.
std::vector<uint8_t> string_descriptor(std::string_view text) {
  std::vector<uint8_t> bytes{static_cast<uint8_t>(2 + 2 * text.size()), kString};
  for (const char letter : text) {
    bytes.push_back(static_cast<uint8_t>(letter));
    bytes.push_back(0);
  }
  return bytes;
}

// [USB 3.1] 9.6.2: what a device of SuperSpeed can do besides; U1 and U2 at once.
std::vector<uint8_t> bos_descriptor() {
  constexpr uint8_t kUsb2Extension = 2, kSuperSpeed = 3, kAllSpeeds = 0x0e, kFullWorks = 1;
  return {5,
          kBos,
          22,
          0,
          2,  //
          7,
          kDeviceCapability,
          kUsb2Extension,
          0,
          0,
          0,
          0,  //
          10,
          kDeviceCapability,
          kSuperSpeed,
          0,
          kAllSpeeds,
          0,
          kFullWorks,
          0,
          0,
          0};
}

struct UsbDeviceV1 {
  static constexpr uint32_t kVersion = 1;
  std::array<uint8_t, 3> numbers;  // address, configuration, address to come
  std::array<bool, 2> flags;       // there is one to come, remote wakeup
  uint32_t halted;
  uint8_t phase;
  std::array<uint8_t, 8> request;
  std::vector<uint8_t> data;
  uint32_t sent;
};
template <class Codec>
void visit(Codec& codec, UsbDeviceV1& wire) {
  codec.field(1, wire.numbers);
  codec.field(2, wire.flags);
  codec.field(3, wire.halted);
  codec.field(4, wire.phase);
  codec.field(5, wire.request);
  codec.field(6, wire.data);
  codec.field(7, wire.sent);
}

}  // namespace

UsbDevice::UsbDevice(std::string path, std::string product, UsbDescriptors descriptors)
    : Device(std::move(path)), product_(std::move(product)), descriptors_(std::move(descriptors)) {}

// --- the bus

bool UsbDevice::runs_at(Speed speed) const { return !configuration_at(speed).empty(); }

const std::vector<uint8_t>& UsbDevice::configuration_at(Speed speed) const {
  switch (speed) {
    case Speed::kSuper: return descriptors_.super;
    case Speed::kHigh: return descriptors_.high;
    default: return descriptors_.full;
  }
}

void UsbDevice::plugged(UsbHost* host, unsigned port, Speed speed) {
  host_ = host;
  port_ = port;
  speed_ = speed;
}

void UsbDevice::endpoint_ready(uint8_t endpoint) {
  if (host_ != nullptr) host_->endpoint_ready(port_, endpoint);
}

void UsbDevice::set_default_state() {
  state_ = State{};
  function_reset();
}

void UsbDevice::reset() {
  const std::lock_guard lock(lock_);
  set_default_state();
}

void UsbDevice::bus_reset() {
  const std::lock_guard lock(lock_);
  set_default_state();
}

uint8_t UsbDevice::address() {
  const std::lock_guard lock(lock_);
  return state_.address;
}

bool UsbDevice::wakes_remotely() {
  const std::lock_guard lock(lock_);
  return state_.remote_wakeup;
}

// --- transfers

bool UsbDevice::known_endpoint(uint8_t endpoint) const {
  return (endpoint & 0x0f) == 0 || (configured() && has_endpoint(endpoint));
}

UsbAnswer UsbDevice::in(uint8_t endpoint, std::span<uint8_t> to) {
  const std::lock_guard lock(lock_);
  if (endpoint == 0) return control_in(to);
  const auto address = static_cast<uint8_t>(endpoint | kDirectionIn);
  if (!known_endpoint(address)) return {.outcome = UsbOutcome::kSilent};
  if ((state_.halted & halt_bit(address)) != 0) return {.outcome = UsbOutcome::kStall};
  return data_in(endpoint, to);
}

UsbAnswer UsbDevice::out(uint8_t endpoint, std::span<const uint8_t> from) {
  const std::lock_guard lock(lock_);
  if (endpoint == 0) return control_out(from);
  if (!known_endpoint(endpoint)) return {.outcome = UsbOutcome::kSilent};
  if ((state_.halted & halt_bit(endpoint)) != 0) return {.outcome = UsbOutcome::kStall};
  return data_out(endpoint, from);
}

// [USB 2.0] 8.5.3: a SETUP packet is always taken, and ends the request before.
UsbAnswer UsbDevice::setup(std::span<const uint8_t, 8> packet) {
  const std::lock_guard lock(lock_);
  std::ranges::copy(packet, state_.request.begin());
  state_.data.clear();
  state_.sent = 0;
  state_.has_new_address = false;
  const usb::Setup request = parse(packet);
  if (request.in()) {
    auto data = answer(request);
    if (data && data->size() > request.length) data->resize(request.length);
    if (data) state_.data = std::move(*data);
    state_.phase = !data ? Phase::kStalled : request.length != 0 ? Phase::kDataIn : Phase::kStatusIn;
  } else if (request.length == 0) {
    state_.phase = finish_request(request) ? Phase::kStatusIn : Phase::kStalled;
  } else {
    state_.phase = request.length <= kMostControlData ? Phase::kDataOut : Phase::kStalled;
  }
  return {.outcome = UsbOutcome::kDone, .moved = packet.size()};
}

UsbAnswer UsbDevice::control_in(std::span<uint8_t> to) {
  if (state_.phase == Phase::kDataIn) {
    const size_t count = std::min(to.size(), state_.data.size() - state_.sent);
    std::copy_n(state_.data.begin() + state_.sent, count, to.begin());
    state_.sent += static_cast<uint32_t>(count);
    return {.outcome = UsbOutcome::kDone, .moved = count};
  }
  // The status stage of what the host has sent.
  if (state_.phase == Phase::kDataOut)
    state_.phase = finish_request(parse(state_.request)) ? Phase::kStatusIn : Phase::kStalled;
  if (state_.phase != Phase::kStatusIn) return {.outcome = UsbOutcome::kStall};
  state_.phase = Phase::kIdle;
  // [USB 2.0] 9.4.6: the address changes after the status stage.
  if (std::exchange(state_.has_new_address, false)) state_.address = state_.new_address;
  return {};
}

UsbAnswer UsbDevice::control_out(std::span<const uint8_t> from) {
  if (state_.phase == Phase::kDataIn) {  // the status stage, whether or not everything was read
    state_.phase = Phase::kIdle;
    return {};
  }
  const size_t wanted = parse(state_.request).length;
  if (state_.phase != Phase::kDataOut || state_.data.size() + from.size() > wanted) {
    state_.phase = Phase::kStalled;
    return {.outcome = UsbOutcome::kStall};
  }
  state_.data.insert(state_.data.end(), from.begin(), from.end());
  return {.outcome = UsbOutcome::kDone, .moved = from.size()};
}

bool UsbDevice::finish_request(const usb::Setup& setup) {
  if (setup.kind() == kTypeStandard) return act(setup);
  return setup.kind() == kTypeClass && configured() && class_out(setup, state_.data);
}

// --- standard requests. [USB 2.0] 9.4

std::optional<std::vector<uint8_t>> UsbDevice::answer(const usb::Setup& setup) {
  if (setup.kind() == kTypeClass) return configured() ? class_in(setup) : std::nullopt;
  if (setup.kind() != kTypeStandard) return std::nullopt;
  switch (static_cast<Request>(setup.request)) {
    case Request::kGetStatus: return status_of(setup);
    case Request::kGetDescriptor: return descriptor(setup);
    case Request::kGetConfiguration: return std::vector<uint8_t>{state_.configuration};
    case Request::kGetInterface:
      if (!configured() || setup.index != 0) return std::nullopt;
      return std::vector<uint8_t>{0};
    default: return std::nullopt;
  }
}

bool UsbDevice::act(const usb::Setup& setup) {
  switch (static_cast<Request>(setup.request)) {
    case Request::kSetAddress:
      if (setup.value > kMostAddress || setup.recipient() != kToDevice) return false;
      state_.new_address = static_cast<uint8_t>(setup.value);
      state_.has_new_address = true;
      return true;
    case Request::kSetConfiguration:
      if (setup.value > 1 || setup.recipient() != kToDevice) return false;
      state_.configuration = static_cast<uint8_t>(setup.value);
      state_.halted = 0;
      function_reset();
      return true;
    case Request::kSetInterface:
      if (!configured() || setup.index != 0 || setup.value != 0) return false;
      state_.halted = 0;
      return true;
    case Request::kSetFeature: return set_feature(setup, true);
    case Request::kClearFeature: return set_feature(setup, false);
    case Request::kSetSel: return speed_ == Speed::kSuper && state_.data.size() == 6;
    case Request::kSetIsochDelay: return speed_ == Speed::kSuper;
    default: return false;
  }
}

std::optional<std::vector<uint8_t>> UsbDevice::status_of(const usb::Setup& setup) const {
  switch (setup.recipient()) {
    case kToDevice: {
      const bool self_powered = (configuration_at(speed_)[7] & kSelfPowered) != 0;
      return half(static_cast<uint16_t>((self_powered ? kStatusSelfPowered : 0) |
                                        (state_.remote_wakeup ? kStatusRemoteWakeup : 0)));
    }
    case kToInterface:
      if (!configured() || setup.index != 0) return std::nullopt;
      return half(0);
    case kToEndpoint: {
      const auto endpoint = static_cast<uint8_t>(setup.index);
      if (!known_endpoint(endpoint)) return std::nullopt;
      return half((state_.halted & halt_bit(endpoint)) != 0 ? kStatusHalted : 0);
    }
    default: return std::nullopt;
  }
}

bool UsbDevice::set_feature(const usb::Setup& setup, bool on) {
  const bool super = speed_ == Speed::kSuper;
  switch (setup.recipient()) {
    case kToDevice:
      if (super && (setup.value == kU1Enable || setup.value == kU2Enable)) return true;
      if (setup.value != kRemoteWakeup || (configuration_at(speed_)[7] & kWakesRemotely) == 0) return false;
      state_.remote_wakeup = on;
      return true;
    case kToInterface: return super && setup.value == kFunctionSuspend;
    case kToEndpoint: {
      const auto endpoint = static_cast<uint8_t>(setup.index);
      if (setup.value != kEndpointHalt || !known_endpoint(endpoint)) return false;
      if ((endpoint & 0x0f) == 0) return true;  // the next SETUP packet ends a halt of this one
      if (on) {
        halt(endpoint);
      } else {
        state_.halted &= ~halt_bit(endpoint);
        endpoint_cleared(endpoint);
      }
      return true;
    }
    default: return false;
  }
}

std::optional<std::vector<uint8_t>> UsbDevice::descriptor(const usb::Setup& setup) {
  const auto kind = static_cast<uint8_t>(setup.value >> 8), index = static_cast<uint8_t>(setup.value);
  if (setup.recipient() == kToInterface) return setup.index == 0 ? interface_descriptor(kind, index) : std::nullopt;
  if (setup.recipient() != kToDevice) return std::nullopt;
  const bool two_speeds = runs_at(Speed::kFull) && runs_at(Speed::kHigh) && speed_ != Speed::kSuper;
  switch (kind) {
    case kDevice: return device_descriptor();
    case kConfiguration:
      if (index != 0) return std::nullopt;
      return configuration_at(speed_);
    case kString:
      if (index == 0) return std::vector<uint8_t>{4, kString, kEnglish & 0xff, kEnglish >> 8};
      if (index > descriptors_.strings.size()) return std::nullopt;
      return string_descriptor(descriptors_.strings[index - 1u]);
    case kDeviceQualifier:
      if (!two_speeds) return std::nullopt;
      return qualifier();
    case kOtherSpeed: {
      if (!two_speeds || index != 0) return std::nullopt;
      std::vector<uint8_t> other = configuration_at(speed_ == Speed::kHigh ? Speed::kFull : Speed::kHigh);
      other[1] = kOtherSpeed;
      return other;
    }
    case kBos:
      if (speed_ != Speed::kSuper) return std::nullopt;
      return bos_descriptor();
    default: return std::nullopt;
  }
}

// [USB 3.1] 9.6.1: a SuperSpeed device says so, and its packets on endpoint 0 have 2 to the 9th bytes.
std::vector<uint8_t> UsbDevice::device_descriptor() const {
  std::vector<uint8_t> bytes = descriptors_.device;
  if (speed_ == Speed::kSuper) {
    store(&bytes[2], uint16_t{0x0300});
    bytes[7] = 9;
  }
  return bytes;
}

std::vector<uint8_t> UsbDevice::qualifier() const {
  const std::vector<uint8_t>& device = descriptors_.device;
  return {10, kDeviceQualifier, device[2], device[3], device[4], device[5], device[6], device[7], device[17], 0};
}

// --- saved state

void UsbDevice::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  const auto& [address, configuration, new_address, has_new_address, remote_wakeup, halted, phase, request, data,
               sent] = state_;
  const UsbDeviceV1 wire{.numbers = {address, configuration, new_address},
                         .flags = {has_new_address, remote_wakeup},
                         .halted = halted,
                         .phase = static_cast<uint8_t>(phase),
                         .request = request,
                         .data = data,
                         .sent = sent};
  save_section(writer, path(), wire, [&] { save_function(writer); });
}

void UsbDevice::restore(StateReader& reader) {
  UsbDeviceV1 wire{};
  const bool good = restore_section(reader, path(), wire, [&] {
    require(reader, wire.numbers[0] <= kMostAddress && wire.numbers[1] <= 1 && wire.numbers[2] <= kMostAddress,
            "an address or a configuration is impossible") &&
        require(reader, wire.phase <= static_cast<uint8_t>(Phase::kStalled), "the control pipe is impossible") &&
        require(reader, wire.data.size() <= UINT16_MAX && wire.sent <= wire.data.size(),
                "the control pipe's data is impossible");
    restore_function(reader);
    if (reader.ok() && reader.more_fields()) reader.reject("unknown fields at the end");
  });
  if (!good) return;
  {
    const std::lock_guard lock(lock_);
    state_ = {.address = wire.numbers[0],
              .configuration = wire.numbers[1],
              .new_address = wire.numbers[2],
              .has_new_address = wire.flags[0],
              .remote_wakeup = wire.flags[1],
              .halted = wire.halted,
              .phase = static_cast<Phase>(wire.phase),
              .request = wire.request,
              .data = std::move(wire.data),
              .sent = wire.sent};
    apply_function();
  }
  applied();
}

// --- descriptors

std::vector<uint8_t> usb_bytes(std::initializer_list<std::vector<uint8_t>> parts) {
  std::vector<uint8_t> bytes;
  for (const std::vector<uint8_t>& part : parts) bytes.insert(bytes.end(), part.begin(), part.end());
  return bytes;
}

// [USB 2.0] 9.6.1: of USB 2.0, class in the interface, 64 bytes on endpoint 0.
std::vector<uint8_t> usb_device_descriptor(uint16_t vendor, uint16_t product, uint8_t strings) {
  const uint8_t serial = strings >= kSerialIndex ? kSerialIndex : 0;
  return usb_bytes(
      {{18, kDevice}, half(0x0200), {0, 0, 0, 64}, half(vendor), half(product), half(0), {1, 2, serial, 1}});
}

// [USB 2.0] 9.6.3, 9.6.5; 100 mA.
std::vector<uint8_t> usb_configuration(const UsbInterfaceShape& shape, std::vector<uint8_t> rest) {
  const auto total = static_cast<uint16_t>(9 + 9 + rest.size());
  return usb_bytes({{9, kConfiguration},
                    half(total),
                    {1, 1, 0, shape.attributes, 50},
                    {9, kInterface, 0, 0, shape.endpoints, shape.class_code, shape.subclass, shape.protocol, 0},
                    rest});
}

std::vector<uint8_t> usb_endpoint(uint8_t address, uint8_t attributes, uint16_t most_packet, uint8_t interval) {
  return usb_bytes({{7, kEndpoint, address, attributes}, half(most_packet), {interval}});
}

}  // namespace kite::devices

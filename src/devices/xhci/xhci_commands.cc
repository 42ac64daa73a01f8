// The command ring. [xHCI] 4.6, 4.9.3; contexts in 6.2.
#include <algorithm>

#include "devices/xhci/xhci.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::devices {

using namespace xhci;

namespace {

constexpr uint32_t kAddSlot = 1u << 0, kAddControl = 1u << 1;

uint64_t input_context(uint64_t base, unsigned index) { return base + kContextBytes * (1 + uint64_t{index}); }
uint64_t output_context(uint64_t base, unsigned index) { return base + kContextBytes * uint64_t{index}; }

uint32_t endpoint_type(const std::array<uint32_t, 8>& words) { return words[1] >> 3 & 7; }

struct InputControl {
  uint32_t drop = 0, add = 0;
};

}  // namespace

void Xhci::run_commands() {
  state_.commands_running = true;
  state_.commands_put_off = false;
  for (unsigned count = 0; running() && state_.commands_running; ++count) {
    if (event_room(0) < kEventRoom || count == kMostInTurn) {
      state_.commands_put_off = true;
      if (count == kMostInTurn) continue_timer_.arm_at(clock_.now() + kMicroframeNs);
      return;
    }
    Trb trb;
    uint64_t address = 0;
    if (fetch(state_.commands, trb, address) != Fetched::kReady) return;
    const auto [code, slot] = run_command(trb);
    if (!running()) return;
    post_event(0, {.parameter = address, .status = uint32_t{code} << 24, .control = slot << 24 | kCommandEvent << 10});
  }
}

Xhci::Completion Xhci::run_command(const Trb& trb) {
  const unsigned number = trb.control >> 24;
  if (trb.type() == kEnableSlot) return enable_slot();
  if (trb.type() == kNoOpCommand) return {kSuccess, 0};
  if (trb.type() < kDisableSlot || trb.type() > kResetDevice) {
    log::guest_error("{}: command {} is not there", path(), trb.type());
    return {kTrbError, 0};
  }
  if (number == 0 || number > kSlots || !state_.slots[number - 1].enabled) return {kSlotNotEnabled, number};
  switch (trb.type()) {
    case kDisableSlot: return {disable_slot(state_.slots[number - 1]), number};
    case kAddressDevice: return {address_device(number, trb), number};
    case kConfigureEndpoint: return {configure_endpoint(number, trb), number};
    case kEvaluateContext: return {evaluate_context(number, trb), number};
    case kResetDevice: return {reset_device(number), number};
    default: return {endpoint_command(number, trb), number};
  }
}

// --- slots. 4.6.3 to 4.6.5, 4.6.11

Xhci::Completion Xhci::enable_slot() {
  for (unsigned number = 1; number <= std::min<unsigned>(kSlots, state_.config & 0xff); ++number) {
    if (state_.slots[number - 1].enabled) continue;
    state_.slots[number - 1] = Slot{.enabled = true};
    return {kSuccess, number};
  }
  return {kNoSlots, 0};
}

Code Xhci::disable_slot(Slot& slot) {
  slot = Slot{};
  return kSuccess;
}

bool Xhci::set_device_address(UsbDevice& device, unsigned address) {
  const std::array<uint8_t, 8> request{
      0, static_cast<uint8_t>(usb::Request::kSetAddress), static_cast<uint8_t>(address), 0, 0, 0, 0, 0};
  return device.setup(request).outcome == UsbOutcome::kDone && device.in(0, {}).outcome == UsbOutcome::kDone;
}

Code Xhci::address_device(unsigned number, const Trb& trb) {
  Slot& slot = state_.slots[number - 1];
  const bool only_default = (trb.control & kBlockAddress) != 0;
  InputControl control;
  Context input, endpoint;
  if (!load(trb.parameter & ~uint64_t{0xf}, control) ||
      !load(input_context(trb.parameter & ~uint64_t{0xf}, 0), input) ||
      !load(input_context(trb.parameter & ~uint64_t{0xf}, 1), endpoint))
    return kTrbError;
  if ((control.add & (kAddSlot | kAddControl)) != (kAddSlot | kAddControl)) return kTrbError;
  if (slot.state != kSlotEnabled && (only_default || slot.state != kSlotDefault)) return kContextStateError;
  const uint32_t port = input.words[1] >> kRootPortShift & 0xff;
  if ((input.words[0] & kRouteMask) != 0 || port == 0 || port > port_count() ||
      endpoint_type(endpoint.words) != kControl)
    return kParameterError;
  const bool taken = std::ranges::any_of(
      state_.slots, [&](const Slot& other) { return &other != &slot && other.enabled && other.port == port; });
  if (taken) return kParameterError;
  UsbDevice* const device = bus_.device(port - 1);
  if (device == nullptr || (state_.ports[port - 1].status & kEnabled) == 0) return kTransactionError;
  if (!load(state_.contexts + uint64_t{number} * 8, slot.context)) return kTrbError;
  slot.context &= ~uint64_t{0x3f};
  if (!only_default && !set_device_address(*device, number)) return kTransactionError;
  slot.port = static_cast<uint8_t>(port);
  slot.state = only_default ? kSlotDefault : kSlotAddressed;
  input.words[3] = (only_default ? 0 : number) | uint32_t{slot.state} << kSlotStateShift;
  open_endpoint(slot.endpoints[0], endpoint);
  if (!store(output_context(slot.context, 0), input) || !store(output_context(slot.context, 1), endpoint))
    return kTrbError;
  tell_endpoint(number, 1);
  return kSuccess;
}

Code Xhci::reset_device(unsigned number) {
  Slot& slot = state_.slots[number - 1];
  if (slot.state != kSlotAddressed && slot.state != kSlotConfigured) return kContextStateError;
  const Code code = drop_endpoints(number);
  slot.state = kSlotDefault;
  tell_slot(number, kSlotDefault);
  return code;
}

// All but the control endpoint.
Code Xhci::drop_endpoints(unsigned number) {
  Slot& slot = state_.slots[number - 1];
  for (unsigned index = 2; index <= kEndpoints; ++index) {
    if (slot.endpoints[index - 1].state == kDisabled) continue;
    slot.endpoints[index - 1] = Endpoint{};
    tell_endpoint(number, index);
  }
  return kSuccess;
}

// --- contexts

void Xhci::tell_slot(unsigned number, uint8_t state) {
  const uint64_t place = output_context(state_.slots[number - 1].context, 0);
  Context context;
  if (!load(place, context)) return;
  context.words[3] = (context.words[3] & ~(0x1fu << kSlotStateShift)) | uint32_t{state} << kSlotStateShift;
  if (state == kSlotDefault) context.words[3] &= ~0xffu;
  store(place, context);
}

void Xhci::tell_endpoint(unsigned number, unsigned index) {
  const Slot& slot = state_.slots[number - 1];
  const Endpoint& endpoint = slot.endpoints[index - 1];
  const uint64_t place = output_context(slot.context, index);
  Context context;
  if (!load(place, context)) return;
  context.words[0] = (context.words[0] & ~7u) | endpoint.state;
  context.words[2] = static_cast<uint32_t>(endpoint.ring.dequeue) | (endpoint.ring.cycle ? 1 : 0);
  context.words[3] = static_cast<uint32_t>(endpoint.ring.dequeue >> 32);
  store(place, context);
}

void Xhci::open_endpoint(Endpoint& endpoint, const Context& context) {
  const uint64_t pointer = context.words[2] | uint64_t{context.words[3]} << 32;
  endpoint = {.state = kRunning,
              .type = static_cast<uint8_t>(endpoint_type(context.words)),
              .ring = {.dequeue = pointer & ~uint64_t{0xf}, .cycle = (pointer & 1) != 0}};
}

// What of an endpoint there is here, and whether the context is one.
Code Xhci::check_endpoint(unsigned index, const Context& context) const {
  const uint32_t type = endpoint_type(context.words);
  if (type == kIsochOut || type == kIsochIn) {
    log::guest_error("{}: isochronous endpoints are not supported", path());
    return kResourceError;
  }
  const bool in = type == kBulkIn || type == kInterruptIn;
  const uint32_t streams = context.words[0] >> 10 & 0x1f;  // there are none: HCCPARAMS1
  if (type == 0 || type == kControl || in != ((index & 1) != 0) || streams != 0) return kParameterError;
  return kSuccess;
}

// 4.6.6.
Code Xhci::configure_endpoint(unsigned number, const Trb& trb) {
  Slot& slot = state_.slots[number - 1];
  if (slot.state != kSlotAddressed && slot.state != kSlotConfigured) return kContextStateError;
  if ((trb.control & kDeconfigure) != 0) {
    const Code code = drop_endpoints(number);
    slot.state = kSlotAddressed;
    tell_slot(number, kSlotAddressed);
    return code;
  }
  const uint64_t base = trb.parameter & ~uint64_t{0xf};
  InputControl control;
  Context input;
  if (!load(base, control) || !load(input_context(base, 0), input)) return kTrbError;
  if ((control.drop & 3) != 0 || (control.add & kAddControl) != 0) return kTrbError;
  std::array<Context, kEndpoints + 1> contexts;
  for (unsigned index = 2; index <= kEndpoints; ++index) {
    if ((control.add >> index & 1) == 0) continue;
    if (!load(input_context(base, index), contexts[index])) return kTrbError;
    if (const Code code = check_endpoint(index, contexts[index]); code != kSuccess) return code;
  }
  for (unsigned index = 2; index <= kEndpoints; ++index) {
    Endpoint& endpoint = slot.endpoints[index - 1];
    const bool added = (control.add >> index & 1) != 0;
    if (!added && (control.drop >> index & 1) == 0) continue;
    endpoint = Endpoint{};
    if (added) {
      open_endpoint(endpoint, contexts[index]);
      store(output_context(slot.context, index), contexts[index]);
    }
    tell_endpoint(number, index);
  }
  const bool any = std::any_of(slot.endpoints.begin() + 1, slot.endpoints.end(),
                               [](const Endpoint& endpoint) { return endpoint.state != kDisabled; });
  slot.state = any ? kSlotConfigured : kSlotAddressed;
  Context output;
  if (!load(output_context(slot.context, 0), output)) return kTrbError;
  constexpr uint32_t kEntries = 0x1fu << kEntriesShift;
  output.words[0] = (output.words[0] & ~kEntries) | (input.words[0] & kEntries);
  store(output_context(slot.context, 0), output);
  tell_slot(number, slot.state);
  return kSuccess;
}

// 4.6.7: what may change of a slot and of the control endpoint.
Code Xhci::evaluate_context(unsigned number, const Trb& trb) {
  Slot& slot = state_.slots[number - 1];
  if (slot.state == kSlotEnabled) return kContextStateError;
  const uint64_t base = trb.parameter & ~uint64_t{0xf};
  InputControl control;
  if (!load(base, control)) return kTrbError;
  if (control.drop != 0 || (control.add & ~(kAddSlot | kAddControl)) != 0) return kTrbError;
  constexpr uint32_t kLatency = 0xffff, kTarget = 0x3ffu << kTargetShift, kPacket = 0xffff0000;
  for (const unsigned index : {0u, 1u}) {
    if ((control.add >> index & 1) == 0) continue;
    Context input, output;
    if (!load(input_context(base, index), input) || !load(output_context(slot.context, index), output))
      return kTrbError;
    const uint32_t mask = index == 0 ? kLatency : kPacket;
    output.words[1] = (output.words[1] & ~mask) | (input.words[1] & mask);
    if (index == 0) output.words[2] = (output.words[2] & ~kTarget) | (input.words[2] & kTarget);
    if (!store(output_context(slot.context, index), output)) return kTrbError;
  }
  return kSuccess;
}

// --- endpoints. 4.6.8 to 4.6.10

Code Xhci::endpoint_command(unsigned number, const Trb& trb) {
  const unsigned index = trb.control >> 16 & 0x1f;
  if (index == 0 || index > kEndpoints) return kTrbError;
  Endpoint& endpoint = state_.slots[number - 1].endpoints[index - 1];
  if (endpoint.state == kDisabled) return kEndpointNotEnabled;
  switch (trb.type()) {
    case kStopEndpoint: return stop_endpoint(number, index);
    case kSetDequeue: return set_dequeue(number, index, trb);
    default: break;
  }
  if (endpoint.state != kEndpointHalted) return kContextStateError;
  endpoint.state = kEndpointStopped;
  tell_endpoint(number, index);
  return kSuccess;
}

// 4.6.9: a transfer that waits for its device is told of, and is the next again.
Code Xhci::stop_endpoint(unsigned number, unsigned index) {
  Endpoint& endpoint = state_.slots[number - 1].endpoints[index - 1];
  if (endpoint.state != kRunning) return kContextStateError;
  endpoint.state = kEndpointStopped;
  endpoint.put_off = false;
  tell_endpoint(number, index);
  if (!std::exchange(endpoint.parked, false)) return kSuccess;
  Ring ring = endpoint.ring;
  Trb trb;
  uint64_t address = 0;
  if (fetch(ring, trb, address) == Fetched::kReady)
    post_event(trb.status >> kTargetShift & (kInterrupters - 1),
               {.parameter = address,
                .status = uint32_t{kStopped} << 24 | (trb.status & kTransferLength),
                .control = number << 24 | index << 16 | kTransferEvent << 10});
  return kSuccess;
}

Code Xhci::set_dequeue(unsigned number, unsigned index, const Trb& trb) {
  Endpoint& endpoint = state_.slots[number - 1].endpoints[index - 1];
  if (endpoint.state != kEndpointStopped && endpoint.state != kEndpointError) return kContextStateError;
  if ((trb.status >> 16) != 0) return kTrbError;  // a stream, where there are none
  endpoint.ring = {.dequeue = trb.parameter & ~uint64_t{0xf}, .cycle = (trb.parameter & 1) != 0};
  endpoint.state = kEndpointStopped;
  tell_endpoint(number, index);
  return kSuccess;
}

}  // namespace kite::devices

// Transfer rings. [xHCI] 3.2.8 to 3.2.11, 4.10, 4.11.
#include <algorithm>

#include "devices/xhci/xhci.h"
#include "support/log.h"

namespace kite::devices {

using namespace xhci;

namespace {

bool moves_data(const Trb& trb) { return trb.type() == kNormal || trb.type() == kDataStage; }

uint32_t length_of(const Trb& trb) { return trb.status & kTransferLength; }

unsigned target_of(const Trb& trb) { return trb.status >> kTargetShift & (kInterrupters - 1); }

}  // namespace

UsbDevice* Xhci::device_of(const Slot& slot) const {
  if (slot.port == 0 || slot.port > port_count()) return nullptr;
  return (state_.ports[slot.port - 1u].status & kEnabled) != 0 ? bus_.device(slot.port - 1u) : nullptr;
}

void Xhci::put_off(Endpoint& endpoint) { endpoint.put_off = true; }

// Does what is in an endpoint's ring until it is empty, the device is not ready, or others are to have their turn.
void Xhci::serve(unsigned number, unsigned index) {
  Endpoint& endpoint = state_.slots[number - 1].endpoints[index - 1];
  size_t bytes = 0;
  endpoint.parked = endpoint.put_off = false;
  for (unsigned count = 0; running() && endpoint.state == kRunning; ++count) {
    if (count == kMostInTurn || bytes > kMostBytes) {
      put_off(endpoint);
      return continue_timer_.arm_at(clock_.now() + kMicroframeNs);
    }
    Transfer transfer;
    switch (fetch_transfer(endpoint.ring, transfer)) {
      case Fetched::kNone: return;
      case Fetched::kBroken: return halt_endpoint(number, index, xhci::kEndpointError);
      case Fetched::kReady: break;
    }
    if (event_room(target_of(transfer.trbs.back().trb)) < kEventRoom) return put_off(endpoint);
    if (!do_transfer(number, index, transfer)) return;
    bytes += data_.size();
    endpoint.ring = transfer.after;
  }
}

void Xhci::serve_put_off() {
  if (!running()) return;
  if (state_.commands_put_off) run_commands();
  for (unsigned number = 1; number <= kSlots; ++number) {
    if (!state_.slots[number - 1].enabled) continue;
    for (unsigned index = 1; index <= kEndpoints; ++index)
      if (state_.slots[number - 1].endpoints[index - 1].put_off) serve(number, index);
  }
}

// All TRBs of the transfer at the head; kNone while software has not handed over the last of them.
Xhci::Fetched Xhci::fetch_transfer(const Ring& ring, Transfer& transfer) {
  transfer.after = ring;
  while (true) {
    TransferTrb next{};
    if (const Fetched fetched = fetch(transfer.after, next.trb, next.address); fetched != Fetched::kReady)
      return fetched;
    transfer.trbs.push_back(next);
    if ((next.trb.control & kChain) == 0) return Fetched::kReady;
    if (transfer.trbs.size() < kMostTrbs) continue;
    log::guest_error("{}: a transfer has more than {} parts", path(), kMostTrbs);
    return Fetched::kBroken;
  }
}

// Memory to data_; and back. A part in the TRB itself has at most 8 bytes (4.11.7).
bool Xhci::gather(const Transfer& transfer, size_t total) {
  data_.resize(total);
  size_t at = 0;
  for (const auto& [trb, address] : transfer.trbs) {
    if (!moves_data(trb)) continue;
    const auto part = std::span(data_).subspan(at, length_of(trb));
    at += part.size();
    if ((trb.control & kImmediate) != 0) {
      if (part.size() > sizeof trb.parameter) return false;
      std::memcpy(part.data(), &trb.parameter, part.size());
    } else if (!may_master() || !memory_.read(trb.parameter, part)) {
      return false;
    }
  }
  return true;
}

bool Xhci::scatter(const Transfer& transfer, size_t moved) {
  size_t at = 0;
  for (const auto& [trb, address] : transfer.trbs) {
    if (!moves_data(trb) || at == moved) continue;
    const size_t count = std::min<size_t>(length_of(trb), moved - at);
    if ((trb.control & kImmediate) != 0 || !may_master() ||
        !memory_.write(trb.parameter, std::span(data_).subspan(at, count)))
      return false;
    at += count;
  }
  return true;
}

// False: the head of the ring stays where it is.
bool Xhci::do_transfer(unsigned number, unsigned index, const Transfer& transfer) {
  Endpoint& endpoint = state_.slots[number - 1].endpoints[index - 1];
  const Trb& first = transfer.trbs.front().trb;
  size_t total = 0;
  for (const auto& [trb, address] : transfer.trbs) total += moves_data(trb) ? length_of(trb) : 0;
  data_.clear();
  const bool stage_in = (first.control & kDirectionIn) != 0;
  const bool in = index == 1 ? stage_in : (index & 1) != 0;
  if (total > kMostBytes) {
    log::guest_error("{}: a transfer has more than {} bytes", path(), kMostBytes);
    report(number, index, transfer, kTrbError, 0);
    halt_endpoint(number, index, xhci::kEndpointError);
    return false;
  }
  if (first.type() == kNoOp) {
    report(number, index, transfer, kSuccess, 0);
    return true;
  }
  Code code = kSuccess;
  UsbAnswer answer;
  if (!in && !gather(transfer, total)) {
    code = kDataBufferError;
  } else {
    if (in) data_.resize(total);
    answer = ask_device(number, index, transfer, total, in);
    switch (answer.outcome) {
      case UsbOutcome::kNak: endpoint.parked = true; return false;
      case UsbOutcome::kStall: code = kStallError; break;
      case UsbOutcome::kBabble: code = kBabbleDetected; break;
      case UsbOutcome::kSilent: code = kTransactionError; break;
      case UsbOutcome::kDone:
        if (in && !scatter(transfer, answer.moved)) code = kDataBufferError;
        break;
    }
  }
  if (code != kSuccess) {
    halt_endpoint(number, index, kEndpointHalted);
    report(number, index, transfer, code, 0);
    return false;
  }
  report(number, index, transfer, code, answer.moved);
  return true;
}

// 4.11.2: TRBs of the wrong kind for the endpoint are the guest's error, and find nobody.
UsbAnswer Xhci::ask_device(unsigned number, unsigned index, const Transfer& transfer, size_t total, bool in) {
  UsbDevice* const device = device_of(state_.slots[number - 1]);
  const Trb& first = transfer.trbs.front().trb;
  if (device == nullptr) return {.outcome = UsbOutcome::kSilent};
  if (index == 1 && first.type() == kSetupStage) {
    std::array<uint8_t, 8> packet{};
    std::memcpy(packet.data(), &first.parameter, packet.size());
    return device->setup(packet);
  }
  const bool fits = index == 1 ? first.type() == kDataStage || first.type() == kStatusStage || first.type() == kNormal
                               : first.type() == kNormal || first.type() == kEventDataTrb;
  if (!fits) return {.outcome = UsbOutcome::kSilent};
  const auto endpoint = static_cast<uint8_t>(index / 2);
  const auto data = std::span(data_).first(total);
  return in ? device->in(endpoint, data) : device->out(endpoint, data);
}

// 4.10.1: events for the parts that ask for one. Of a transfer that was shorter than asked for, one tells: the part
// where it ended, if that wants to be told of, or the last. Event Data TRBs (4.11.5.2) tell of what came before them.
void Xhci::report(unsigned number, unsigned index, const Transfer& transfer, Code code, size_t moved) {
  size_t left = moved, gathered = 0;
  bool told = false, was_short = false;
  for (size_t at = 0; at < transfer.trbs.size(); ++at) {
    const auto& [trb, address] = transfer.trbs[at];
    const bool wanted = (trb.control & kOnCompletion) != 0;
    const auto post = [&](uint64_t parameter, Code what, size_t length, uint32_t flags) {
      post_event(target_of(trb),
                 {.parameter = parameter,
                  .status = uint32_t{what} << 24 | (static_cast<uint32_t>(length) & 0xffffff),
                  .control = number << 24 | index << 16 | kTransferEvent << 10 | flags},
                 (trb.control & kBlockInterrupt) == 0);
    };
    const Code now = code == kSuccess && was_short ? kShortPacket : code;
    if (trb.type() == kEventDataTrb) {
      if (wanted) post(trb.parameter, now, gathered, kEventData);
      gathered = 0;
      continue;
    }
    const size_t length = moves_data(trb) ? length_of(trb) : 0, part = std::min(length, left);
    left -= part;
    gathered += part;
    const bool ends_here = part < length && !was_short;
    if (ends_here) was_short = true;
    const bool last = at + 1 == transfer.trbs.size();
    if (told) continue;
    if (code != kSuccess) {
      if (!ends_here && !last) continue;
      post(address, code, length - part, 0);
      told = true;
    } else if (wanted || (ends_here && (trb.control & kShortInterrupts) != 0)) {
      post(address, was_short ? kShortPacket : kSuccess, length - part, 0);
      told = was_short;
    }
  }
}

void Xhci::halt_endpoint(unsigned number, unsigned index, EndpointState state) {
  state_.slots[number - 1].endpoints[index - 1].state = state;
  tell_endpoint(number, index);
}

}  // namespace kite::devices

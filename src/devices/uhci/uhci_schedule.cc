// The schedule: frames, queues and transfer descriptors. [UHCI] 1.3, 3.4.
#include <algorithm>
#include <vector>

#include "devices/uhci/uhci.h"
#include "support/log.h"

namespace kite::devices {

using namespace uhci;

// --- time

void Uhci::arm() {
  if ((state_.command & kRun) == 0) return frame_timer_.disarm();
  const unsigned ahead = state_.quiet < kQuietAfter ? 0 : kQuietFrames - 1;
  frame_timer_.arm_at(state_.next_frame + ahead * kFrameNs);
}

// Does the frames that have begun since the last call.
void Uhci::catch_up() {
  if ((state_.command & kRun) == 0) return;
  const int64_t now = clock_.now();
  if (const int64_t late = (now - state_.next_frame) / kFrameNs; late > kMostLate) {
    const int64_t dropped = late - kMostLate;
    state_.frame = static_cast<uint16_t>((state_.frame + dropped) & kFrameBits);
    state_.next_frame += dropped * kFrameNs;
  }
  while ((state_.command & kRun) != 0 && now >= state_.next_frame) {
    run_frame();
    state_.next_frame += kFrameNs;
  }
}

void Uhci::run_frame() {
  Frame frame;
  uint32_t link = 0;
  if (load(state_.list + (state_.frame % kFrameListEntries) * 4, link)) walk(link, frame);
  state_.frame = static_cast<uint16_t>((state_.frame + 1) & kFrameBits);
  state_.quiet =
      frame.progress ? uint16_t{0} : static_cast<uint16_t>(std::min<unsigned>(state_.quiet + 1, kQuietAfter));
  // 2.1.2: told at the end of the frame.
  if (!state_.complete_due && !state_.short_due) return;
  state_.completed |= std::exchange(state_.complete_due, false);
  state_.was_short |= std::exchange(state_.short_due, false);
  state_.status |= kInterrupt;
  drive_interrupt();
}

// --- guest memory

template <class T>
bool Uhci::load(uint32_t address, T& value) {
  if (!may_master()) return false;  // the frame passes unseen
  const auto loaded = memory_.load<T>(address);
  if (!loaded) return fatal(kSystemError);
  value = *loaded;
  return true;
}

bool Uhci::store(uint32_t address, uint32_t value) {
  if (!may_master() || memory_.store(address, value)) return true;
  return fatal(kSystemError);
}

// 2.1.2: what stops the controller.
bool Uhci::fatal(uint16_t status) {
  log::guest_error("{}: the schedule is {}; the controller stops", path(),
                   status == kSystemError ? "not in memory" : "inconsistent");
  state_.status |= static_cast<uint16_t>(status | kHalted);
  state_.command = static_cast<uint16_t>(state_.command & ~kRun);
  drive_interrupt();
  return false;
}

// --- the walk

// 3.4.2. Queues may lead back to each other (bandwidth reclamation): it goes around until a whole round moves nothing,
// or the frame is full.
void Uhci::walk(uint32_t link, Frame& frame) {
  std::vector<uint32_t> seen;  // queues since something was transferred
  while ((link & kTerminate) == 0 && frame.bytes < kFrameBytes && frame.links++ < kMostLinks) {
    const uint32_t address = link & kPointer;
    if ((link & kQueue) == 0) {
      Td td{};
      if (!load(address, td)) return;
      if (execute(address, td, frame) == Outcome::kFatal) return;
      link = td.link;
      continue;
    }
    if (std::ranges::find(seen, address) != seen.end()) return;
    bool moved = false;
    if (!walk_queue(link, frame, moved)) return;
    if (moved)
      seen.clear();
    else
      seen.push_back(address);
  }
}

// One queue, whose address `link` has; then `link` is what comes next. False: the controller has stopped.
bool Uhci::walk_queue(uint32_t& link, Frame& frame, bool& moved) {
  struct Queue {
    uint32_t head, element;
  } queue{};
  const uint32_t address = link & kPointer;
  if (!load(address, queue)) return false;
  link = queue.head;
  while ((queue.element & kTerminate) == 0 && frame.bytes < kFrameBytes && frame.links++ < kMostLinks) {
    if ((queue.element & kQueue) != 0) {  // a queue below this one, which has the way back
      link = queue.element;
      return true;
    }
    const uint32_t at = queue.element & kPointer;
    Td td{};
    if (!load(at, td)) return false;
    switch (execute(at, td, frame)) {
      case Outcome::kFatal: return false;
      case Outcome::kStay: return true;
      case Outcome::kAdvance: break;
    }
    moved = true;
    queue.element = td.link;
    if (!store(address + 4, queue.element)) return false;
    if ((td.link & kDepthFirst) == 0) return true;
  }
  return true;
}

// --- one transfer descriptor

UsbDevice* Uhci::device_at(uint8_t address) {
  for (unsigned port = 0; port < kPorts; ++port) {
    UsbDevice* const device = bus_.device(port);
    const bool open = (state_.ports[port] & (kEnabled | kSuspend)) == kEnabled;
    if (device != nullptr && open && device->address() == address) return device;
  }
  return nullptr;
}

Uhci::Outcome Uhci::execute(uint32_t address, Td& td, Frame& frame) {
  if ((td.status & kActive) == 0) return Outcome::kStay;
  const uint32_t length = ((td.token >> 21) + 1) & kActualLength;
  const auto pid = static_cast<uint8_t>(td.token);
  // 3.2.3: the consistency check.
  if (length > kMostPacket || (pid != kPidIn && pid != kPidOut && pid != kPidSetup)) {
    fatal(kProcessError);
    return Outcome::kFatal;
  }
  std::array<uint8_t, kMostPacket> bytes;
  const auto data = std::span(bytes).first(length);
  if (pid != kPidIn && length != 0) {
    if (!may_master()) return Outcome::kStay;
    if (!memory_.read(td.buffer, data)) return (void)fatal(kSystemError), Outcome::kFatal;
  }
  const UsbAnswer answer = transact(td, data, frame);
  if (pid == kPidIn && answer.outcome == UsbOutcome::kDone && answer.moved != 0 &&
      !memory_.write(td.buffer, data.first(answer.moved)))
    return (void)fatal(kSystemError), Outcome::kFatal;
  const uint32_t before = td.status;
  const Outcome outcome = complete(td, answer, length);
  if ((td.status & kActive) == 0) {
    frame.progress = true;
    if ((td.status & kOnCompletion) != 0) state_.complete_due = true;
  }
  if (td.status != before && !store(address + 4, td.status)) return Outcome::kFatal;
  return outcome;
}

UsbAnswer Uhci::transact(const Td& td, std::span<uint8_t> data, Frame& frame) {
  constexpr size_t kSetupBytes = 8;
  const auto pid = static_cast<uint8_t>(td.token);
  const auto endpoint = static_cast<uint8_t>(td.token >> 15 & 0xf);
  frame.bytes += kPacketOverhead;
  UsbDevice* const device = device_at(td.token >> 8 & usb::kMostAddress);
  if (device == nullptr) return {.outcome = UsbOutcome::kSilent};
  UsbAnswer answer{.outcome = UsbOutcome::kSilent};
  if (pid == kPidIn)
    answer = device->in(endpoint, data);
  else if (pid == kPidOut)
    answer = device->out(endpoint, data);
  else if (endpoint == 0 && data.size() == kSetupBytes)
    answer = device->setup(data.first<kSetupBytes>());
  frame.bytes += static_cast<unsigned>(answer.moved);
  return answer;
}

// What the answer makes of the descriptor. 3.2.2.
Uhci::Outcome Uhci::complete(Td& td, const UsbAnswer& answer, uint32_t length) {
  const bool in = static_cast<uint8_t>(td.token) == kPidIn;
  switch (answer.outcome) {
    case UsbOutcome::kNak:
      // An isochronous transfer has its one frame.
      td.status |= kNak;
      if ((td.status & kIsochronous) == 0) return Outcome::kStay;
      td.status &= ~kActive;
      return Outcome::kAdvance;
    case UsbOutcome::kStall: return failed(td, kStalled, true);
    case UsbOutcome::kBabble: return failed(td, kStalled | kBabble, true);
    case UsbOutcome::kSilent: return failed(td, kTimeout, false);
    case UsbOutcome::kDone: break;
  }
  td.status &= ~(kActive | kStatusResults | kActualLength);
  td.status |= (static_cast<uint32_t>(answer.moved) - 1) & kActualLength;
  if (!in || answer.moved >= length || (td.status & kShortDetect) == 0) return Outcome::kAdvance;
  // A short packet ends the queue here; software goes on from it.
  state_.short_due = true;
  return Outcome::kStay;
}

// `at_once`, or when the count of errors has come down to 0; a count that was 0 has no end.
Uhci::Outcome Uhci::failed(Td& td, uint32_t why, bool at_once) {
  const uint32_t left = (td.status & kErrorCount) >> kErrorShift;
  td.status = (td.status & ~(kActualLength | kNak)) | why | kActualLength;
  if (!at_once && left != 0) td.status -= 1u << kErrorShift;
  if (at_once || left == 1 || (td.status & kIsochronous) != 0) {
    td.status &= ~kActive;
    if ((td.status & kIsochronous) == 0) td.status |= kStalled;
    state_.status |= kError;
    drive_interrupt();
  }
  return Outcome::kStay;
}

}  // namespace kite::devices

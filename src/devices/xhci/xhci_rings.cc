// Guest memory, event rings and interrupts. [xHCI] 4.9, 4.17.
#include "devices/xhci/xhci.h"
#include "support/log.h"

namespace kite::devices {

using namespace xhci;

bool Xhci::read_memory(uint64_t address, std::span<uint8_t> to) {
  if (!may_master()) return false;
  if (memory_.read(address, to)) return true;
  die("a structure is not in memory", kSystemError);
  return false;
}

bool Xhci::write_memory(uint64_t address, std::span<const uint8_t> from) {
  if (!may_master()) return false;
  if (memory_.write(address, from)) return true;
  die("a structure is not in memory", kSystemError);
  return false;
}

// 4.10.2.6, 5.4.2: the controller stops until it is reset.
void Xhci::die(std::string_view why, uint32_t status) {
  log::guest_error("{}: {}; the controller stops", path(), why);
  state_.status |= status | kHalted;
  state_.command &= ~kRun;
  state_.commands_running = false;
}

// The next TRB that software has handed over, links followed; `ring` is behind it then.
Xhci::Fetched Xhci::fetch(Ring& ring, Trb& trb, uint64_t& address) {
  for (unsigned links = 0; links < kMostLinks; ++links) {
    if (!load(ring.dequeue, trb)) return Fetched::kBroken;
    if (((trb.control & kCycle) != 0) != ring.cycle) return Fetched::kNone;
    address = ring.dequeue;
    if (trb.type() != kLink) {
      ring.dequeue += kTrbBytes;
      return Fetched::kReady;
    }
    ring.dequeue = trb.parameter & ~uint64_t{0xf};
    if ((trb.control & kToggle) != 0) ring.cycle = !ring.cycle;
  }
  die("a ring is made of links", kControllerError);
  return Fetched::kBroken;
}

// --- events

// 4.9.4: a table of one segment, which is read once.
void Xhci::open_event_ring(Interrupter& interrupter) {
  struct Entry {
    uint64_t base;
    uint32_t size, reserved;
  } entry{};
  interrupter.size = interrupter.next = 0;
  interrupter.cycle = true;
  if (interrupter.table_size == 0) return;
  if (interrupter.table_size > 1) return die("an event ring has more segments than one", kControllerError);
  if (!load(interrupter.table, entry)) return;
  const uint32_t size = entry.size & 0xffff;
  if (size < kLeastRing || size > kMostRing) return die("an event ring has an impossible size", kControllerError);
  interrupter.segment = entry.base & ~uint64_t{0x3f};
  interrupter.size = size;
}

// How many events there is room for; one place stays empty.
unsigned Xhci::event_room(unsigned number) {
  const Interrupter& ring = state_.interrupters[number];
  if (ring.size == 0) return 0;
  const uint64_t dequeue = ring.dequeue & ~uint64_t{0xf};
  const uint64_t behind = (dequeue - ring.segment) / kTrbBytes;
  if (dequeue < ring.segment || behind >= ring.size) return 0;
  return static_cast<unsigned>((behind + ring.size - ring.next - 1) % ring.size);
}

void Xhci::post_event(unsigned number, Trb event, bool interrupts) {
  if (event_room(number) == 0) {
    log::guest_error("{}: an event ring is full; an event is lost", path());
    return;
  }
  Interrupter& ring = state_.interrupters[number];
  event.control = (event.control & ~kCycle) | (ring.cycle ? kCycle : 0);
  if (!store(ring.segment + uint64_t{ring.next} * kTrbBytes, event)) return;
  if (++ring.next == ring.size) {
    ring.next = 0;
    ring.cycle = !ring.cycle;
  }
  if (interrupts) raise(number);
}

// 4.17.2: once, until the handler says that it is done.
void Xhci::raise(unsigned number) {
  Interrupter& set = state_.interrupters[number];
  if ((set.dequeue & kHandlerBusy) != 0) return;
  set.dequeue |= kHandlerBusy;
  set.management |= kPending;
  state_.status |= kEventInterrupt;
  drive_interrupts();
}

// 5.5.2.1: a message takes the pending bit away; with the pin, which is interrupter 0's alone, software does.
void Xhci::drive_interrupts() {
  const bool on = (state_.command & kInterruptsOn) != 0;
  const bool messages_x = msix_.enabled(), messages = messages_x || msi_.enabled();
  const auto due = [&](const Interrupter& set) {
    return on && (set.management & (kPending | kEnable)) == (kPending | kEnable);
  };
  set_intx(!messages && due(state_.interrupters[0]));
  if (!messages) return;
  for (unsigned number = 0; number < kInterrupters; ++number) {
    Interrupter& set = state_.interrupters[number];
    if (!due(set)) continue;
    set.management &= ~kPending;
    if (messages_x)
      msix_.notify(number);
    else
      msi_.notify(0);
  }
}

}  // namespace kite::devices

#include "devices/virtio/virtqueue.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include "support/bits.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace virtio;

// --- chains

void VirtioChain::clear() {
  out.clear();
  in.clear();
  out_bytes = in_bytes = 0;
  id = slots = 0;
}

namespace {

// Visits the pieces of [offset, offset+bytes) of a list, which must have that many.
template <class Visit>
Result<> for_range(std::span<const SgEntry> list, uint64_t offset, uint64_t bytes, Visit visit) {
  for (const SgEntry& entry : list) {
    if (bytes == 0) break;
    if (offset >= entry.bytes) {
      offset -= entry.bytes;
      continue;
    }
    const uint64_t here = std::min(entry.bytes - offset, bytes);
    KITE_TRY(visit(SgEntry{.address = entry.address + offset, .bytes = here}));
    bytes -= here;
    offset = 0;
  }
  if (bytes != 0) return fail("the chain ends {} bytes too early", bytes);
  return {};
}

Result<SgBuffer> pin_range(const GuestMemory& memory, std::span<const SgEntry> list, uint64_t offset, uint64_t bytes,
                           DmaDirection direction) {
  std::vector<SgEntry> pieces;
  pieces.reserve(list.size());
  KITE_TRY(for_range(list, offset, bytes, [&](const SgEntry& piece) -> Result<> {
    pieces.push_back(piece);
    return {};
  }));
  return SgBuffer::pin(memory, pieces, direction);
}

}  // namespace

Result<> VirtioChain::read(const GuestMemory& memory, uint64_t offset, std::span<uint8_t> to) const {
  return for_range(out, offset, to.size(), [&](const SgEntry& piece) -> Result<> {
    KITE_TRY(memory.read(piece.address, to.first(piece.bytes)));
    to = to.subspan(piece.bytes);
    return {};
  });
}

Result<> VirtioChain::write(GuestMemory& memory, uint64_t offset, std::span<const uint8_t> from) const {
  return for_range(in, offset, from.size(), [&](const SgEntry& piece) -> Result<> {
    KITE_TRY(memory.write(piece.address, from.first(piece.bytes)));
    from = from.subspan(piece.bytes);
    return {};
  });
}

Result<SgBuffer> VirtioChain::pin_out(const GuestMemory& memory, uint64_t offset, uint64_t bytes) const {
  return pin_range(memory, out, offset, bytes, DmaDirection::kFromGuest);
}

Result<SgBuffer> VirtioChain::pin_in(const GuestMemory& memory, uint64_t offset, uint64_t bytes) const {
  return pin_range(memory, in, offset, bytes, DmaDirection::kToGuest);
}

// --- the rings in memory

Result<RingArea> RingArea::pin(const GuestMemory& memory, Gpa address, uint64_t bytes, unsigned alignment) {
  if (!is_aligned(address, alignment)) return fail("a ring at {:#x} is not aligned to {} bytes", address, alignment);
  if (bytes > UINT64_MAX - address) return fail("a ring at {:#x} reaches over the end of memory", address);
  const EpochGuard guard;
  const FlatView& view = memory.space().view(guard);
  RingArea area;
  for (Gpa at = address; at < address + bytes;) {
    const FlatRange* const range = view.find(at);
    if (range == nullptr || !range->is_memory() || range->read_only) return fail("a ring at {:#x} is not in RAM", at);
    const std::shared_ptr<RamBlock>& block = range->region->block();
    if (area.block_ == nullptr) {
      area.block_ = block;
      area.block_offset_ = range->block_offset(at);
      area.host_ = block->host() + area.block_offset_;
    } else if (area.block_ != block || area.block_offset_ + (at - address) != range->block_offset(at)) {
      return fail("a ring at {:#x} is not in one piece of RAM", address);
    }
    at = range->end;
  }
  return area;
}

Result<> Virtqueue::map(const GuestMemory& memory, State& state, const Options& options) {
  const uint64_t size = state.size;
  if (size == 0 || (!options.packed && !std::has_single_bit(size))) return fail("a ring of {} descriptors", size);
  memory_ = &memory;
  options_ = options;
  KITE_ASSIGN(descriptors_, RingArea::pin(memory, state.descriptors, size * kDescriptorBytes, 16));
  if (options.packed) {
    KITE_ASSIGN(driver_, RingArea::pin(memory, state.driver, kEventBytes, 4));
    KITE_ASSIGN(device_, RingArea::pin(memory, state.device, kEventBytes, 4));
  } else {
    const uint64_t event = options.event_index ? 2 : 0;
    KITE_ASSIGN(driver_, RingArea::pin(memory, state.driver, kRingHeader + size * kAvailEntry + event, 2));
    KITE_ASSIGN(device_, RingArea::pin(memory, state.device, kRingHeader + size * kUsedEntry + event, 4));
  }
  state_ = &state;
  return {};
}

void Virtqueue::unmap() {
  state_ = nullptr;
  descriptors_ = driver_ = device_ = RingArea();
}

Virtqueue::Descriptor Virtqueue::descriptor(unsigned slot) const {
  const uint64_t at = uint64_t{slot} * kDescriptorBytes;
  const uint64_t rest = descriptors_.load64(at + 8);
  Descriptor copy{.address = descriptors_.load64(at), .length = static_cast<uint32_t>(rest), .flags = 0, .tail = 0};
  const auto third = static_cast<uint16_t>(rest >> 32), fourth = static_cast<uint16_t>(rest >> 48);
  copy.flags = options_.packed ? fourth : third;
  copy.tail = options_.packed ? third : fourth;
  return copy;
}

// --- taking

Result<bool> Virtqueue::take(VirtioChain& chain) {
  chain.clear();
  return options_.packed ? take_packed(chain) : take_split(chain);
}

Result<> Virtqueue::add(VirtioChain& chain, const Descriptor& descriptor) {
  if (chain.out.size() + chain.in.size() == kMostDescriptors)
    return fail("a chain has more than {} descriptors", kMostDescriptors);
  if (descriptor.length == 0) return fail("a descriptor of no bytes");
  if (descriptor.length > UINT64_MAX - descriptor.address)
    return fail("a descriptor at {:#x} reaches over the end of memory", descriptor.address);
  const SgEntry entry{.address = descriptor.address, .bytes = descriptor.length};
  if ((descriptor.flags & kWrite) != 0) {
    chain.in.push_back(entry);
    chain.in_bytes += entry.bytes;
    return {};
  }
  // 2.7.4.2: what the device reads comes before what it writes.
  if (!chain.in.empty()) return fail("a readable descriptor comes after a writable one");
  chain.out.push_back(entry);
  chain.out_bytes += entry.bytes;
  return {};
}

// 2.7.5.3, 2.8.7: descriptors in a table of their own.
Result<> Virtqueue::add_table(VirtioChain& chain, const Descriptor& table) {
  if (!options_.indirect) return fail("an indirect table, which was not negotiated");
  if ((table.flags & kNext) != 0) return fail("an indirect table in the middle of a chain");
  const unsigned entries = table.length / kDescriptorBytes;
  if (entries == 0 || table.length % kDescriptorBytes != 0) return fail("an indirect table of {} bytes", table.length);
  if (entries > kMostDescriptors) return fail("an indirect table has more than {} descriptors", kMostDescriptors);
  table_.resize(table.length);
  KITE_TRY(memory_->read(table.address, table_));
  unsigned at = 0;
  for (unsigned count = 0; count < entries; ++count) {
    const uint8_t* const entry = &table_[size_t{at} * kDescriptorBytes];
    const auto third = load<uint16_t>(entry + 12), fourth = load<uint16_t>(entry + 14);
    const Descriptor descriptor{.address = load<uint64_t>(entry),
                                .length = load<uint32_t>(entry + 8),
                                .flags = options_.packed ? fourth : third,
                                .tail = options_.packed ? third : fourth};
    if ((descriptor.flags & kTable) != 0) return fail("an indirect table in an indirect table");
    KITE_TRY(add(chain, descriptor));
    if (options_.packed) {  // 2.8.7: the table is the list
      ++at;
      continue;
    }
    if ((descriptor.flags & kNext) == 0) return {};
    at = descriptor.tail;
    if (at >= entries) return fail("descriptor {} of an indirect table of {}", at, entries);
  }
  return options_.packed ? Result<>() : fail("a chain runs in a circle");
}

Result<bool> Virtqueue::take_split(VirtioChain& chain) {
  const uint16_t available = driver_.load16(2);
  const auto waiting = static_cast<uint16_t>(available - state_->next_avail);
  if (waiting == 0) return false;
  if (waiting > state_->size)
    return fail("the available ring moved from {} to {}, with {} descriptors", state_->next_avail, available,
                state_->size);
  const unsigned slot = state_->next_avail & (state_->size - 1u);
  unsigned at = driver_.load16(kRingHeader + slot * kAvailEntry);
  if (at >= state_->size) return fail("descriptor {} of {}", at, state_->size);
  chain.id = static_cast<uint16_t>(at);
  for (unsigned count = 0; count < state_->size; ++count) {
    const Descriptor copy = descriptor(at);
    if ((copy.flags & kTable) != 0)
      KITE_TRY(add_table(chain, copy));
    else
      KITE_TRY(add(chain, copy));
    if ((copy.flags & kNext) == 0) {
      chain.slots = 1;
      ++state_->next_avail;
      return true;
    }
    at = copy.tail;
    if (at >= state_->size) return fail("descriptor {} of {}", at, state_->size);
  }
  return fail("a chain runs in a circle");
}

void Virtqueue::advance(uint16_t& slot, bool& wrap, unsigned by) const {
  const unsigned next = slot + by;
  wrap ^= next >= state_->size;
  slot = static_cast<uint16_t>(next >= state_->size ? next - state_->size : next);
}

// 2.8.1: available when the flag bits differ, and the first is as the driver's wrap counter.
bool Virtqueue::packed_available(uint16_t slot, bool wrap) const {
  const uint16_t flags = descriptors_.load16(uint64_t{slot} * kDescriptorBytes + 14);
  return ((flags & kAvail) != 0) == wrap && ((flags & kUsed) != 0) != wrap;
}

Result<bool> Virtqueue::take_packed(VirtioChain& chain) {
  uint16_t slot = state_->next_avail;
  bool wrap = state_->avail_wrap;
  if (!packed_available(slot, wrap)) return false;
  for (unsigned count = 1; count <= state_->size; ++count) {
    const Descriptor copy = descriptor(slot);
    if ((copy.flags & kTable) != 0)
      KITE_TRY(add_table(chain, copy));
    else
      KITE_TRY(add(chain, copy));
    advance(slot, wrap, 1);
    if ((copy.flags & kNext) != 0) continue;
    // 2.8.6: the id is in the last descriptor of a chain.
    chain.id = copy.tail;
    chain.slots = static_cast<uint16_t>(count);
    state_->next_avail = slot;
    state_->avail_wrap = wrap;
    return true;
  }
  return fail("a chain runs in a circle");
}

// --- giving

void Virtqueue::give(const VirtioChain& chain, uint32_t written) {
  if (options_.packed)
    give_packed(chain, written);
  else
    give_split(chain, written);
}

void Virtqueue::give_together(std::span<const Given> list) {
  if (list.size() == 1) return give(*list[0].chain, list[0].written);
  if (!options_.packed) {
    for (const auto& [chain, written] : list) put_used(state_->next_used++, *chain, written);
    return device_.store16(2, state_->next_used);
  }
  // 2.8.9: what makes the first of them used comes last.
  const uint64_t first = uint64_t{state_->next_used} * kDescriptorBytes;
  const uint16_t first_flags = used_flags(list[0].written);
  descriptors_.store32(first + 8, list[0].written);
  descriptors_.store16(first + 12, list[0].chain->id);
  advance(state_->next_used, state_->used_wrap, list[0].chain->slots);
  for (const auto& [chain, written] : list.subspan(1)) give_packed(*chain, written);
  descriptors_.store16(first + 14, first_flags);
}

void Virtqueue::put_used(unsigned slot, const VirtioChain& chain, uint32_t written) {
  const uint64_t at = kRingHeader + (slot & (state_->size - 1u)) * kUsedEntry;
  device_.store32(at, chain.id);
  device_.store32(at + 4, written);
}

void Virtqueue::give_split(const VirtioChain& chain, uint32_t written) {
  put_used(state_->next_used++, chain, written);
  device_.store16(2, state_->next_used);  // 2.7.8.2: after the entry
}

uint16_t Virtqueue::used_flags(uint32_t written) const {
  return static_cast<uint16_t>((state_->used_wrap ? kAvail | kUsed : 0u) | (written != 0 ? kWrite : 0u));
}

void Virtqueue::give_packed(const VirtioChain& chain, uint32_t written) {
  const uint64_t at = uint64_t{state_->next_used} * kDescriptorBytes;
  descriptors_.store64(at + 8, written | uint64_t{chain.id} << 32);
  descriptors_.store16(at + 14, used_flags(written));  // 2.8.15: after the rest
  advance(state_->next_used, state_->used_wrap, chain.slots);
}

// --- suppression

namespace {

// 2.7.7.2: whether an index moved past `event` on its way from `before` to `after`.
bool passed(uint16_t event, uint16_t after, uint16_t before) {
  return static_cast<uint16_t>(after - event - 1) < static_cast<uint16_t>(after - before);
}

}  // namespace

bool Virtqueue::wants_interrupt(bool idle) {
  // What was given is visible before the driver's wishes are read: it does these in the reverse order.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const bool wanted = options_.packed ? packed_wants_interrupt() : split_wants_interrupt();
  // 6.3 NOTIFY_ON_EMPTY: whatever the driver wishes, when it has nothing left here.
  return wanted || (options_.notify_on_empty && idle && driver_.load16(2) == state_->next_avail);
}

bool Virtqueue::split_wants_interrupt() {
  if (!options_.event_index) return (driver_.load16(0) & kNoInterrupt) == 0;
  const uint16_t before = state_->signalled;
  const bool first = !state_->signalled_valid;
  state_->signalled = state_->next_used;
  state_->signalled_valid = true;
  const uint16_t event = driver_.load16(kRingHeader + uint64_t{state_->size} * kAvailEntry);
  return first || passed(event, state_->next_used, before);
}

bool Virtqueue::packed_wants_interrupt() {
  const bool first = !state_->signalled_valid;
  auto before = state_->signalled;
  if (state_->signalled_wrap != state_->used_wrap) before = static_cast<uint16_t>(before - state_->size);
  state_->signalled = state_->next_used;
  state_->signalled_wrap = state_->used_wrap;
  state_->signalled_valid = true;
  const uint16_t flags = driver_.load16(2);
  if (flags == kEventsOff) return false;
  if (flags != kEventsAt || first) return true;
  // 2.8.14: a slot, and the wrap counter it has; slots of the lap before count backwards.
  const uint16_t place = driver_.load16(0);
  const bool wrap = (place >> 15) != 0;
  auto event = static_cast<uint16_t>(place & 0x7fff);
  if (wrap != state_->used_wrap) event = static_cast<uint16_t>(event - state_->size);
  return passed(event, state_->next_used, before);
}

void Virtqueue::suppress_kicks() {
  if (options_.packed)
    device_.store16(2, kEventsOff);
  else if (!options_.event_index)
    device_.store16(0, kNoNotify);
  // With event indices it is enough not to move the index.
}

bool Virtqueue::allow_kicks() {
  if (options_.packed) {
    if (options_.event_index)
      device_.store16(0, static_cast<uint16_t>(state_->next_avail | (state_->avail_wrap ? 0x8000u : 0u)));
    device_.store16(2, options_.event_index ? kEventsAt : kEventsOn);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return packed_available(state_->next_avail, state_->avail_wrap);
  }
  if (options_.event_index)
    device_.store16(kRingHeader + uint64_t{state_->size} * kUsedEntry, state_->next_avail);
  else
    device_.store16(0, 0);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return driver_.load16(2) != state_->next_avail;
}

}  // namespace kite::devices

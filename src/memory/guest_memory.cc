#include "memory/guest_memory.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "support/bits.h"

namespace kite {

DmaSpan::DmaSpan(std::shared_ptr<RamBlock> block, uint64_t offset, uint64_t bytes, DmaDirection direction)
    : block_(std::move(block)), offset_(offset), size_(bytes), direction_(direction) {}

DmaSpan& DmaSpan::operator=(DmaSpan&& other) noexcept {
  if (this == &other) return *this;
  finish(size_);
  block_ = std::move(other.block_);
  offset_ = other.offset_;
  size_ = other.size_;
  direction_ = other.direction_;
  return *this;
}

void DmaSpan::finish(uint64_t written) {
  if (block_ == nullptr) return;
  if (direction_ == DmaDirection::kToGuest) block_->note_write(offset_, std::min(written, size_));
  block_.reset();
}

// Walks the view twice, first to check: the caller holds a guard, so both walks see the same map.
template <class Visit>
Result<> GuestMemory::for_pieces(Gpa address, uint64_t bytes, Purpose purpose, Visit visit) const {
  if (bytes > UINT64_MAX - address) return fail("{} bytes at {:#x} reach over the end of memory", bytes, address);
  const EpochGuard guard;
  const FlatView& view = space_.view(guard);
  const Gpa end = address + bytes;
  for (Gpa at = address; at < end;) {
    const FlatRange* const range = view.find(at);
    if (range == nullptr || !range->is_memory()) return fail("there is no memory at {:#x}", at);
    if (purpose == Purpose::kWrite && range->read_only) return fail("the memory at {:#x} is read-only", at);
    at = range->end;
  }
  for (Gpa at = address; at < end;) {
    const FlatRange* const range = view.find(at);
    const uint64_t here = std::min(range->end, end) - at;
    visit(Piece{.range = range, .address = at, .bytes = here});
    at += here;
  }
  return {};
}

Result<> GuestMemory::read(Gpa address, std::span<uint8_t> to) const {
  return for_pieces(address, to.size(), Purpose::kRead, [&](const Piece& piece) {
    std::memcpy(to.data() + (piece.address - address), piece.range->host(piece.address), piece.bytes);
  });
}

Result<> GuestMemory::write(Gpa address, std::span<const uint8_t> from) {
  return for_pieces(address, from.size(), Purpose::kWrite, [&](const Piece& piece) {
    std::memcpy(piece.range->host(piece.address), from.data() + (piece.address - address), piece.bytes);
    piece.range->region->block()->note_write(piece.range->block_offset(piece.address), piece.bytes);
  });
}

Result<> GuestMemory::fill(Gpa address, uint64_t bytes, uint8_t value) {
  return for_pieces(address, bytes, Purpose::kWrite, [&](const Piece& piece) {
    std::memset(piece.range->host(piece.address), value, piece.bytes);
    piece.range->region->block()->note_write(piece.range->block_offset(piece.address), piece.bytes);
  });
}

uint64_t GuestMemory::discard(Gpa address, uint64_t bytes) {
  const Gpa end = address + std::min(bytes, UINT64_MAX - address);
  const EpochGuard guard;
  uint64_t discarded = 0;
  for (const FlatRange& range : space_.view(guard).ranges()) {
    if (range.kind != RegionKind::kRam || range.read_only || range.end <= address || range.start >= end) continue;
    const uint64_t first = align_up(range.block_offset(std::max(range.start, address)), kPageSize);
    const uint64_t last = align_down(range.block_offset(std::min(range.end, end)), kPageSize);
    if (first < last && range.region->block()->discard(first, last - first)) discarded += last - first;
  }
  return discarded;
}

Result<> GuestMemory::pin(Gpa address, uint64_t bytes, DmaDirection direction, std::vector<DmaSpan>& spans) const {
  const Purpose purpose = direction == DmaDirection::kToGuest ? Purpose::kWrite : Purpose::kRead;
  return for_pieces(address, bytes, purpose, [&](const Piece& piece) {
    const std::shared_ptr<RamBlock>& block = piece.range->region->block();
    const uint64_t offset = piece.range->block_offset(piece.address);
    if (spans.empty() || !spans.back().extend(block.get(), offset, piece.bytes, direction))
      spans.emplace_back(block, offset, piece.bytes, direction);
  });
}

}  // namespace kite

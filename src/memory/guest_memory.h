// Fallible access to guest RAM for device models and loaders (DMA). It never reaches trapped regions: DMA aimed at a
// device is a master abort, an error here. Lengths and addresses come from the guest and are checked.
//
// Small structures (descriptors, headers) are copied out and the copy validated. Payload crosses a suspension point
// only as a pinned DmaSpan.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "memory/address_space.h"
#include "support/result.h"

namespace kite {

enum class DmaDirection : uint8_t { kToGuest, kFromGuest };

// A pinned piece of guest memory: holds its RAM block, so map changes and unplug cannot free it. Move-only. For
// kToGuest, complete(n) marks the first n bytes as written (dirty log, cached code); dropping an uncompleted span marks
// the whole of it, since the host may have written any part.
class DmaSpan {
 public:
  DmaSpan(std::shared_ptr<RamBlock> block, uint64_t offset, uint64_t bytes, DmaDirection direction);
  DmaSpan(DmaSpan&& other) noexcept = default;  // the source holds no block any more
  DmaSpan& operator=(DmaSpan&& other) noexcept;
  ~DmaSpan() { finish(size_); }

  [[nodiscard]] std::span<uint8_t> bytes() const { return {block_->host() + offset_, size_}; }
  [[nodiscard]] uint64_t size() const { return size_; }
  void complete(uint64_t written) { finish(written); }  // unpins: bytes() is dead afterwards
  // Takes `bytes` that lie behind it in, if that is where `offset` of `block` is.
  [[nodiscard]] bool extend(const RamBlock* block, uint64_t offset, uint64_t bytes, DmaDirection direction) {
    if (block_.get() != block || direction_ != direction || offset_ + size_ != offset) return false;
    size_ += bytes;
    return true;
  }

 private:
  void finish(uint64_t written);

  std::shared_ptr<RamBlock> block_;
  uint64_t offset_;
  uint64_t size_;
  DmaDirection direction_;
};

class GuestMemory {
 public:
  explicit GuestMemory(AddressSpace& space) : space_(space) {}

  // All or nothing: an error leaves memory as it was. Writing ROM is an error.
  Result<> read(Gpa address, std::span<uint8_t> to) const;
  Result<> write(Gpa address, std::span<const uint8_t> from);
  Result<> fill(Gpa address, uint64_t bytes, uint8_t value);
  // Gives the whole pages of RAM in [address, address+bytes) back to the host; they read as zero from now on. Answers
  // how many bytes these are: what is something else, or cannot be given back, stays as it is.
  uint64_t discard(Gpa address, uint64_t bytes);
  template <class T>
  Result<T> load(Gpa address) const {
    T value;
    KITE_TRY(read(address, {reinterpret_cast<uint8_t*>(&value), sizeof value}));
    return value;
  }
  template <class T>
  Result<> store(Gpa address, const T& value) {
    return write(address, {reinterpret_cast<const uint8_t*>(&value), sizeof value});
  }

  // Pins [address, address+bytes) behind what `spans` holds, in a span for each contiguous piece of one RAM block; what
  // goes on where the last one ends makes that longer. Changes nothing on error.
  Result<> pin(Gpa address, uint64_t bytes, DmaDirection direction, std::vector<DmaSpan>& spans) const;

  [[nodiscard]] AddressSpace& space() const { return space_; }

 private:
  struct Piece {
    const FlatRange* range;
    uint64_t address;
    uint64_t bytes;
  };
  enum class Purpose : uint8_t { kRead, kWrite };
  // Calls `visit` for each piece of [address, address+bytes), or answers an error when any byte cannot be used so.
  template <class Visit>
  Result<> for_pieces(Gpa address, uint64_t bytes, Purpose purpose, Visit visit) const;

  AddressSpace& space_;
};

}  // namespace kite

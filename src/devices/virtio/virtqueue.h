// Virtqueue: the device's side of one queue, split [VIRTIO 1.2] 2.7 or packed 2.8. A pure ring: no lock, no threads, no
// registers. Rings are in guest memory and hostile: every descriptor is copied and the copy checked; what a driver must
// not do is an error with the reason, and the device is then broken.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "devices/storage/sg_buffer.h"
#include "devices/virtio/virtio_regs.h"
#include "memory/guest_memory.h"
#include "support/result.h"

namespace kite::devices {

// One chain of descriptors: a request of the driver. Lengths are checked, addresses are not: whoever reaches for the
// memory learns from the error that there is none.
struct VirtioChain {
  uint16_t queue = 0;
  uint16_t id = 0;           // what goes into the used ring: head or buffer id
  uint16_t slots = 0;        // descriptors of the ring that it takes (packed)
  std::vector<SgEntry> out;  // what the device reads, in order
  std::vector<SgEntry> in;   // what the device writes
  uint64_t out_bytes = 0, in_bytes = 0;

  void clear();
  // Bytes [offset, offset+size) of the readable part.
  Result<> read(const GuestMemory& memory, uint64_t offset, std::span<uint8_t> to) const;
  // Of the writable part.
  Result<> write(GuestMemory& memory, uint64_t offset, std::span<const uint8_t> from) const;
  [[nodiscard]] Result<SgBuffer> pin_out(const GuestMemory& memory, uint64_t offset, uint64_t bytes) const;
  [[nodiscard]] Result<SgBuffer> pin_in(const GuestMemory& memory, uint64_t offset, uint64_t bytes) const;

  // Members of VirtioDevice's bookkeeping.
  uint32_t life = 0;      // of the queue when this was taken
  uint64_t sequence = 0;  // order of taking
  size_t place = 0;       // among those in flight
};

// A stretch of guest RAM that stays mapped: one part of a ring.
class RingArea {
 public:
  RingArea() = default;
  // Fails when it is not RAM in one piece, or not aligned.
  static Result<RingArea> pin(const GuestMemory& memory, Gpa address, uint64_t bytes, unsigned alignment);

  [[nodiscard]] uint16_t load16(uint64_t offset) const {
    return __atomic_load_n(reinterpret_cast<const uint16_t*>(host_ + offset), __ATOMIC_ACQUIRE);
  }
  // Half of a descriptor; read once.
  [[nodiscard]] uint64_t load64(uint64_t offset) const {
    return __atomic_load_n(reinterpret_cast<const uint64_t*>(host_ + offset), __ATOMIC_RELAXED);
  }
  void store16(uint64_t offset, uint16_t value) { store_as(offset, value); }
  void store32(uint64_t offset, uint32_t value) { store_as(offset, value); }
  void store64(uint64_t offset, uint64_t value) { store_as(offset, value); }

 private:
  // Release order: for an x86-64 host that costs nothing.
  template <class T>
  void store_as(uint64_t offset, T value) {
    __atomic_store_n(reinterpret_cast<T*>(host_ + offset), value, __ATOMIC_RELEASE);
    block_->note_write(block_offset_ + offset, sizeof(T));
  }

  std::shared_ptr<RamBlock> block_;
  uint64_t block_offset_ = 0;
  uint8_t* host_ = nullptr;
};

class Virtqueue {
 public:
  // What the driver chose and how far both sides are. All of it is saved.
  struct State {
    uint16_t size = 0;
    bool enabled = false;
    uint16_t vector = virtio::kNoVector;
    uint64_t descriptors = 0, driver = 0, device = 0;  // 2.7: table, avail ring, used ring; 2.8: ring, two event areas
    uint16_t next_avail = 0;                           // split: free-running; packed: a slot
    uint16_t next_used = 0;
    bool avail_wrap = true, used_wrap = true;  // packed
    uint16_t signalled = 0;                    // next_used, and its wrap, when the driver's wishes were last looked at
    bool signalled_wrap = true;
    bool signalled_valid = false;
    bool operator==(const State&) const = default;
  };
  struct Options {
    bool packed = false;
    bool event_index = false;
    bool indirect = false;
    bool notify_on_empty = false;  // legacy
  };

  // Maps the rings that `state` names. Sizes of split rings are powers of two (2.7), packed ones anything to 32768.
  Result<> map(const GuestMemory& memory, State& state, const Options& options);
  void unmap();
  [[nodiscard]] bool mapped() const { return state_ != nullptr; }

  // Takes the next available chain; false: there is none.
  Result<bool> take(VirtioChain& chain);
  // Hands a chain back with the number of bytes that were written to its writable part.
  void give(const VirtioChain& chain, uint32_t written);
  // Several at once: the driver sees all of them or none.
  struct Given {
    const VirtioChain* chain;
    uint32_t written;
  };
  void give_together(std::span<const Given> list);
  // Whether the driver wants to hear of what was given since the last call that answered true. 2.7.7.2, 2.8.10.
  // `idle`: no chain is in flight.
  bool wants_interrupt(bool idle);
  // Kicks are not needed while the queue is looked at anyway.
  void suppress_kicks();
  // From here on they are; true: something became available meanwhile, look again.
  [[nodiscard]] bool allow_kicks();

 private:
  struct Descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t tail;  // split: next; packed: buffer id
  };
  [[nodiscard]] Descriptor descriptor(unsigned slot) const;
  [[nodiscard]] bool packed_available(uint16_t slot, bool wrap) const;
  Result<bool> take_split(VirtioChain& chain);
  Result<bool> take_packed(VirtioChain& chain);
  Result<> add_table(VirtioChain& chain, const Descriptor& table);
  static Result<> add(VirtioChain& chain, const Descriptor& descriptor);
  void give_split(const VirtioChain& chain, uint32_t written);
  void put_used(unsigned slot, const VirtioChain& chain, uint32_t written);  // split
  void give_packed(const VirtioChain& chain, uint32_t written);
  [[nodiscard]] uint16_t used_flags(uint32_t written) const;  // packed, for next_used
  bool split_wants_interrupt();
  bool packed_wants_interrupt();
  void advance(uint16_t& slot, bool& wrap, unsigned by) const;

  // Wiring: of the device, while mapped.
  const GuestMemory* memory_ = nullptr;
  State* state_ = nullptr;
  Options options_;
  RingArea descriptors_, driver_, device_;
  std::vector<uint8_t> table_;  // scratch: an indirect table
};

}  // namespace kite::devices

#include "memory/io_dispatch.h"

#include <algorithm>
#include <bit>

#include "support/bits.h"
#include "support/bytes.h"

namespace kite {
namespace {

// Aligned accesses are single host accesses, as the guest's memory model asks; others have no such promise.
template <class T>
uint64_t load_atomic(const uint8_t* host) {
  return __atomic_load_n(reinterpret_cast<const T*>(host), __ATOMIC_RELAXED);
}
template <class T>
void store_atomic(uint8_t* host, uint64_t value) {
  __atomic_store_n(reinterpret_cast<T*>(host), static_cast<T>(value), __ATOMIC_RELAXED);
}

bool host_aligned(const uint8_t* host, unsigned bytes) {
  return std::has_single_bit(bytes) && is_aligned(reinterpret_cast<uintptr_t>(host), bytes);
}

uint64_t read_memory(const uint8_t* host, unsigned bytes) {
  if (host_aligned(host, bytes)) {
    switch (bytes) {
      case 1: return load_atomic<uint8_t>(host);
      case 2: return load_atomic<uint16_t>(host);
      case 4: return load_atomic<uint32_t>(host);
      default: return load_atomic<uint64_t>(host);
    }
  }
  return load_le(host, bytes);
}

void write_memory(uint8_t* host, unsigned bytes, uint64_t value) {
  if (host_aligned(host, bytes)) {
    switch (bytes) {
      case 1: return store_atomic<uint8_t>(host, value);
      case 2: return store_atomic<uint16_t>(host, value);
      case 4: return store_atomic<uint32_t>(host, value);
      default: return store_atomic<uint64_t>(host, value);
    }
  }
  store_le(host, bytes, value);
}

// The next access that the rule allows for `bytes` bytes at `offset`.
struct Step {
  uint64_t offset;   // of the handler's access
  unsigned size;     // of the handler's access: 1, 2, 4 or 8
  unsigned skipped;  // bytes of it that come before `offset`
  unsigned used;     // bytes of it that are the caller's
};

Step next_step(const AccessRule& rule, uint64_t offset, unsigned bytes) {
  const unsigned misaligned = static_cast<unsigned>(offset & (rule.min_size - 1u));
  if (bytes < rule.min_size || (misaligned != 0 && !rule.unaligned))
    return {.offset = offset - misaligned,
            .size = rule.min_size,
            .skipped = misaligned,
            .used = std::min(bytes, rule.min_size - misaligned)};
  unsigned size = std::bit_floor(std::min<unsigned>(bytes, rule.max_size));
  if (!rule.unaligned && offset != 0) size = std::min(size, 1u << std::min(3, std::countr_zero(offset)));
  return {.offset = offset, .size = size, .skipped = 0, .used = size};
}

bool follows_rule(const AccessRule& rule, uint64_t offset, unsigned bytes) {
  return bytes >= rule.min_size && bytes <= rule.max_size && std::has_single_bit(bytes) &&
         (rule.unaligned || is_aligned(offset, bytes));
}

uint64_t read_io(const Region& region, uint64_t offset, unsigned bytes) {
  const AccessRule rule = region.rule();
  IoHandler& handler = *region.handler();
  if (follows_rule(rule, offset, bytes)) [[likely]]
    return handler.io_read(offset, bytes) & low_mask(bytes * 8);
  uint64_t value = 0;
  for (unsigned done = 0; done < bytes;) {
    const Step step = next_step(rule, offset + done, bytes - done);
    const uint64_t word = handler.io_read(step.offset, step.size) >> (step.skipped * 8);
    value |= (word & low_mask(step.used * 8)) << (done * 8);
    done += step.used;
  }
  return value;
}

void write_io(const Region& region, uint64_t offset, unsigned bytes, uint64_t value) {
  const AccessRule rule = region.rule();
  IoHandler& handler = *region.handler();
  if (follows_rule(rule, offset, bytes)) [[likely]]
    return handler.io_write(offset, bytes, value & low_mask(bytes * 8));
  for (unsigned done = 0; done < bytes;) {
    const Step step = next_step(rule, offset + done, bytes - done);
    const uint64_t part = (value >> (done * 8)) & low_mask(step.used * 8);
    handler.io_write(step.offset, step.size, part << (step.skipped * 8));
    done += step.used;
  }
}

bool ring_doorbell(const DoorbellSpots& spots, uint64_t offset, unsigned bytes, uint64_t value) {
  for (const DoorbellSpot& spot : spots) {
    if (!spot.rung_by(offset, bytes, value & low_mask(bytes * 8))) continue;
    ring(spot);
    return true;
  }
  return false;
}

}  // namespace

uint64_t read_range(const FlatRange& range, uint64_t address, unsigned bytes) {
  if (range.is_memory()) return read_memory(range.host(address), bytes);
  return read_io(*range.region, range.block_offset(address), bytes);
}

void write_range(const FlatRange& range, uint64_t address, unsigned bytes, uint64_t value) {
  const uint64_t offset = range.block_offset(address);
  if (!range.is_memory()) {
    if (range.doorbells != nullptr && ring_doorbell(*range.doorbells, offset, bytes, value)) return;
    return write_io(*range.region, offset, bytes, value);
  }
  if (range.read_only) {
    if (range.region->handler() != nullptr) write_io(*range.region, offset, bytes, value);
    return;
  }
  write_memory(range.host(address), bytes, value);
  range.region->block()->note_write(offset, bytes);
}

size_t read_range_many(const FlatRange& range, uint64_t address, unsigned bytes, std::span<uint8_t> to) {
  const uint64_t offset = range.block_offset(address);
  if (range.kind != RegionKind::kIo || !follows_rule(range.region->rule(), offset, bytes)) return 0;
  return range.region->handler()->io_read_many(offset, bytes, to);
}

size_t write_range_many(const FlatRange& range, uint64_t address, unsigned bytes, std::span<const uint8_t> from) {
  const uint64_t offset = range.block_offset(address);
  if (range.kind != RegionKind::kIo || range.doorbells != nullptr || !follows_rule(range.region->rule(), offset, bytes))
    return 0;
  return range.region->handler()->io_write_many(offset, bytes, from);
}

}  // namespace kite

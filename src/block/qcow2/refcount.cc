// Which host clusters are taken: [qcow2] "Host cluster management". Everything here changes memory only; write_back.cc
// writes it.
#include <algorithm>
#include <cerrno>
#include <set>

#include "block/qcow2/qcow2_node.h"
#include "support/bits.h"

namespace kite::block::qcow2 {
namespace {

constexpr uint64_t kMaxHostOffset = kOffsetMask;

}  // namespace

uint64_t Qcow2Node::max_refcount() const { return low_mask(1u << header_.refcount_order); }

uint64_t Qcow2Node::block_refcount(const Table& block, uint64_t index) const {
  const uint64_t at = index % refcounts_a_block();
  const uint8_t* bytes = block.bytes.data();
  // [qcow2] "Refcount block entry": below a byte, the least significant bits come first.
  switch (header_.refcount_order) {
    case 0: return bytes[at / 8] >> at % 8 & 1;
    case 1: return bytes[at / 4] >> 2 * (at % 4) & 3;
    case 2: return bytes[at / 2] >> 4 * (at % 2) & 15;
    case 3: return bytes[at];
    case 4: return load_be16(bytes + at * 2);
    case 5: return load_be32(bytes + at * 4);
    default: return load_be64(bytes + at * 8);
  }
}

void Qcow2Node::set_block_refcount(Table& block, uint64_t index, uint64_t value) const {
  const uint64_t at = index % refcounts_a_block();
  uint8_t* bytes = block.bytes.data();
  const unsigned order = header_.refcount_order;
  if (order < 3) {
    const unsigned width = 1u << order;
    const uint64_t a_byte = 8 / width;
    const auto shift = static_cast<unsigned>(at % a_byte) * width;
    uint8_t& byte = bytes[at / a_byte];
    byte = static_cast<uint8_t>((byte & ~(low_mask(width) << shift)) | value << shift);
    block.mark(at / a_byte, at / a_byte + 1);
    return;
  }
  switch (order) {
    case 3: bytes[at] = static_cast<uint8_t>(value); break;
    case 4: store_be16(bytes + at * 2, static_cast<uint16_t>(value)); break;
    case 5: store_be32(bytes + at * 4, static_cast<uint32_t>(value)); break;
    default: store_be64(bytes + at * 8, value); break;
  }
  const uint64_t width = uint64_t{1} << (order - 3);
  block.mark(at * width, at * width + width);
}

Task<IoResult<TablePtr>> Qcow2Node::refcount_block(uint64_t index) {
  const uint64_t slot = index / refcounts_a_block();
  if (slot >= reftable_.size()) co_return TablePtr();
  const uint64_t offset = reftable_[slot] & kReftableMask;
  if (offset == 0) co_return TablePtr();
  if (TablePtr block = refcount_cache_->peek(offset)) co_return block;
  if (!is_aligned(offset, header_.cluster_bytes()) || offset > kMaxHostOffset) {
    mark_corrupt(fmt::format("Refblock offset {:#x} unaligned (reftable index: {:#x})", offset, slot));
    co_return io_fail(EIO);
  }
  co_return co_await refcount_cache_->get(*file_, offset);
}

Task<IoResult<uint64_t>> Qcow2Node::refcount(uint64_t index) {
  KITE_CO_ASSIGN(const TablePtr block, co_await refcount_block(index));
  co_return block == nullptr ? 0 : block_refcount(*block, index);
}

Task<IoResult<>> Qcow2Node::add_refcount(uint64_t index, int64_t delta) {
  KITE_CO_ASSIGN(const TablePtr block, co_await refcount_block(index));
  const uint64_t old = block == nullptr ? 0 : block_refcount(*block, index);
  const uint64_t amount = delta < 0 ? static_cast<uint64_t>(-delta) : static_cast<uint64_t>(delta);
  if (block == nullptr || (delta < 0 && old < amount)) {
    mark_corrupt(fmt::format("the refcount of cluster {:#x} is {}, too small for its users", index, old));
    co_return io_fail(EIO);
  }
  if (delta > 0 && max_refcount() - old < amount) co_return io_fail(ERANGE);
  set_block_refcount(*block, index, delta < 0 ? old - amount : old + amount);
  co_return IoResult<>{};
}

// The first run of `count` clusters with refcount 0 at or behind `from`; what no block counts is free.
Task<IoResult<uint64_t>> Qcow2Node::find_free(uint64_t from, uint64_t count) {
  const uint64_t last = kMaxHostOffset >> header_.cluster_bits;
  uint64_t start = from;
  uint64_t run = 0;
  while (run < count) {
    const uint64_t index = start + run;
    if (index >= last) co_return io_fail(EFBIG);
    KITE_CO_ASSIGN(const TablePtr block, co_await refcount_block(index));
    const uint64_t block_end = (index / refcounts_a_block() + 1) * refcounts_a_block();
    if (block == nullptr) {
      run += std::min(block_end - index, count - run);
      continue;
    }
    for (uint64_t at = index; at < block_end && run < count; ++at) {
      if (block_refcount(*block, at) == 0) {
        ++run;
      } else {
        start = at + 1;
        run = 0;
      }
    }
  }
  co_return start;
}

Task<IoResult<Qcow2Node::Allocation>> Qcow2Node::allocate(uint64_t count) {
  if (!debug_event("cluster_alloc")) co_return io_fail(EIO);
  KITE_CO_ASSIGN(const uint64_t start, co_await find_free(free_from_, count));
  const uint64_t host = start << header_.cluster_bits;
  const uint64_t bytes = count << header_.cluster_bits;
  if (!file_->growable() && host + bytes > file_->length()) co_return io_fail(ENOSPC);
  KITE_CO_TRY(check_overlap(host, bytes));
  KITE_CO_TRY(co_await cover(start, count));
  KITE_CO_TRY(co_await claim_run(start, count));
  free_from_ = start + count;
  co_return Allocation{.host = host, .clusters = count, .fresh = file_->growable() && host >= file_->length()};
}

Task<IoResult<>> Qcow2Node::claim_run(uint64_t index, uint64_t count) {
  for (uint64_t at = index; at < index + count;) {
    if (!debug_event("refblock_load")) co_return io_fail(EIO);
    KITE_CO_ASSIGN(const TablePtr block, co_await refcount_block(at));
    if (block == nullptr) co_return io_fail(EIO);
    const uint64_t end = std::min(index + count, (at / refcounts_a_block() + 1) * refcounts_a_block());
    for (; at < end; ++at) set_block_refcount(*block, at, 1);
  }
  co_return IoResult<>{};
}

bool Qcow2Node::has_block(uint64_t slot) const {
  return slot < reftable_.size() && (reftable_[slot] & kReftableMask) != 0;
}

// Makes refcount blocks for a run of free clusters where there are none. They go behind the run, with the blocks that
// they need themselves, and with a longer refcount table when the old one does not reach so far.
Task<IoResult<>> Qcow2Node::cover(uint64_t index, uint64_t count) {
  std::set<uint64_t> slots;
  const auto add_missing = [&](uint64_t from, uint64_t clusters) {
    for (uint64_t slot = from / refcounts_a_block(); slot <= (from + clusters - 1) / refcounts_a_block(); ++slot) {
      if (!has_block(slot)) slots.insert(slot);
    }
  };
  if (!debug_event("refblock_alloc")) co_return io_fail(EIO);
  add_missing(index, count);
  if (slots.empty()) co_return IoResult<>{};
  const uint64_t a_cluster = header_.cluster_bytes() / 8;
  uint64_t place = index + count;
  uint64_t table_clusters = 0;
  uint64_t needed = 0;
  do {
    needed = slots.size() + table_clusters;
    KITE_CO_ASSIGN(place, co_await find_free(place, needed));
    add_missing(place, needed);
    if (*slots.rbegin() >= reftable_.size()) {
      const uint64_t entries = std::max<uint64_t>(*slots.rbegin() + 2, reftable_.size() + reftable_.size() / 2);
      table_clusters = (entries + a_cluster - 1) / a_cluster;
      if (table_clusters << header_.cluster_bits > kMaxReftableBytes) co_return io_fail(EFBIG);
    }
  } while (needed != slots.size() + table_clusters);
  co_return co_await place_blocks(slots, place, table_clusters);
}

Task<IoResult<>> Qcow2Node::place_blocks(std::set<uint64_t> slots, uint64_t place, uint64_t table_clusters) {
  const unsigned bits = header_.cluster_bits;
  const uint64_t needed = slots.size() + table_clusters;
  if (!file_->growable() && (place + needed) << bits > file_->length()) co_return io_fail(ENOSPC);
  KITE_CO_TRY(check_overlap(place << bits, needed << bits));
  if (table_clusters != 0) {
    if (!debug_event("reftable_grow")) co_return io_fail(EIO);
    reftable_.resize(table_clusters << bits >> 3);
    // A longer table that was not written yet is superseded.
    for (uint64_t i = 0; reftable_moved_ && i < new_reftable_clusters_; ++i) {
      free_cluster((new_reftable_offset_ >> bits) + i, false);
    }
    reftable_moved_ = true;
    new_reftable_offset_ = (place + slots.size()) << bits;
    new_reftable_clusters_ = table_clusters;
  }
  uint64_t at = place;
  for (const uint64_t slot : slots) {
    const uint64_t offset = at++ << bits;
    refcount_cache_->create(offset, table_clusters != 0 ? "refblock_alloc_write_blocks" : "refblock_alloc_write");
    tables_.insert(offset);
    reftable_[slot] = offset;
    const bool none = reftable_dirty_from_ == reftable_dirty_to_;
    reftable_dirty_from_ = none ? slot : std::min<size_t>(reftable_dirty_from_, slot);
    reftable_dirty_to_ = std::max<size_t>(reftable_dirty_to_, slot + 1);
  }
  co_return co_await claim_run(place, needed);
}

Task<IoResult<uint64_t>> Qcow2Node::allocate_bytes(uint64_t bytes) {
  const uint64_t cluster = header_.cluster_bytes();
  const uint64_t room = compressed_next_ == 0 ? 0 : cluster - compressed_next_ % cluster;
  if (room != 0) {
    KITE_CO_ASSIGN(const uint64_t users, co_await refcount(compressed_next_ / cluster));
    if (users == 0 || users >= max_refcount()) compressed_next_ = 0;
  }
  uint64_t at = compressed_next_;
  if (at == 0 || room < bytes) {
    KITE_CO_ASSIGN(const Allocation next, co_await allocate(1));
    if (at != 0 && next.host == align_up(at, cluster)) {
      KITE_CO_TRY(co_await add_refcount(at / cluster, 1));
    } else {
      at = next.host;
    }
  } else {
    KITE_CO_TRY(co_await add_refcount(at / cluster, 1));
  }
  compressed_next_ = is_aligned(at + bytes, cluster) ? 0 : at + bytes;
  co_return at;
}

void Qcow2Node::free_cluster(uint64_t index, bool pass_discard) { freed_.push_back({index, pass_discard}); }

void Qcow2Node::free_entry(uint64_t entry) {
  if ((entry & kCompressed) != 0) {
    uint64_t host = 0;
    uint64_t bytes = 0;
    parse_compressed(entry, host, bytes);
    const uint64_t first = host >> header_.cluster_bits;
    const uint64_t last = (host + bytes - 1) >> header_.cluster_bits;
    for (uint64_t index = first; index <= last; ++index) free_cluster(index, pass_discard_other_);
  } else if ((entry & kOffsetMask) != 0) {
    free_cluster((entry & kOffsetMask) >> header_.cluster_bits, pass_discard_request_);
  }
}

// Clusters whose loss is durable and whose last readers are gone may be taken again. With meta_ held.
Task<IoResult<>> Qcow2Node::apply_freed() {
  while (!freed_batches_.empty() && freed_batches_.front().readers.expired()) {
    const FreedBatch batch = std::move(freed_batches_.front());
    freed_batches_.erase(freed_batches_.begin());
    for (const FreedCluster& freed : batch.clusters) {
      const IoResult<> done = co_await add_refcount(freed.index, -1);
      if (!done) continue;  // said by mark_corrupt(); the cluster stays out of use
      KITE_CO_ASSIGN(const uint64_t left, co_await refcount(freed.index));
      if (left != 0) continue;
      const uint64_t offset = freed.index << header_.cluster_bits;
      l2_cache_->drop(offset);
      refcount_cache_->drop(offset);
      tables_.erase(offset);
      if (compressed_next_ >> header_.cluster_bits == freed.index) compressed_next_ = 0;
      if (freed.pass_discard) {
        const uint64_t end = std::min(offset + header_.cluster_bytes(), file_->length());
        if (offset < end) co_await file_->discard(offset, end - offset);
      }
      free_from_ = std::min(free_from_, freed.index);
    }
  }
  co_return IoResult<>{};
}

// Data and new tables never go where metadata is: only a damaged image could ask for that.
IoResult<> Qcow2Node::check_overlap(uint64_t offset, uint64_t bytes) {
  const auto hits = [&](uint64_t start, uint64_t length) {
    return length != 0 && offset < start + length && start < offset + bytes;
  };
  const char* what = nullptr;
  if (hits(0, header_.cluster_bytes())) what = "qcow2_header";
  if (hits(header_.l1_offset, l1_.size() * 8)) what = "active L1 table";
  if (hits(header_.reftable_offset, uint64_t{header_.reftable_clusters} << header_.cluster_bits))
    what = "refcount table";
  if (reftable_moved_ && hits(new_reftable_offset_, new_reftable_clusters_ << header_.cluster_bits))
    what = "refcount table";
  if (hits(header_.snapshots_offset, snapshot_table_bytes_)) what = "snapshot table";
  if (hits(bitmap_directory_.offset, bitmap_directory_.bytes)) what = "bitmap directory";
  for (const Snapshot& snapshot : snapshots_) {
    if (hits(snapshot.l1_offset, uint64_t{snapshot.l1_entries} * 8)) what = "inactive L1 table";
  }
  const uint64_t cluster = header_.cluster_bytes();
  for (uint64_t at = align_down(offset, cluster); what == nullptr && at < offset + bytes; at += cluster) {
    if (tables_.contains(at)) what = "active L2 table or refcount block";
  }
  if (what == nullptr) return {};
  mark_corrupt(fmt::format("Preventing invalid write on metadata (overlaps with {})", what));
  return io_fail(EIO);
}

}  // namespace kite::block::qcow2

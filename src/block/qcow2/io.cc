// Guest requests: what is read from where, what a write has to allocate and copy.
#include <algorithm>
#include <cerrno>

#include "block/file_node.h"
#include "block/qcow2/access.h"
#include "block/qcow2/qcow2_node.h"
#include "support/bits.h"

namespace kite::block::qcow2 {
namespace {

// An allocating write is cut into pieces of this size: what it holds back of others and buffers is bounded.
constexpr uint64_t kMaxAllocation = uint64_t{4} << 20;

bool in_place(const Extent& extent) { return extent.kind == ClusterKind::kData && extent.copied; }

}  // namespace

Task<IoResult<>> Qcow2Node::do_read(uint64_t offset, IoSlice to, IoHow how) {
  // Keeps the clusters that are read from being taken for something else.
  const std::shared_ptr<void> epoch = epoch_;
  while (!to.empty()) {
    auto known = peek_extent(offset, to.bytes());
    if (!known) known = co_await find_extent(offset, to.bytes());
    if (!*known) co_return std::unexpected(known->error());
    const Extent extent = **known;
    const IoSlice here = to.slice(0, extent.bytes);
    switch (extent.kind) {
      case ClusterKind::kData:
        KITE_CO_TRY(debug_event("read_aio"));
        KITE_CO_TRY(co_await file_->read(extent.host, here, how));
        break;
      case ClusterKind::kZero:
      case ClusterKind::kZeroAllocated: here.fill(0); break;
      case ClusterKind::kUnallocated: KITE_CO_TRY(co_await read_backing(offset, here, how)); break;
      case ClusterKind::kCompressed:
        KITE_CO_TRY(co_await read_compressed(extent.entry, offset & (header_.cluster_bytes() - 1), here));
        break;
      case ClusterKind::kInvalid: co_return io_fail(EIO);
    }
    to = to.from(extent.bytes);
    offset += extent.bytes;
  }
  co_return IoResult<>{};
}

Task<IoResult<>> Qcow2Node::read_backing(uint64_t offset, IoSlice to, IoHow how) {
  if (!backing_) {
    to.fill(0);
    return ready(IoResult<>{});
  }
  // Behind the end of a shorter backing file are zeroes, and so behind the disk (VM state).
  const uint64_t length = std::min(backing_->length(), header_.size);
  const uint64_t inside = offset >= length ? 0 : std::min(to.bytes(), length - offset);
  to.from(inside).fill(0);
  if (inside != 0 && !debug_event("read_backing_aio")) return ready<IoResult<>>(io_fail(EIO));
  return inside == 0 ? ready(IoResult<>{}) : backing_->read(offset, to.slice(0, inside), how);
}

Task<IoResult<>> Qcow2Node::do_write(uint64_t offset, IoSlice from, IoHow how) {
  if (corrupt_) co_return io_fail(EIO);
  const SharedAccess access = co_await SharedAccess::enter(*this);
  if (how.has(IoHow::kCompressed)) {
    KITE_CO_TRY(co_await write_compressed(offset, from, how));
  } else {
    KITE_CO_TRY(co_await write_extents(offset, from, how.without(IoHow::kFua)));
  }
  if (how.has(IoHow::kFua)) co_return co_await write_back(true);
  co_return IoResult<>{};
}

Task<IoResult<>> Qcow2Node::write_extents(uint64_t offset, IoSlice from, IoHow how) {
  const std::shared_ptr<void> epoch = epoch_;
  while (!from.empty()) {
    auto known = peek_extent(offset, from.bytes());
    if (!known) known = co_await find_extent(offset, from.bytes());
    if (!*known) co_return std::unexpected(known->error());
    const Extent extent = **known;
    uint64_t done = 0;
    uint64_t run = extent.bytes;
    if (in_place(extent) && extent.bytes < from.bytes()) {
      KITE_CO_ASSIGN(run, co_await reusable(offset, std::min(from.bytes(), std::max(kMaxAllocation, extent.bytes))));
    }
    if (in_place(extent) && run == extent.bytes) {
      KITE_CO_TRY(check_overlap(extent.host, extent.bytes));
      KITE_CO_TRY(debug_event("write_aio"));
      KITE_CO_TRY(co_await file_->write(extent.host, from.slice(0, extent.bytes), how));
      done = extent.bytes;
    } else {
      KITE_CO_ASSIGN(done,
                     co_await write_allocating(offset, from.slice(0, std::min(from.bytes(), kMaxAllocation)), how));
    }
    from = from.from(done);
    offset += done;
  }
  co_return IoResult<>{};
}

// How much of a range has one place in the file, ours alone, whether it is data already or reads as zeroes.
Task<IoResult<uint64_t>> Qcow2Node::reusable(uint64_t offset, uint64_t bytes) {
  uint64_t done = 0;
  uint64_t host = 0;
  while (done < bytes) {
    KITE_CO_ASSIGN(const Extent extent, co_await find_extent(offset + done, bytes - done));
    const bool ours = in_place(extent) || (extent.kind == ClusterKind::kZeroAllocated && extent.copied);
    if (!ours || (done != 0 && (extent.host != host || header_.extended_l2()))) break;
    done += extent.bytes;
    host = extent.host + extent.bytes;
  }
  co_return done;
}

// Writes a prefix that needs new clusters (or old ones that read as zeroes); answers its length, which is 0 when
// another request has made the place meanwhile.
Task<IoResult<uint64_t>> Qcow2Node::write_allocating(uint64_t offset, IoSlice from, IoHow how) {
  const uint64_t cluster = header_.cluster_bytes();
  const uint64_t start = align_down(offset, cluster);
  const ChangeGuard change = co_await ChangeGuard::enter(*this, start, align_up(offset + from.bytes(), cluster));
  KITE_CO_TRY(co_await prepare_change());

  KITE_CO_ASSIGN(const Extent first, co_await find_extent(offset, from.bytes()));
  KITE_CO_ASSIGN(const uint64_t run, co_await reusable(offset, from.bytes()));
  if (in_place(first) && run == first.bytes) co_return 0;
  const bool compressed = first.kind == ClusterKind::kCompressed;
  const bool has_place = !compressed && (first.entry & kOffsetMask) != 0;
  const bool reuse = has_place && first.copied;
  uint64_t end = offset + from.bytes();
  // As far as there is one place for it, or none; else one cluster at a time.
  if (reuse && !header_.extended_l2()) {
    end = offset + run;
  } else if (compressed || has_place) {
    end = std::min(end, start + cluster);
  } else {
    uint64_t at = offset + first.bytes;
    while (at < end) {
      KITE_CO_ASSIGN(const Extent next, co_await find_extent(at, end - at));
      if (next.kind == ClusterKind::kCompressed || (next.entry & kOffsetMask) != 0) break;
      at += next.bytes;
    }
    end = std::min(end, at);
  }
  if (!reuse) KITE_CO_TRY(co_await count_new_table(start));
  const bool whole = !header_.extended_l2() || compressed || (has_place && !reuse);
  const uint64_t unit = whole ? cluster : unit_bytes();
  uint64_t cow_from = align_down(offset, unit);
  uint64_t cow_to = align_up(end, unit);
  // A subcluster that has its data already is no part of the copy, unless it is being written: then it stays one piece
  // of the same request, written in place.
  Allocation allocation{
      .host = first.entry & kOffsetMask, .clusters = (align_up(end, cluster) - start) / cluster, .reused = true};
  if (!reuse) {
    const CoMutex::Lock lock = co_await meta_.lock();
    KITE_CO_TRY(co_await apply_freed());
    // The first table of a range lies in front of its data, so that data stays in one piece.
    KITE_CO_TRY(co_await l2_for_write(start));
    KITE_CO_ASSIGN(allocation, co_await allocate((align_up(end, cluster) - start) / cluster));
  } else if (header_.extended_l2()) {
    end = std::min(end, offset + first.bytes);
    cow_to = align_up(end, unit);
  } else {
    // Around data that is there nothing is copied: others may be writing it.
    KITE_CO_ASSIGN(const Extent last, co_await find_extent(end - 1, 1));
    if (in_place(first)) cow_from = offset;
    if (in_place(last)) cow_to = end;
  }
  const IoSlice data = from.slice(0, end - offset);
  IoResult<> done = co_await fill_allocation(offset, data, cow_from, cow_to, allocation, how);
  const CoMutex::Lock lock = co_await meta_.lock();
  if (done) done = co_await link(cow_from, cow_to, allocation);
  if (!done) {
    for (uint64_t i = 0; i < allocation.clusters && !allocation.reused; ++i) {
      free_cluster((allocation.host >> header_.cluster_bits) + i, false);
    }
    co_return std::unexpected(done.error());
  }
  co_return data.bytes();
}

// Brings [cow_from, cow_to) to its new place: what the guest writes, and around it what was there before.
Task<IoResult<>> Qcow2Node::fill_allocation(uint64_t offset, IoSlice from, uint64_t cow_from, uint64_t cow_to,
                                            Allocation allocation, IoHow how) {
  const uint64_t place = allocation.host + (cow_from & (header_.cluster_bytes() - 1));
  const uint64_t head = offset - cow_from;
  const uint64_t end = offset + from.bytes();
  const uint64_t tail = cow_to - end;
  if (!debug_event("write_aio")) co_return io_fail(EIO);
  if (allocation.reused) KITE_CO_TRY(check_overlap(place, cow_to - cow_from));
  if (head == 0 && tail == 0) co_return co_await file_->write(place, from, how);
  KITE_CO_ASSIGN(const bool zero_head, co_await reads_zero(cow_from, head));
  KITE_CO_ASSIGN(const bool zero_tail, co_await reads_zero(end, tail));
  if (zero_head && zero_tail && allocation.fresh) co_return co_await file_->write(place + head, from, how);

  std::vector<uint8_t> before(head);
  std::vector<uint8_t> after(tail);
  if (!debug_event("cow_read")) co_return io_fail(EIO);
  if (!zero_head)
    KITE_CO_TRY(co_await do_read(cow_from, IoSlice(before.data(), before.size()), how.with(IoHow::kSilent)));
  if (!zero_tail) KITE_CO_TRY(co_await do_read(end, IoSlice(after.data(), after.size()), how.with(IoHow::kSilent)));
  if (!debug_event("cow_write")) co_return io_fail(EIO);
  std::vector<iovec> parts;
  if (head != 0) parts.push_back({before.data(), before.size()});
  from.for_parts([&](std::span<uint8_t> part) {
    parts.push_back({part.data(), part.size()});
    return true;
  });
  if (tail != 0) parts.push_back({after.data(), after.size()});
  co_return co_await file_->write(place, IoSlice(parts), how);
}

// True when the range is known, without reading data, to read as zeroes.
Task<IoResult<bool>> Qcow2Node::reads_zero(uint64_t offset, uint64_t bytes) {
  while (bytes != 0) {
    KITE_CO_ASSIGN(const Extent extent, co_await find_extent(offset, bytes));
    const bool unallocated = extent.kind == ClusterKind::kUnallocated;
    if (!unallocated && extent.kind != ClusterKind::kZero && extent.kind != ClusterKind::kZeroAllocated)
      co_return false;
    const uint64_t backed = backing_ ? std::min(backing_->length(), header_.size) : 0;
    if (unallocated && offset < backed) {
      const uint64_t inside = std::min(extent.bytes, backed - offset);
      KITE_CO_ASSIGN(const BlockStatus status, co_await backing_->block_status(offset, inside));
      if (!status.zero || status.bytes < inside) co_return false;
    }
    offset += extent.bytes;
    bytes -= extent.bytes;
  }
  co_return true;
}

// With lazy refcounts only what a table names may be counted late: the table itself is counted in the file before data
// asks for clusters.
Task<IoResult<>> Qcow2Node::count_new_table(uint64_t offset) {
  if ((header_.incompatible & kDirty) == 0) co_return IoResult<>{};
  const uint64_t slot = l1_index(offset);
  if (slot >= l1_.size() || (l1_[slot] & kOffsetMask) != 0) co_return IoResult<>{};
  {
    const CoMutex::Lock lock = co_await meta_.lock();
    KITE_CO_TRY(co_await apply_freed());
    KITE_CO_TRY(co_await l2_for_write(offset));
  }
  co_return co_await write_back(false, true);
}

// Before metadata changes: the dirty bit of lazy refcounts, and room in the caches.
Task<IoResult<>> Qcow2Node::prepare_change() {
  if (lazy_refcounts_ && (header_.incompatible & kDirty) == 0) {
    const CoMutex::Lock lock = co_await meta_.lock();
    if ((header_.incompatible & kDirty) == 0) KITE_CO_TRY(co_await set_incompatible(kDirty, 0));
  }
  if (l2_cache_->crowded() || refcount_cache_->crowded()) co_return co_await write_back(false);
  co_return IoResult<>{};
}

Task<IoResult<>> Qcow2Node::do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) {
  if (corrupt_) co_return io_fail(EIO);
  // [qcow2] version 2 has no zero clusters; without a backing file an unallocated one does as well.
  if (header_.version < 3 && backing_) co_return io_fail(ENOTSUP);
  const SharedAccess access = co_await SharedAccess::enter(*this);
  const uint64_t unit = unit_bytes();
  // The last cluster of the disk may reach beyond its end.
  const uint64_t end = offset + bytes == header_.size ? align_up(offset + bytes, unit) : offset + bytes;
  const uint64_t from = align_up(offset, unit);
  const uint64_t to = align_down(end, unit);
  if (from > to) {
    KITE_CO_TRY(co_await zero_part(offset, bytes, how));
  } else {
    KITE_CO_TRY(co_await zero_part(offset, std::min(from, offset + bytes) - offset, how));
    if (from < to) KITE_CO_TRY(co_await zero_clusters(from, to, how.has(IoHow::kMayUnmap)));
    if (to < offset + bytes) KITE_CO_TRY(co_await zero_part(to, offset + bytes - to, how));
  }
  if (how.has(IoHow::kFua)) co_return co_await write_back(true);
  co_return IoResult<>{};
}

// Less than a cluster (or subcluster), which it does not reach beyond.
Task<IoResult<>> Qcow2Node::zero_part(uint64_t offset, uint64_t bytes, IoHow how) {
  if (bytes == 0) co_return IoResult<>{};
  const uint64_t unit = unit_bytes();
  const uint64_t from = align_down(offset, unit);
  const uint64_t to = align_up(offset + bytes, unit);
  KITE_CO_ASSIGN(const Extent extent, co_await find_extent(offset, bytes));
  if (extent.kind == ClusterKind::kZero || extent.kind == ClusterKind::kZeroAllocated) co_return IoResult<>{};
  // When the rest of its cluster is zero too, all of it becomes a zero cluster.
  KITE_CO_ASSIGN(const bool zero_before, co_await reads_zero(from, offset - from));
  KITE_CO_ASSIGN(const bool zero_after, co_await reads_zero(offset + bytes, to - offset - bytes));
  // [qcow2] version 2 has no zero clusters; without a backing file an unallocated one does as well.
  if (zero_before && zero_after && (header_.version >= 3 || !backing_))
    co_return co_await zero_clusters(from, to, how.has(IoHow::kMayUnmap));
  if (how.has(IoHow::kNoFallback)) co_return io_fail(ENOTSUP);
  const std::vector<uint8_t> zeroes(bytes);
  co_return co_await write_extents(offset, IoSlice::of_const(zeroes.data(), zeroes.size()),
                                   how.without(IoHow::kFua | IoHow::kMayUnmap));
}

Task<IoResult<>> Qcow2Node::zero_clusters(uint64_t from, uint64_t to, bool unmap) {
  const uint64_t cluster = header_.cluster_bytes();
  const ChangeGuard change = co_await ChangeGuard::enter(*this, align_down(from, cluster), align_up(to, cluster));
  for (uint64_t at = align_down(from, cluster); at < to;) {
    KITE_CO_TRY(co_await prepare_change());
    const CoMutex::Lock lock = co_await meta_.lock();
    KITE_CO_ASSIGN(const TablePtr table, co_await l2_for_write(at));
    bool by_hand = false;
    do {
      by_hand = !zero_entry(*table, at, std::max(from, at), std::min(to, at + cluster), unmap);
      if (by_hand) break;
      at += cluster;
    } while (at < to && l2_index(at) != 0);
    if (!by_hand) continue;
    co_return io_fail(ENOTSUP);
  }
  co_return IoResult<>{};
}

// One cluster's entry for zeroes in [from, to). False when only writing zeroes helps: part of a compressed or shared
// cluster.
bool Qcow2Node::zero_entry(Table& table, uint64_t cluster_at, uint64_t from, uint64_t to, bool unmap) {
  const uint64_t cluster = header_.cluster_bytes();
  const uint64_t index = l2_index(cluster_at);
  const uint64_t old = l2_entry(table, index);
  const bool compressed = (old & kCompressed) != 0;
  const uint64_t host = compressed ? 0 : old & kOffsetMask;
  const bool keeps = host != 0 && (old & kCopied) != 0 && !unmap;
  if (!header_.extended_l2()) {
    const ClusterKind kind = entry_kind(old);
    if (header_.version < 3) {
      if (old != 0) free_entry(old);
      set_l2_entry(table, index, 0, 0);
      return true;
    }
    if (kind == ClusterKind::kZero || (kind == ClusterKind::kZeroAllocated && keeps)) return true;
    if (!keeps) free_entry(old);
    set_l2_entry(table, index, keeps ? host | kCopied | kZero : kZero, 0);
    return true;
  }
  const uint64_t unit = unit_bytes();
  const auto first = static_cast<unsigned>((from - cluster_at) / unit);
  const auto last = static_cast<unsigned>((to - cluster_at) / unit);
  const uint64_t bits = low_mask(last) & ~low_mask(first);
  const bool whole = to - from == cluster;
  if (!whole && compressed) return false;
  uint64_t bitmap = compressed ? 0 : l2_bitmap(table, index);
  bitmap = (bitmap & ~bits) | bits << kSubclusters;
  const bool gone = compressed || (host != 0 && (bitmap & low_mask(kSubclusters)) == 0 && !keeps);
  if (gone) free_entry(old);
  set_l2_entry(table, index, gone ? 0 : old, bitmap);
  return true;
}

Task<IoResult<>> Qcow2Node::do_discard(uint64_t offset, uint64_t bytes, IoHow) {
  if (corrupt_) co_return io_fail(EIO);
  const SharedAccess access = co_await SharedAccess::enter(*this);
  const uint64_t cluster = header_.cluster_bytes();
  const uint64_t end = offset + bytes == header_.size ? align_up(offset + bytes, cluster) : offset + bytes;
  const uint64_t from = align_up(offset, cluster);
  const uint64_t to = align_down(end, cluster);
  if (from >= to) co_return IoResult<>{};
  co_return co_await discard_clusters(from, to, false);
}

// `full`: the backing file shows through afterwards; else the clusters read as zeroes.
Task<IoResult<>> Qcow2Node::discard_clusters(uint64_t from, uint64_t to, bool full) {
  const uint64_t cluster = header_.cluster_bytes();
  const ChangeGuard change = co_await ChangeGuard::enter(*this, from, to);
  const uint64_t zero_bitmap = header_.extended_l2() ? low_mask(kSubclusters) << kSubclusters : 0;
  const uint64_t emptied = full || header_.version < 3 || header_.extended_l2() ? 0 : kZero;
  for (uint64_t at = from; at < to;) {
    // Where there is no table there is nothing to give back.
    const uint64_t slot = l1_index(at);
    if (slot >= l1_.size()) break;
    if ((l1_[slot] & kOffsetMask) == 0 && (full || !backing_)) {
      at = (slot + 1) * header_.bytes_an_l2();
      continue;
    }
    KITE_CO_TRY(co_await prepare_change());
    const CoMutex::Lock lock = co_await meta_.lock();
    KITE_CO_ASSIGN(const TablePtr table, co_await l2_for_write(at));
    do {
      const uint64_t index = l2_index(at);
      const uint64_t old = l2_entry(*table, index);
      const uint64_t old_bitmap = l2_bitmap(*table, index);
      const bool nothing = old == 0 && old_bitmap == 0;
      const bool keep = (nothing && (full || !backing_)) || (header_.version < 3 && backing_ && !full);
      if (!keep && !(old == emptied && old_bitmap == (full ? 0 : zero_bitmap))) {
        free_entry(old);
        set_l2_entry(*table, index, emptied, full ? 0 : zero_bitmap);
      }
      at += cluster;
    } while (at < to && l2_index(at) != 0);
  }
  co_return IoResult<>{};
}

Task<IoResult<>> Qcow2Node::do_flush(IoHow) {
  if (read_only()) co_return IoResult<>{};
  co_return co_await write_back(true);
}

Task<IoResult<BlockStatus>> Qcow2Node::do_block_status(uint64_t offset, uint64_t bytes, bool) {
  KITE_CO_ASSIGN(const Extent extent, co_await find_extent(offset, bytes));
  BlockStatus status{.bytes = extent.bytes, .data = false};
  switch (extent.kind) {
    case ClusterKind::kUnallocated:
      status.allocated = false;
      status.zero = !backing_;
      break;
    case ClusterKind::kZeroAllocated:
      status.has_offset = true;
      status.offset = extent.host;
      status.file = file_.node().get();
      [[fallthrough]];
    case ClusterKind::kZero: status.zero = true; break;
    case ClusterKind::kCompressed:
      status.data = true;
      status.compressed = true;
      break;
    default:
      status.data = true;
      status.has_offset = true;
      status.offset = extent.host;
      status.file = file_.node().get();
      break;
  }
  co_return status;
}

}  // namespace kite::block::qcow2

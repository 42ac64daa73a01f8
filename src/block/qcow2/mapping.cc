// From guest offsets to host clusters: [qcow2] "Cluster mapping".
#include <algorithm>
#include <cerrno>

#include "block/qcow2/qcow2_node.h"
#include "support/bits.h"

namespace kite::block::qcow2 {

uint64_t Qcow2Node::l2_entry(const Table& table, uint64_t index) const {
  return table.be64(header_.extended_l2() ? index * 2 : index);
}

uint64_t Qcow2Node::l2_bitmap(const Table& table, uint64_t index) const {
  return header_.extended_l2() ? table.be64(index * 2 + 1) : 0;
}

void Qcow2Node::set_l2_entry(Table& table, uint64_t index, uint64_t entry, uint64_t bitmap) {
  if (header_.extended_l2()) {
    table.set_be64(index * 2, entry);
    table.set_be64(index * 2 + 1, bitmap);
  } else {
    table.set_be64(index, entry);
  }
}

ClusterKind Qcow2Node::entry_kind(uint64_t entry) const {
  if ((entry & kCompressed) != 0) return ClusterKind::kCompressed;
  const uint64_t host = entry & kOffsetMask;
  if (!is_aligned(host, header_.cluster_bytes())) return ClusterKind::kInvalid;
  // [qcow2] "Standard Cluster Descriptor": bit 0 means zeroes from version 3 on, and is reserved in version 2.
  if ((entry & kZero) != 0 && header_.version >= 3) return host != 0 ? ClusterKind::kZeroAllocated : ClusterKind::kZero;
  return host != 0 ? ClusterKind::kData : ClusterKind::kUnallocated;
}

ClusterKind Qcow2Node::subcluster_kind(uint64_t entry, uint64_t bitmap, unsigned index) const {
  if ((entry & kCompressed) != 0) return ClusterKind::kCompressed;
  const uint64_t host = entry & kOffsetMask;
  const bool allocated = (bitmap >> index & 1) != 0;
  const bool zero = (bitmap >> (index + kSubclusters) & 1) != 0;
  if (!is_aligned(host, header_.cluster_bytes()) || (allocated && (zero || host == 0))) return ClusterKind::kInvalid;
  if (zero) return host != 0 ? ClusterKind::kZeroAllocated : ClusterKind::kZero;
  return allocated ? ClusterKind::kData : ClusterKind::kUnallocated;
}

void Qcow2Node::parse_compressed(uint64_t entry, uint64_t& host, uint64_t& bytes) const {
  // [qcow2] "Compressed Clusters Descriptor": x = 62 - (cluster_bits - 8)
  const unsigned x = 62 - (header_.cluster_bits - 8);
  host = entry & low_mask(x);
  const uint64_t sectors = ((entry & ~(kCopied | kCompressed)) >> x) + 1;
  bytes = sectors * 512 - host % 512;
}

Extent Qcow2Node::extent_in(const Table& table, uint64_t offset, uint64_t bytes) const {
  const uint64_t cluster = header_.cluster_bytes();
  const uint64_t unit = unit_bytes();
  uint64_t index = l2_index(offset);
  const uint64_t entries = header_.l2_entries();
  const bool extended = header_.extended_l2();
  const auto kind_at = [&](uint64_t entry, uint64_t at) {
    if (!extended) return entry_kind(entry);
    return subcluster_kind(entry, l2_bitmap(table, l2_index(at)), static_cast<unsigned>(at % cluster / unit));
  };
  Extent extent;
  extent.entry = l2_entry(table, index);
  extent.kind = kind_at(extent.entry, offset);
  extent.copied = (extent.entry & kCopied) != 0;
  extent.host = extent.entry & kOffsetMask;
  if (extent.kind == ClusterKind::kCompressed) {
    extent.copied = false;
    extent.bytes = std::min(bytes, cluster - offset % cluster);
    return extent;
  }
  const bool placed = extent.kind == ClusterKind::kData || extent.kind == ClusterKind::kZeroAllocated;
  if (placed) extent.host += offset % cluster;
  uint64_t done = unit - offset % unit;
  while (done < bytes) {
    const uint64_t at = offset + done;
    if (at % cluster == 0 && ++index == entries) break;
    const uint64_t entry = l2_entry(table, index);
    if (kind_at(entry, at) != extent.kind || ((entry & kCopied) != 0) != extent.copied) break;
    if (placed && (entry & kOffsetMask) + at % cluster != extent.host + done) break;
    // Unallocated subclusters of clusters with and without a place differ for writers.
    if (!placed && extended && ((entry & kOffsetMask) != 0) != ((extent.entry & kOffsetMask) != 0)) break;
    done += unit;
  }
  extent.bytes = std::min(bytes, done);
  return extent;
}

std::optional<IoResult<Extent>> Qcow2Node::peek_extent(uint64_t offset, uint64_t bytes) {
  const uint64_t slot = l1_index(offset);
  const uint64_t here = std::min(bytes, header_.bytes_an_l2() - offset % header_.bytes_an_l2());
  const uint64_t table_at = slot < l1_.size() ? l1_[slot] & kOffsetMask : 0;
  if (table_at == 0) return Extent{.kind = ClusterKind::kUnallocated, .bytes = here};
  const TablePtr table = l2_cache_->peek(table_at);
  if (table == nullptr) return std::nullopt;
  const Extent extent = extent_in(*table, offset, here);
  if (extent.kind == ClusterKind::kInvalid) {
    mark_corrupt(fmt::format("Cluster allocation offset {:#x} invalid (L2 offset: {:#x}, L2 index: {:#x})",
                             extent.entry & kOffsetMask, table_at, l2_index(offset)));
    return std::unexpected(IoError{EIO});
  }
  return extent;
}

Task<IoResult<Extent>> Qcow2Node::find_extent(uint64_t offset, uint64_t bytes) {
  while (true) {
    if (const auto known = peek_extent(offset, bytes)) co_return *known;
    const uint64_t table_at = l1_[l1_index(offset)] & kOffsetMask;
    if (!is_aligned(table_at, header_.cluster_bytes())) {
      mark_corrupt(fmt::format("L2 table offset {:#x} unaligned (L1 index: {:#x})", table_at, l1_index(offset)));
      co_return io_fail(EIO);
    }
    if (!debug_event("l2_load")) co_return io_fail(EIO);
    KITE_CO_TRY(co_await l2_cache_->get(*file_, table_at));
  }
}

void Qcow2Node::mark_l1(size_t index) {
  const bool none = l1_dirty_from_ == l1_dirty_to_;
  l1_dirty_from_ = none ? index : std::min(l1_dirty_from_, index);
  l1_dirty_to_ = std::max(l1_dirty_to_, index + 1);
}

Task<IoResult<TablePtr>> Qcow2Node::l2_for_write(uint64_t offset) {
  const uint64_t slot = l1_index(offset);
  if (slot >= l1_.size()) co_return io_fail(EIO);
  const uint64_t old = l1_[slot];
  const uint64_t old_at = old & kOffsetMask;
  if (!is_aligned(old_at, header_.cluster_bytes())) {
    mark_corrupt(fmt::format("L2 table offset {:#x} unaligned (L1 index: {:#x})", old_at, slot));
    co_return io_fail(EIO);
  }
  if (old_at != 0 && (old & kCopied) != 0) {
    if (TablePtr table = l2_cache_->peek(old_at)) co_return table;
    if (!debug_event("l2_load")) co_return io_fail(EIO);
    co_return co_await l2_cache_->get(*file_, old_at);
  }
  // There is none, or a snapshot has it too.
  KITE_CO_ASSIGN(const Allocation place, co_await allocate(1));
  std::vector<uint8_t> content;
  if (old_at != 0) {
    if (!debug_event("l2_alloc_cow_read")) co_return io_fail(EIO);
    const auto shared = co_await l2_cache_->get(*file_, old_at);
    if (!shared) {
      free_cluster(place.host >> header_.cluster_bits, false);
      co_return std::unexpected(shared.error());
    }
    content = (*shared)->bytes;
  }
  if (!debug_event("l2_alloc_write")) co_return io_fail(EIO);
  const TablePtr table = l2_cache_->create(place.host, nullptr);
  if (!content.empty()) table->bytes = std::move(content);
  tables_.insert(place.host);
  l1_[slot] = place.host | kCopied;
  mark_l1(slot);
  if (old_at != 0) free_cluster(old_at >> header_.cluster_bits, pass_discard_other_);
  co_return table;
}

Task<IoResult<>> Qcow2Node::link(uint64_t data_from, uint64_t data_to, Allocation allocation) {
  const uint64_t cluster = header_.cluster_bytes();
  uint64_t host = allocation.host;
  for (uint64_t at = align_down(data_from, cluster); at < data_to;) {
    if (!debug_event("l2_update")) co_return io_fail(EIO);
    KITE_CO_ASSIGN(const TablePtr table, co_await l2_for_write(at));
    do {
      const uint64_t index = l2_index(at);
      const uint64_t old = l2_entry(*table, index);
      const bool was_compressed = (old & kCompressed) != 0;
      const uint64_t old_host = was_compressed ? 0 : old & kOffsetMask;
      uint64_t bitmap = 0;
      if (header_.extended_l2()) {
        const uint64_t unit = unit_bytes();
        const uint64_t first = (std::max(data_from, at) - at) / unit;
        const uint64_t last = (std::min(data_to, at + cluster) - at + unit - 1) / unit;
        const uint64_t bits = low_mask(static_cast<unsigned>(last)) & ~low_mask(static_cast<unsigned>(first));
        bitmap = was_compressed ? 0 : l2_bitmap(*table, index);
        bitmap = (bitmap & ~(bits << kSubclusters)) | bits;
      }
      if (was_compressed || (old_host != 0 && old_host != host)) free_entry(old);
      set_l2_entry(*table, index, host | kCopied, bitmap);
      host += cluster;
      at += cluster;
    } while (at < data_to && l2_index(at) != 0);
  }
  co_return IoResult<>{};
}

}  // namespace kite::block::qcow2

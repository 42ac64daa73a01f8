// The order in which metadata reaches the file. Each arrow is a flush of the file, so that what stands left of it is
// durable before what stands right of it is written:
//
//   data, refcount blocks -> refcount table -> L2 tables -> L1 entries -> (what they no longer use becomes free)
//
// A crash between any two steps leaves clusters that are counted and not used: leaks, which a repair gives back. It
// never leaves a used cluster that is not counted, or a table entry that points at something unwritten.
#include <algorithm>
#include <cerrno>

#include "block/qcow2/qcow2_node.h"
#include "support/bits.h"

namespace kite::block::qcow2 {

// What is dirty at one moment, copied, so that requests go on changing the tables meanwhile.
struct Qcow2Node::Shipment {
  struct Piece {
    TablePtr table;
    size_t from = 0;
    std::vector<uint8_t> bytes;
  };
  std::vector<Piece> refcounts;
  std::vector<Piece> l2;
  std::vector<uint64_t> reftable;  // whole, when any of it is dirty
  size_t reftable_from = 0, reftable_to = 0;
  bool reftable_moved = false;
  uint64_t reftable_offset = 0, reftable_clusters = 0;
  std::vector<uint64_t> l1;  // entries from l1_from on
  size_t l1_from = 0;
  std::vector<FreedCluster> freed;

  [[nodiscard]] bool has_l2() const { return !l2.empty() || !l1.empty(); }
};

Qcow2Node::Shipment Qcow2Node::collect(bool refcounts_too) {
  constexpr size_t kSector = 512;
  Shipment shipment;
  const auto take = [](TableCache& cache, std::vector<Shipment::Piece>& pieces) {
    for (const TablePtr& table : cache.dirty_tables()) {
      const size_t from = align_down(table->dirty_from, kSector);
      const size_t to = align_up(table->dirty_to, kSector);
      const auto bytes = table->bytes.begin();
      pieces.push_back(
          {table, from, {bytes + static_cast<std::ptrdiff_t>(from), bytes + static_cast<std::ptrdiff_t>(to)}});
      table->dirty_from = table->dirty_to = 0;
      table->writing = true;
    }
  };
  take(*l2_cache_, shipment.l2);
  if (l1_dirty_from_ != l1_dirty_to_) {
    shipment.l1_from = l1_dirty_from_;
    shipment.l1.assign(l1_.begin() + static_cast<std::ptrdiff_t>(l1_dirty_from_),
                       l1_.begin() + static_cast<std::ptrdiff_t>(l1_dirty_to_));
    l1_dirty_from_ = l1_dirty_to_ = 0;
  }
  shipment.freed = std::move(freed_);
  freed_.clear();
  if (!refcounts_too) return shipment;
  take(*refcount_cache_, shipment.refcounts);
  if (reftable_dirty_from_ != reftable_dirty_to_) {
    shipment.reftable = reftable_;
    shipment.reftable_from = reftable_dirty_from_;
    shipment.reftable_to = reftable_dirty_to_;
    shipment.reftable_moved = reftable_moved_;
    shipment.reftable_offset = new_reftable_offset_;
    shipment.reftable_clusters = new_reftable_clusters_;
    reftable_dirty_from_ = reftable_dirty_to_ = 0;
    reftable_moved_ = false;
  }
  return shipment;
}

// A failed shipment is dirty again; what was written of it is written once more.
void Qcow2Node::take_back(Shipment& shipment) {
  for (auto* pieces : {&shipment.refcounts, &shipment.l2}) {
    for (Shipment::Piece& piece : *pieces) piece.table->mark(piece.from, piece.from + piece.bytes.size());
  }
  for (size_t i = 0; i < shipment.l1.size(); ++i) mark_l1(shipment.l1_from + i);
  if (!shipment.reftable.empty()) {
    const bool none = reftable_dirty_from_ == reftable_dirty_to_;
    reftable_dirty_from_ = none ? shipment.reftable_from : std::min(reftable_dirty_from_, shipment.reftable_from);
    reftable_dirty_to_ = std::max(reftable_dirty_to_, shipment.reftable_to);
    if (shipment.reftable_moved && !reftable_moved_) {
      reftable_moved_ = true;
      new_reftable_offset_ = shipment.reftable_offset;
      new_reftable_clusters_ = shipment.reftable_clusters;
    }
  }
  freed_.insert(freed_.begin(), shipment.freed.begin(), shipment.freed.end());
}

Task<IoResult<>> Qcow2Node::write_back(bool durable, bool lazy_too) {
  const uint64_t ticket = ++flushes_asked_;
  const CoMutex::Lock turn = co_await write_back_.lock();
  // A flush that began after we came has done our work.
  if (durable && !lazy_too && flushes_done_ >= ticket) co_return IoResult<>{};
  const uint64_t covers = flushes_asked_;
  Shipment shipment;
  {
    const CoMutex::Lock lock = co_await meta_.lock();
    // [qcow2] "lazy refcounts": with the dirty bit set the refcounts in the file may be behind until the image is
    // closed.
    const bool refcounts = lazy_too || (header_.incompatible & kDirty) == 0 || refcount_cache_->crowded();
    shipment = collect(refcounts);
  }
  const IoResult<> done = co_await ship(shipment, durable);
  for (const auto* pieces : {&shipment.refcounts, &shipment.l2}) {
    for (const Shipment::Piece& piece : *pieces) piece.table->writing = false;
  }
  const CoMutex::Lock lock = co_await meta_.lock();
  if (!done) {
    take_back(shipment);
    co_return done;
  }
  if (!durable) {
    freed_.insert(freed_.begin(), shipment.freed.begin(), shipment.freed.end());
    co_return done;
  }
  if (!shipment.freed.empty()) {
    freed_batches_.push_back({std::move(shipment.freed), epoch_});
    epoch_ = std::make_shared<int>(0);
  }
  flushes_done_ = covers;
  co_return co_await apply_freed();
}

Task<IoResult<>> Qcow2Node::ship(Shipment& shipment, bool durable) {
  KITE_CO_TRY(co_await restore_pointers());
  KITE_CO_TRY(co_await ship_tables(shipment, true));
  if (!shipment.reftable.empty()) {
    KITE_CO_TRY(co_await file_->flush());
    KITE_CO_TRY(co_await ship_reftable(shipment));
  }
  if (shipment.has_l2()) {
    KITE_CO_TRY(co_await file_->flush());
    KITE_CO_TRY(co_await ship_tables(shipment, false));
  }
  if (!shipment.l1.empty()) {
    if (!shipment.l2.empty()) KITE_CO_TRY(co_await file_->flush());
    if (!debug_event("l1_update")) co_return io_fail(EIO);
    std::vector<uint8_t> raw(shipment.l1.size() * 8);
    for (size_t i = 0; i < shipment.l1.size(); ++i) store_be64(raw.data() + i * 8, shipment.l1[i]);
    KITE_CO_TRY(co_await file_->write(header_.l1_offset + shipment.l1_from * 8, IoSlice(raw.data(), raw.size())));
  }
  if (!durable) co_return IoResult<>{};
  if (!debug_event("flush_to_disk")) co_return io_fail(EIO);
  co_return co_await file_->flush();
}

Task<IoResult<>> Qcow2Node::ship_tables(const Shipment& shipment, bool refcounts) {
  for (const Shipment::Piece& piece : refcounts ? shipment.refcounts : shipment.l2) {
    const char* const event = refcounts ? "refblock_update_part" : "l2_update";
    if (!debug_event(piece.table->first_write != nullptr ? piece.table->first_write : event)) co_return io_fail(EIO);
    KITE_CO_TRY(co_await file_->write(piece.table->offset + piece.from,
                                      IoSlice::of_const(piece.bytes.data(), piece.bytes.size())));
    piece.table->first_write = nullptr;
  }
  co_return IoResult<>{};
}

// In its place, or, when it became longer, to a new place that the header names once it is durable.
Task<IoResult<>> Qcow2Node::ship_reftable(const Shipment& shipment) {
  const size_t from = shipment.reftable_moved ? 0 : shipment.reftable_from;
  const size_t to = shipment.reftable_moved ? shipment.reftable.size() : shipment.reftable_to;
  const uint64_t place = shipment.reftable_moved ? shipment.reftable_offset : header_.reftable_offset;
  std::vector<uint8_t> raw((to - from) * 8);
  for (size_t i = from; i < to; ++i) store_be64(raw.data() + (i - from) * 8, shipment.reftable[i]);
  const uint64_t old_entries = uint64_t{header_.reftable_clusters} << header_.cluster_bits >> 3;
  if (shipment.reftable_from < old_entries && !debug_event("refblock_alloc_hookup")) co_return io_fail(EIO);
  if (shipment.reftable_moved && !debug_event("refblock_alloc_write_table")) co_return io_fail(EIO);
  KITE_CO_TRY(co_await file_->write(place + from * 8, IoSlice(raw.data(), raw.size())));
  if (!shipment.reftable_moved) co_return IoResult<>{};
  KITE_CO_TRY(co_await file_->flush());
  if (!debug_event("refblock_alloc_switch_table")) co_return io_fail(EIO);
  // [qcow2] bytes 48..59 of the header: refcount_table_offset and refcount_table_clusters, in one sector.
  uint8_t fields[12];
  store_be64(fields, place);
  store_be32(fields + 8, static_cast<uint32_t>(shipment.reftable_clusters));
  KITE_CO_TRY(co_await file_->write(48, IoSlice(fields, sizeof fields)));
  const uint64_t old = header_.reftable_offset >> header_.cluster_bits;
  for (uint64_t i = 0; i < header_.reftable_clusters; ++i) free_cluster(old + i, false);
  header_.reftable_offset = place;
  header_.reftable_clusters = static_cast<uint32_t>(shipment.reftable_clusters);
  co_return IoResult<>{};
}

}  // namespace kite::block::qcow2

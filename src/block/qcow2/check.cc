#include "block/qcow2/check.h"

#include <algorithm>
#include <cerrno>
#include <unordered_set>

#include "block/qcow2/access.h"
#include "support/bits.h"

namespace kite::block::qcow2 {

uint64_t UseCounts::get(uint64_t index) const {
  const auto found = chunks_.find(index / kChunk);
  return found == chunks_.end() ? 0 : (*found->second)[index % kChunk];
}

void UseCounts::add(uint64_t index, uint32_t times) {
  if (last_ == nullptr || last_number_ != index / kChunk) {
    if (chunks_.size() >= kMostChunks && !chunks_.contains(index / kChunk)) {
      full_ = true;
      return;
    }
    std::unique_ptr<Chunk>& chunk = chunks_[index / kChunk];
    if (chunk == nullptr) chunk = std::make_unique<Chunk>();
    last_ = chunk.get();
    last_number_ = index / kChunk;
  }
  uint32_t& count = (*last_)[index % kChunk];
  count += std::min(times, UINT32_MAX - count);
  end_ = std::max(end_, index + 1);
}

std::vector<uint64_t> UseCounts::chunks() const {
  std::vector<uint64_t> numbers;
  for (const auto& [number, chunk] : chunks_) numbers.push_back(number);
  std::ranges::sort(numbers);
  return numbers;
}

void Checker::corruption(std::string line, bool fixed) {
  message_((fixed ? "Repairing: " : "ERROR: ") + std::move(line));
  ++(fixed ? result_.corruptions_fixed : result_.corruptions);
  beyond_repair_ += fixed ? 0 : 1;
}

// Whatever lies more than a cluster behind the end of the file is no use of anything: this also bounds our memory.
void Checker::use(uint64_t offset, uint64_t bytes, uint32_t times) {
  if (bytes == 0) return;
  const uint64_t cluster = node_.header_.cluster_bytes();
  const uint64_t length = node_.file_->length();
  if (offset + bytes < offset || offset + bytes >= length + cluster) {
    corruption(fmt::format("counting reference for region exceeding the end of the file by one cluster or more: "
                           "offset {:#x} size {:#x}",
                           offset, bytes),
               false);
    return;
  }
  for (uint64_t at = align_down(offset, cluster); at < offset + bytes; at += cluster)
    uses_.add(at >> node_.header_.cluster_bits, times);
}

void Checker::count_entry(uint64_t entry, uint64_t bitmap, bool& drop) {
  const Header& header = node_.header_;
  const bool active = l2_.active;
  if ((entry & kCompressed) != 0) {
    uint64_t host = 0;
    uint64_t bytes = 0;
    node_.parse_compressed(entry, host, bytes);
    if ((entry & kCopied) != 0)
      corruption(fmt::format("coffset={:#x}: copied flag must never be set for compressed clusters", host), false);
    use(host, bytes, l2_.times);
    if (active) {
      ++result_.compressed_clusters;
      ++result_.allocated_clusters;
      ++result_.fragmented_clusters;
    }
    return;
  }
  const uint64_t host = entry & kOffsetMask;
  const bool conflict = header.extended_l2() && (bitmap & bitmap >> kSubclusters & low_mask(kSubclusters)) != 0;
  if (conflict) corruption(fmt::format("subclusters are allocated and zero at once (L2 entry {:#x})", entry), false);
  if (host == 0) return;
  if (!is_aligned(host, header.cluster_bytes())) {
    // A cluster that should read as zeroes needs no place at all.
    drop = (entry & kZero) != 0 && !header.extended_l2() && repair_ == Repair::kAll;
    corruption(fmt::format("offset={:#x}: Cluster is not properly aligned; L2 entry corrupted.", host), drop);
    return;
  }
  use(host, header.cluster_bytes(), l2_.times);
  if (!active) return;
  ++result_.allocated_clusters;
  if (next_contiguous_ != 0 && host != next_contiguous_) ++result_.fragmented_clusters;
  next_contiguous_ = host + header.cluster_bytes();
}

Task<IoResult<>> Checker::count_l2(uint64_t table_at) {
  KITE_CO_ASSIGN(const TablePtr table, co_await node_.l2_cache_->get(*node_.file_, table_at));
  for (uint64_t index = 0; index < node_.header_.l2_entries(); ++index) {
    bool drop = false;
    const uint64_t bitmap = node_.l2_bitmap(*table, index);
    count_entry(node_.l2_entry(*table, index), bitmap, drop);
    if (drop) node_.set_l2_entry(*table, index, kZero, bitmap);
  }
  co_return IoResult<>{};
}

Task<IoResult<>> Checker::count_l1(uint64_t offset, uint64_t entries, bool active) {
  const uint64_t cluster = node_.header_.cluster_bytes();
  if (entries == 0) co_return IoResult<>{};
  if (!active && uses_.get(offset >> node_.header_.cluster_bits) != 0) {
    // Two that read the same bytes as their L1 table: nothing tells whose they are, and nothing may be given back.
    corruption(fmt::format("the L1 table of a snapshot lies upon something else (offset {:#x})", offset), false);
    co_return io_fail(EIO);
  }
  use(offset, entries * 8);
  std::vector<uint64_t> l1;
  if (active) {
    l1 = node_.l1_;
  } else {
    KITE_CO_ASSIGN(l1, co_await node_.read_l1(offset, entries));
  }
  for (const uint64_t entry : l1) {
    const uint64_t table_at = entry & kOffsetMask;
    if (table_at == 0) continue;
    if (!is_aligned(table_at, cluster)) {
      corruption(fmt::format("L2 table offset {:#x} is not cluster aligned; L1 entry corrupted", table_at), false);
      continue;
    }
    use(table_at, cluster);
    if (table_at >= node_.file_->length()) continue;
    const auto [place, fresh] = l2_places_.try_emplace(table_at, l2_tables_.size());
    if (fresh) l2_tables_.push_back({.table_at = table_at});
    L2Uses& table = l2_tables_[place->second];
    if (table.times != UINT32_MAX) ++table.times;
    table.active |= active;
  }
  co_return IoResult<>{};
}

Task<IoResult<>> Checker::count_l2_tables() {
  for (L2Uses& table : l2_tables_) {
    KITE_CO_ASSIGN(table.hole, co_await is_hole(table.table_at));
    if (table.hole) continue;
    l2_ = table;
    KITE_CO_TRY(co_await count_l2(table.table_at));
  }
  co_return IoResult<>{};
}

Task<IoResult<bool>> Checker::is_hole(uint64_t table_at) {
  const uint64_t cluster = node_.header_.cluster_bytes();
  if (table_at + cluster > node_.file_->length() || node_.l2_cache_->peek(table_at) != nullptr ||
      node_.refcount_cache_->peek(table_at) != nullptr) {
    co_return false;
  }
  KITE_CO_ASSIGN(const BlockStatus status, co_await node_.file_->block_status(table_at, cluster));
  co_return status.zero&& status.bytes >= cluster;
}

Task<IoResult<>> Checker::count_refcount_structures() {
  const Header& header = node_.header_;
  use(header.reftable_offset, uint64_t{header.reftable_clusters} << header.cluster_bits);
  for (size_t slot = 0; slot < node_.reftable_.size(); ++slot) {
    const uint64_t offset = node_.reftable_[slot] & kReftableMask;
    if (offset == 0) continue;
    if (!is_aligned(offset, header.cluster_bytes())) {
      message_(fmt::format("ERROR refcount block {} is not cluster aligned; refcount table entry corrupted", slot));
      ++result_.corruptions;
      needs_rebuild_ = true;
    } else if (offset >= node_.file_->length()) {
      message_(fmt::format("ERROR refcount block {} is outside image", slot));
      ++result_.corruptions;
      needs_rebuild_ = true;
    } else {
      use(offset, header.cluster_bytes());
      if (uses_.get(offset >> header.cluster_bits) != 1) {
        message_(fmt::format("ERROR refcount block {} refcount={}", slot, uses_.get(offset >> header.cluster_bits)));
        ++result_.corruptions;
        needs_rebuild_ = true;
      }
    }
  }
  co_return IoResult<>{};
}

// [qcow2] "Bitmaps": directory, tables and data clusters. Without the autoclear bit they are nobody's.
Task<IoResult<>> Checker::count_bitmaps() {
  if ((node_.header_.autoclear & kBitmaps) == 0) co_return IoResult<>{};
  if (const Result<> known = co_await node_.read_bitmap_directory(); !known) {
    corruption(fmt::format("the bitmaps cannot be read: {}", known.error().message), false);
    co_return IoResult<>{};
  }
  use(node_.bitmap_directory_.offset, node_.bitmap_directory_.bytes);
  for (const StoredBitmap& stored : node_.stored_bitmaps_) {
    const uint64_t index = stored.table_offset >> node_.header_.cluster_bits;
    if (stored.table_entries == 0) continue;
    if (stored.table_offset >= node_.file_->length() || uses_.get(index) != 0) {
      corruption(fmt::format("the table of bitmap '{}' lies upon something else, or outside of the file", stored.name),
                 false);
      continue;
    }
    use(stored.table_offset, uint64_t{stored.table_entries} * 8);
    KITE_CO_ASSIGN(const std::vector<uint64_t> table,
                   co_await node_.read_l1(stored.table_offset, stored.table_entries));
    for (const uint64_t entry : table) {
      const uint64_t host = entry & kOffsetMask;
      if ((entry & kBitmapTableReserved) != 0 || !is_aligned(host, node_.header_.cluster_bytes())) {
        corruption(fmt::format("the table of bitmap '{}' has the entry {:#x}", stored.name, entry), false);
      } else if (host != 0) {
        use(host, node_.header_.cluster_bytes());
      }
    }
  }
  co_return IoResult<>{};
}

Task<IoResult<>> Checker::count_all() {
  const Header& header = node_.header_;
  l2_tables_.clear();
  l2_places_.clear();
  use(0, header.cluster_bytes());
  KITE_CO_TRY(co_await count_l1(header.l1_offset, node_.l1_.size(), true));
  for (const Snapshot& snapshot : node_.snapshots_) {
    KITE_CO_TRY(co_await count_l1(snapshot.l1_offset, snapshot.l1_entries, false));
  }
  KITE_CO_TRY(co_await count_l2_tables());
  use(header.snapshots_offset, node_.snapshot_table_bytes_);
  KITE_CO_TRY(co_await count_bitmaps());
  KITE_CO_TRY(co_await count_refcount_structures());
  if (uses_.full()) co_return io_fail(EFBIG);
  co_return IoResult<>{};
}

Task<IoResult<>> Checker::compare_cluster(uint64_t index, uint64_t stored, Repair repair) {
  const uint64_t used = uses_.get(index);
  if (stored == used) co_return IoResult<>{};
  const bool leak = stored > used;
  // What is used and counts as free could have been taken for anything meanwhile, the refcounts' own place included.
  if (stored == 0) needs_rebuild_ = true;
  const bool fix = stored != 0 && (repair == Repair::kAll || (leak && repair == Repair::kLeaks));
  message_(fmt::format("{} cluster {} refcount={} reference={}",
                       fix    ? "Repairing"
                       : leak ? "Leaked"
                              : "ERROR",
                       index, stored, used));
  if (fix) {
    KITE_CO_ASSIGN(const TablePtr block, co_await node_.refcount_block(index));
    if (block == nullptr || used > node_.max_refcount()) {
      needs_rebuild_ = true;
    } else {
      node_.set_block_refcount(*block, index, used);
      ++(leak ? result_.leaks_fixed : result_.corruptions_fixed);
      co_return IoResult<>{};
    }
  }
  ++(leak ? result_.leaks : result_.corruptions);
  co_return IoResult<>{};
}

Task<IoResult<>> Checker::compare(Repair repair) {
  // Clusters that some block counts...
  const uint64_t a_block = node_.refcounts_a_block();
  std::vector<uint64_t> used_slots;
  for (const uint64_t chunk : uses_.chunks()) {
    for (uint64_t slot = chunk * UseCounts::kChunk / a_block;
         slot <= (chunk * UseCounts::kChunk + UseCounts::kChunk - 1) / a_block; ++slot) {
      if (used_slots.empty() || used_slots.back() != slot) used_slots.push_back(slot);
    }
  }
  for (uint64_t slot = 0; slot < node_.reftable_.size(); ++slot) {
    const uint64_t offset = node_.reftable_[slot] & kReftableMask;
    if (offset == 0 || !is_aligned(offset, node_.header_.cluster_bytes()) || offset >= node_.file_->length()) continue;
    // One block for two ranges: it was reported, and the refcounts are made anew.
    if (uses_.get(offset >> node_.header_.cluster_bits) != 1 && needs_rebuild_) continue;
    if (!std::ranges::binary_search(used_slots, slot)) {
      KITE_CO_ASSIGN(const bool hole, co_await is_hole(offset));
      if (hole) continue;
    }
    KITE_CO_ASSIGN(const TablePtr block, co_await node_.refcount_block(slot * a_block));
    if (block == nullptr) continue;
    for (uint64_t i = 0; i < a_block; ++i) {
      const uint64_t index = slot * a_block + i;
      const uint64_t stored = node_.block_refcount(*block, index);
      if (stored != uses_.get(index)) KITE_CO_TRY(co_await compare_cluster(index, stored, repair));
    }
  }
  // ... and those that none does.
  for (const uint64_t chunk : uses_.chunks()) {
    for (uint64_t index = chunk * UseCounts::kChunk; index < (chunk + 1) * UseCounts::kChunk; ++index) {
      if (uses_.get(index) == 0) continue;
      const uint64_t slot = index / a_block;
      const uint64_t offset = slot < node_.reftable_.size() ? node_.reftable_[slot] & kReftableMask : 0;
      const bool counted =
          offset != 0 && is_aligned(offset, node_.header_.cluster_bytes()) && offset < node_.file_->length();
      if (!counted) {
        KITE_CO_TRY(co_await compare_cluster(index, 0, repair));
      }
    }
  }
  co_return IoResult<>{};
}

// Counts anew, without the refcount structures, whose clusters become `structures`.
Task<IoResult<>> Checker::count_without(std::vector<uint64_t>& structures) {
  Header& header = node_.header_;
  const uint64_t file_end = (node_.file_->length() + header.cluster_bytes() - 1) >> header.cluster_bits;
  const auto add = [&](uint64_t offset) {
    const uint64_t index = offset >> header.cluster_bits;
    if (offset != 0 && is_aligned(offset, header.cluster_bytes()) && index < file_end) structures.push_back(index);
  };
  for (uint64_t i = 0; i < header.reftable_clusters; ++i) add(header.reftable_offset + (i << header.cluster_bits));
  for (const uint64_t entry : node_.reftable_) add(entry & kReftableMask);
  uses_ = UseCounts();
  const CheckResult before = result_;
  const uint64_t beyond_repair = beyond_repair_;
  const CheckMessage loud = std::exchange(message_, [](const std::string&) {});
  const std::vector<uint64_t> reftable = std::exchange(node_.reftable_, {});
  const uint32_t clusters = std::exchange(header.reftable_clusters, 0);
  const IoResult<> counted = co_await count_all();
  message_ = loud;
  result_ = before;
  beyond_repair_ = beyond_repair;
  header.reftable_clusters = clusters;
  node_.reftable_ = reftable;
  co_return counted;
}

// New refcount blocks and a new table, behind everything that is used; the old ones are leaks afterwards.
Task<IoResult<>> Checker::rebuild() {
  Header& header = node_.header_;
  const unsigned bits = header.cluster_bits;
  std::vector<uint64_t> old;
  KITE_CO_TRY(co_await count_without(old));
  const uint64_t a_block = node_.refcounts_a_block();
  const uint64_t file_end = (node_.file_->length() + header.cluster_bytes() - 1) >> bits;
  const uint64_t start = std::max(uses_.end(), file_end);
  // Blocks for every range in use, the new area included; found by trying again until nothing is missing.
  std::vector<uint64_t> slots;
  uint64_t table_clusters = 1;
  while (true) {
    std::vector<uint64_t> needed;
    for (const uint64_t chunk : uses_.chunks()) {
      for (uint64_t index = chunk * UseCounts::kChunk; index < (chunk + 1) * UseCounts::kChunk; ++index) {
        if (uses_.get(index) != 0 && (needed.empty() || needed.back() != index / a_block))
          needed.push_back(index / a_block);
      }
    }
    const uint64_t end = start + slots.size() + table_clusters;
    for (uint64_t slot = start / a_block; slot <= (end - 1) / a_block; ++slot) needed.push_back(slot);
    std::ranges::sort(needed);
    needed.erase(std::ranges::unique(needed).begin(), needed.end());
    const uint64_t clusters = ((needed.back() + 1) * 8 + header.cluster_bytes() - 1) >> bits;
    const bool settled = needed.size() == slots.size() && clusters == table_clusters;
    slots = std::move(needed);
    table_clusters = clusters;
    if (settled) break;
  }
  if (table_clusters << bits > kMaxReftableBytes) co_return io_fail(EFBIG);
  for (uint64_t i = 0; i < slots.size() + table_clusters; ++i) uses_.add(start + i);
  // Until the header names the new ones the old ones are in use.
  const std::unordered_set<uint64_t> leaving(old.begin(), old.end());
  std::vector<uint64_t> reftable(table_clusters << bits >> 3);
  for (size_t i = 0; i < slots.size(); ++i) {
    Table block;
    block.offset = (start + i) << bits;
    block.bytes.resize(header.cluster_bytes());
    for (uint64_t n = 0; n < a_block; ++n) {
      const uint64_t index = slots[i] * a_block + n;
      const uint64_t used = std::max<uint64_t>(uses_.get(index), leaving.contains(index) ? 1 : 0);
      if (used > node_.max_refcount()) co_return io_fail(ERANGE);
      if (used != 0) node_.set_block_refcount(block, index, used);
    }
    KITE_CO_TRY(co_await node_.file_->write(block.offset, IoSlice(block.bytes.data(), block.bytes.size())));
    reftable[slots[i]] = block.offset;
  }
  co_return co_await node_.adopt_reftable(std::move(reftable), (start + slots.size()) << bits, table_clusters);
}

Task<IoResult<>> Qcow2Node::adopt_reftable(std::vector<uint64_t> table, uint64_t place, uint64_t clusters) {
  std::vector<uint8_t> raw(table.size() * 8);
  for (size_t i = 0; i < table.size(); ++i) store_be64(raw.data() + i * 8, table[i]);
  KITE_CO_TRY(co_await file_->write(place, IoSlice(raw.data(), raw.size())));
  KITE_CO_TRY(co_await file_->flush());
  uint8_t fields[12];
  store_be64(fields, place);
  store_be32(fields + 8, static_cast<uint32_t>(clusters));
  KITE_CO_TRY(co_await file_->write(48, IoSlice(fields, sizeof fields)));
  KITE_CO_TRY(co_await file_->flush());
  header_.reftable_offset = place;
  header_.reftable_clusters = static_cast<uint32_t>(clusters);
  reftable_ = std::move(table);
  reftable_dirty_from_ = reftable_dirty_to_ = 0;
  reftable_moved_ = false;
  refcount_cache_ = std::make_unique<TableCache>(header_.cluster_bytes(), refcount_cache_bytes_);
  for (const uint64_t offset : reftable_) {
    if (offset != 0) tables_.insert(offset);
  }
  free_from_ = 0;
  co_return IoResult<>{};
}

// A leak that was given back may have left a cluster to one user, which then may have the flag.
bool Checker::mends_copied() const {
  return repair_ == Repair::kAll ||
         (repair_ == Repair::kLeaks && result_.corruptions == 0 && result_.leaks == 0 && result_.leaks_fixed != 0);
}

Task<IoResult<>> Checker::check_copied_l2(uint64_t table_at) {
  const bool fix = mends_copied();
  for (uint64_t index = 0; index < node_.header_.l2_entries(); ++index) {
    KITE_CO_ASSIGN(const TablePtr table, co_await node_.l2_cache_->get(*node_.file_, table_at));
    const uint64_t entry = node_.l2_entry(*table, index);
    const uint64_t host = entry & kOffsetMask;
    if ((entry & kCompressed) != 0 || host == 0 || !is_aligned(host, node_.header_.cluster_bytes())) continue;
    const auto users = co_await node_.refcount(host >> node_.header_.cluster_bits);
    if (!users) continue;
    if ((*users == 1) == ((entry & kCopied) != 0)) continue;
    message_(fmt::format("{} OFLAG_COPIED data cluster: l2_entry={:x} refcount={}", fix ? "Repairing" : "ERROR", entry,
                         *users));
    ++(fix ? result_.corruptions_fixed : result_.corruptions);
    if (!fix) continue;
    KITE_CO_ASSIGN(const TablePtr again, co_await node_.l2_cache_->get(*node_.file_, table_at));
    node_.set_l2_entry(*again, index, entry ^ kCopied, node_.l2_bitmap(*again, index));
  }
  co_return IoResult<>{};
}

Task<IoResult<>> Checker::check_copied() {
  const bool fix = mends_copied();
  for (size_t slot = 0; slot < node_.l1_.size(); ++slot) {
    const uint64_t entry = node_.l1_[slot];
    const uint64_t table_at = entry & kOffsetMask;
    if (table_at == 0 || !is_aligned(table_at, node_.header_.cluster_bytes()) || table_at >= node_.file_->length())
      continue;
    const auto users = co_await node_.refcount(table_at >> node_.header_.cluster_bits);
    if (users && (*users == 1) != ((entry & kCopied) != 0)) {
      message_(fmt::format("{} OFLAG_COPIED L2 cluster: l1_index={} l1_entry={:x} refcount={}",
                           fix ? "Repairing" : "ERROR", slot, entry, *users));
      ++(fix ? result_.corruptions_fixed : result_.corruptions);
      if (fix) {
        node_.l1_[slot] ^= kCopied;
        node_.mark_l1(slot);
      }
    }
    const auto place = l2_places_.find(table_at);
    if (place == l2_places_.end() || std::exchange(l2_tables_[place->second].hole, true)) continue;
    KITE_CO_TRY(co_await check_copied_l2(table_at));
  }
  co_return IoResult<>{};
}

// After compare() said what is wrong; `before` is what was found before it.
Task<IoResult<>> Checker::repair_refcounts(const CheckResult& before) {
  if (repair_ == Repair::kNone ||
      (result_.leaks == before.leaks && result_.corruptions == before.corruptions && !needs_rebuild_)) {
    co_return IoResult<>{};
  }
  if (!needs_rebuild_ || repair_ == Repair::kLeaks) {
    const uint64_t corruptions = result_.corruptions_fixed;
    result_ = before;
    result_.corruptions_fixed = corruptions;
    co_return co_await compare(repair_);
  }
  message_("Rebuilding refcount structure");
  KITE_CO_TRY(co_await rebuild());
  result_.corruptions_fixed += result_.corruptions - beyond_repair_;
  result_.leaks_fixed += result_.leaks;
  result_.corruptions = beyond_repair_;
  result_.leaks = 0;
  const CheckResult rebuilt = result_;
  needs_rebuild_ = false;
  KITE_CO_TRY(co_await compare(Repair::kLeaks));
  result_ = rebuilt;
  co_return IoResult<>{};
}

Task<Result<CheckResult>> Checker::run() {
  const Header& header = node_.header_;
  result_.total_clusters = (header.size + header.cluster_bytes() - 1) >> header.cluster_bits;
  IoResult<> done = co_await count_all();
  const CheckResult before = result_;
  if (done) done = co_await compare(Repair::kNone);
  if (done) done = co_await repair_refcounts(before);
  result_.image_end_offset = uses_.end() << header.cluster_bits;
  if (done) done = co_await check_copied();
  if (done && repair_ != Repair::kNone) {
    node_.corrupt_ = false;
    done = co_await node_.write_back(true, true);
    const uint64_t clear = repair_ == Repair::kAll && result_.corruptions == 0 ? kDirty | kCorrupt : 0;
    if (done && (header.incompatible & clear) != 0) done = co_await node_.set_incompatible(0, clear);
    node_.free_from_ = 0;
    if (done && result_.leaks_fixed != 0) done = co_await node_.trim_file();
  }
  if (!done) {
    ++result_.check_errors;
    message_(fmt::format("the check could not be ended: {}", errno_text(done.error().code)));
  }
  co_return result_;
}

Task<Result<CheckResult>> Qcow2Node::check(Repair repair, CheckMessage message) {
  if (repair != Repair::kNone && read_only()) co_return fail("the image is open for reading only");
  const ExclusiveAccess access = co_await ExclusiveAccess::enter(*this);
  if (!read_only() && !corrupt_ && (header_.incompatible & kDirty) == 0) {
    if (const auto done = co_await write_back(true); !done)
      co_return fail("Could not flush: {}", errno_text(done.error().code));
  }
  Checker checker(*this, repair, std::move(message));
  co_return co_await checker.run();
}

}  // namespace kite::block::qcow2

// Internal snapshots: [qcow2] "Snapshots". A snapshot is a copy of the L1 table; all it reaches is counted once more,
// and the flag "copied" is gone from everything that is shared.
#include <algorithm>
#include <cerrno>
#include <charconv>

#include "block/qcow2/access.h"
#include "block/qcow2/qcow2_node.h"
#include "support/bits.h"

namespace kite::block::qcow2 {
namespace {

constexpr size_t kEntryBytes = 40;
constexpr size_t kKnownExtra = 24;  // 64-bit VM state size, disk size, instruction count

Result<> failed(const char* what, const IoResult<>& done) {
  if (done) return {};
  if (done.error().code == ERANGE)
    return fail("{}: a cluster would have more references than its refcount can count", what);
  return fail("{}: {}", what, errno_text(done.error().code));
}

void render(const Snapshot& snapshot, std::vector<uint8_t>& out) {
  const size_t at = out.size();
  const SnapshotInfo& info = snapshot.info;
  const size_t extra = kKnownExtra + snapshot.unknown_extra.size();
  out.resize(at + align_up(kEntryBytes + extra + info.id.size() + info.name.size(), 8));
  uint8_t* raw = out.data() + at;
  store_be64(raw, snapshot.l1_offset);
  store_be32(raw + 8, snapshot.l1_entries);
  store_be16(raw + 12, static_cast<uint16_t>(info.id.size()));
  store_be16(raw + 14, static_cast<uint16_t>(info.name.size()));
  store_be32(raw + 16, info.date_seconds);
  store_be32(raw + 20, info.date_nanoseconds);
  store_be64(raw + 24, info.vm_clock_ns);
  store_be32(raw + 32, info.vm_state_bytes > UINT32_MAX ? 0 : static_cast<uint32_t>(info.vm_state_bytes));
  store_be32(raw + 36, static_cast<uint32_t>(extra));
  store_be64(raw + 40, info.vm_state_bytes);
  store_be64(raw + 48, info.disk_bytes);
  store_be64(raw + 56, info.icount.value_or(~uint64_t{0}));
  uint8_t* tail = std::ranges::copy(snapshot.unknown_extra, raw + kEntryBytes + kKnownExtra).out;
  tail = std::ranges::copy(info.id, tail).out;
  std::ranges::copy(info.name, tail);
}

// The entry at the front of `raw`, its length as `bytes`.
Result<Snapshot> parse(std::span<const uint8_t> raw, uint64_t disk_bytes) {
  Snapshot snapshot;
  SnapshotInfo& info = snapshot.info;
  snapshot.l1_offset = load_be64(raw.data());
  snapshot.l1_entries = load_be32(raw.data() + 8);
  const size_t id_bytes = load_be16(raw.data() + 12);
  const size_t name_bytes = load_be16(raw.data() + 14);
  info.date_seconds = load_be32(raw.data() + 16);
  info.date_nanoseconds = load_be32(raw.data() + 20);
  info.vm_clock_ns = load_be64(raw.data() + 24);
  info.vm_state_bytes = load_be32(raw.data() + 32);
  const size_t extra = load_be32(raw.data() + 36);
  const uint8_t* more = raw.data() + kEntryBytes;
  if (extra >= 8) info.vm_state_bytes = load_be64(more);
  info.disk_bytes = extra >= 16 ? load_be64(more + 8) : disk_bytes;
  if (extra >= kKnownExtra && load_be64(more + 16) != ~uint64_t{0}) info.icount = load_be64(more + 16);
  if (extra > kKnownExtra) snapshot.unknown_extra.assign(more + kKnownExtra, more + extra);
  info.id.assign(reinterpret_cast<const char*>(more) + extra, id_bytes);
  info.name.assign(reinterpret_cast<const char*>(more) + extra + id_bytes, name_bytes);
  if (snapshot.l1_entries > kMaxL1Bytes / 8) return fail("Snapshot {}: L1 table too large", info.id);
  return snapshot;
}

}  // namespace

Task<Result<>> Qcow2Node::load_snapshots() {
  snapshots_.clear();
  snapshot_table_bytes_ = 0;
  uint64_t at = header_.snapshots_offset;
  for (uint32_t i = 0; i < header_.snapshot_count; ++i) {
    std::vector<uint8_t> raw(kEntryBytes);
    if (const auto done = co_await file_->read(at, IoSlice(raw.data(), raw.size())); !done) {
      co_return fail("Could not read snapshots: {}", errno_text(done.error().code));
    }
    const uint32_t extra = load_be32(raw.data() + 36);
    if (extra > kMaxSnapshotExtra) co_return fail("Too much extra metadata in snapshot table entry {}", i);
    const size_t bytes = kEntryBytes + extra + load_be16(raw.data() + 12) + load_be16(raw.data() + 14);
    raw.resize(bytes);
    if (const auto done = co_await file_->read(at, IoSlice(raw.data(), raw.size())); !done) {
      co_return fail("Could not read snapshots: {}", errno_text(done.error().code));
    }
    KITE_CO_ASSIGN(Snapshot snapshot, parse(raw, header_.size));
    if (!is_aligned(snapshot.l1_offset, header_.cluster_bytes())) {
      co_return fail("Snapshot {}: the L1 table's offset is not aligned", snapshot.info.id);
    }
    snapshots_.push_back(std::move(snapshot));
    at += align_up(bytes, 8);
    snapshot_table_bytes_ = at - header_.snapshots_offset;
    if (snapshot_table_bytes_ > kMaxSnapshotTableBytes) co_return fail("Snapshot table is too big");
  }
  co_return Result<>{};
}

std::optional<size_t> Qcow2Node::find_snapshot(std::string_view id_or_name) const {
  for (size_t i = 0; i < snapshots_.size(); ++i) {
    if (snapshots_[i].info.id == id_or_name) return i;
  }
  for (size_t i = 0; i < snapshots_.size(); ++i) {
    if (snapshots_[i].info.name == id_or_name) return i;
  }
  return std::nullopt;
}

Task<IoResult<std::vector<uint64_t>>> Qcow2Node::read_l1(uint64_t offset, uint64_t entries) {
  std::vector<uint64_t> l1(entries);
  KITE_CO_TRY(co_await file_->read(offset, IoSlice(l1.data(), entries * 8)));
  for (uint64_t& entry : l1) entry = __builtin_bswap64(entry);
  co_return l1;
}

Task<IoResult<uint64_t>> Qcow2Node::write_new_table(std::vector<uint8_t> raw, std::string_view event) {
  const uint64_t clusters = std::max<uint64_t>((raw.size() + header_.cluster_bytes() - 1) >> header_.cluster_bits, 1);
  Allocation place;
  {
    const CoMutex::Lock lock = co_await meta_.lock();
    KITE_CO_TRY(co_await apply_freed());
    KITE_CO_ASSIGN(place, co_await allocate(clusters));
  }
  IoResult<> done = event.empty() ? IoResult<>{} : debug_event(event);
  if (done) done = co_await file_->write(place.host, IoSlice(raw.data(), raw.size()));
  // Counted before anything points at it.
  if (done) done = co_await write_back(true);
  if (done) co_return place.host;
  for (uint64_t i = 0; i < clusters; ++i) free_cluster((place.host >> header_.cluster_bits) + i, false);
  co_return std::unexpected(done.error());
}

Task<IoResult<>> Qcow2Node::write_snapshots(std::vector<Snapshot> snapshots) {
  std::vector<uint8_t> raw;
  for (const Snapshot& snapshot : snapshots) render(snapshot, raw);
  if (raw.size() > kMaxSnapshotTableBytes || snapshots.size() > kMaxSnapshots) co_return io_fail(EFBIG);
  const uint64_t bytes = raw.size();
  uint64_t place = 0;
  if (!raw.empty()) {
    KITE_CO_ASSIGN(place, co_await write_new_table(std::move(raw)));
  }
  // [qcow2] bytes 60..71 of the header: nb_snapshots, snapshots_offset, in one sector.
  uint8_t fields[12];
  store_be32(fields, static_cast<uint32_t>(snapshots.size()));
  store_be64(fields + 4, place);
  KITE_CO_TRY(co_await write_pointers(60, fields, sizeof fields));
  free_range(header_.snapshots_offset, snapshot_table_bytes_);
  header_.snapshot_count = static_cast<uint32_t>(snapshots.size());
  header_.snapshots_offset = place;
  snapshot_table_bytes_ = bytes;
  snapshots_ = std::move(snapshots);
  co_return IoResult<>{};
}

void Qcow2Node::free_range(uint64_t offset, uint64_t bytes) {
  const uint64_t end = (offset + bytes + header_.cluster_bytes() - 1) >> header_.cluster_bits;
  for (uint64_t index = offset >> header_.cluster_bits; bytes != 0 && index < end; ++index)
    free_cluster(index, pass_discard_snapshot_);
}

// visit(cluster index) for every use of a cluster below the L1 table: tables, data, pieces of compressed data.
template <class Visit>
Task<IoResult<>> Qcow2Node::for_uses(const std::vector<uint64_t>& l1, Visit visit) {
  std::unordered_set<uint64_t> seen;
  for (const uint64_t l1_entry : l1) {
    const uint64_t table_at = l1_entry & kOffsetMask;
    if (table_at == 0) continue;
    if (!is_aligned(table_at, header_.cluster_bytes())) co_return io_fail(EIO);
    if (!seen.insert(table_at).second) {
      mark_corrupt(fmt::format("two L1 entries name the L2 table at {:#x}", table_at));
      co_return io_fail(EIO);
    }
    KITE_CO_ASSIGN(const TablePtr table, co_await l2_cache_->get(*file_, table_at));
    const std::vector<uint8_t> copy = table->bytes;  // visit() may suspend
    const uint64_t step = header_.l2_entry_bytes();
    for (uint64_t at = 0; at < copy.size(); at += step) {
      const uint64_t entry = load_be64(copy.data() + at);
      if ((entry & kCompressed) != 0) {
        uint64_t host = 0;
        uint64_t bytes = 0;
        parse_compressed(entry, host, bytes);
        for (uint64_t i = host >> header_.cluster_bits; i <= (host + bytes - 1) >> header_.cluster_bits; ++i) {
          KITE_CO_TRY(co_await visit(i));
        }
      } else if ((entry & kOffsetMask) != 0) {
        KITE_CO_TRY(co_await visit((entry & kOffsetMask) >> header_.cluster_bits));
      }
    }
    KITE_CO_TRY(co_await visit(table_at >> header_.cluster_bits));
  }
  co_return IoResult<>{};
}

namespace {

// Counts up one use after another; undo() takes the first `done` back.
struct CountUp {
  std::function<Task<IoResult<>>(uint64_t, int64_t)> add;
  uint64_t* done;
  Task<IoResult<>> operator()(uint64_t index) const {
    const IoResult<> added = co_await add(index, 1);
    if (added) ++*done;
    co_return added;
  }
};

}  // namespace

Task<IoResult<>> Qcow2Node::count_uses(const std::vector<uint64_t>& l1) {
  const CoMutex::Lock lock = co_await meta_.lock();
  uint64_t counted = 0;
  const CountUp up{[this](uint64_t index, int64_t delta) { return add_refcount(index, delta); }, &counted};
  const IoResult<> done = co_await for_uses(l1, up);
  if (done) co_return done;
  co_await uncount_uses(l1, counted);
  co_return done;
}

// The first `most` of what count_uses() counted, back. With meta_ held.
Task<IoResult<>> Qcow2Node::uncount_uses(const std::vector<uint64_t>& l1, uint64_t most) {
  const auto down = [&](uint64_t index) -> Task<IoResult<>> {
    if (most == 0) return ready(IoResult<>{});
    --most;
    return add_refcount(index, -1);
  };
  co_return co_await for_uses(l1, down);
}

Task<IoResult<>> Qcow2Node::release_uses(const std::vector<uint64_t>& l1) {
  const auto release = [this](uint64_t index) {
    free_cluster(index, pass_discard_snapshot_);
    return ready(IoResult<>{});
  };
  co_return co_await for_uses(l1, release);
}

// The flag "copied" of the active L1 table and its L2 tables says whether the refcount is 1; `none` takes all away.
Task<IoResult<>> Qcow2Node::refresh_copied(bool none) {
  const CoMutex::Lock lock = co_await meta_.lock();
  std::unordered_set<uint64_t> seen;
  for (size_t slot = 0; slot < l1_.size(); ++slot) {
    const uint64_t table_at = l1_[slot] & kOffsetMask;
    if (table_at == 0 || !seen.insert(table_at).second) continue;
    KITE_CO_ASSIGN(const uint64_t table_users, co_await refcount(table_at >> header_.cluster_bits));
    const uint64_t l1_entry = table_at | (!none && table_users == 1 ? kCopied : 0);
    if (std::exchange(l1_[slot], l1_entry) != l1_entry) mark_l1(slot);
    for (uint64_t index = 0; index < header_.l2_entries(); ++index) {
      KITE_CO_ASSIGN(const TablePtr table, co_await l2_cache_->get(*file_, table_at));
      const uint64_t entry = l2_entry(*table, index);
      if ((entry & kCompressed) != 0 || (entry & kOffsetMask) == 0) continue;
      uint64_t users = 2;
      if (!none) {
        KITE_CO_ASSIGN(users, co_await refcount((entry & kOffsetMask) >> header_.cluster_bits));
      }
      const uint64_t wanted = (entry & ~kCopied) | (users == 1 ? kCopied : 0);
      if (wanted == entry) continue;
      KITE_CO_ASSIGN(const TablePtr again, co_await l2_cache_->get(*file_, table_at));
      set_l2_entry(*again, index, wanted, l2_bitmap(*again, index));
    }
  }
  copied_stale_ = none;
  co_return IoResult<>{};
}

// Another L1 table becomes the active one, in one write of the header.
Task<IoResult<>> Qcow2Node::switch_l1(std::vector<uint64_t> l1, uint64_t disk_bytes) {
  std::vector<uint8_t> raw(l1.size() * 8);
  for (size_t i = 0; i < l1.size(); ++i) store_be64(raw.data() + i * 8, l1[i]);
  if (!debug_event("l1_grow_alloc_table")) co_return io_fail(EIO);
  KITE_CO_ASSIGN(const uint64_t place, co_await write_new_table(std::move(raw), "l1_grow_write_table"));
  // [qcow2] bytes 24..47 of the header: size, crypt_method, l1_size, l1_table_offset, in one sector.
  uint8_t fields[24];
  store_be64(fields, disk_bytes);
  store_be32(fields + 8, header_.crypt_method);
  store_be32(fields + 12, static_cast<uint32_t>(l1.size()));
  store_be64(fields + 16, place);
  if (!debug_event("l1_grow_activate_table")) co_return io_fail(EIO);
  KITE_CO_TRY(co_await write_pointers(24, fields, sizeof fields));
  free_range(header_.l1_offset, l1_.size() * 8);
  l1_ = std::move(l1);
  header_.l1_entries = static_cast<uint32_t>(l1_.size());
  header_.l1_offset = place;
  header_.size = disk_bytes;
  co_return IoResult<>{};
}

Task<Result<>> Qcow2Node::snapshot_create(SnapshotInfo info) {
  if (read_only()) co_return fail("the image is open for reading only");
  const ExclusiveAccess access = co_await ExclusiveAccess::enter(*this);
  uint64_t next_id = 0;
  for (const Snapshot& snapshot : snapshots_) {
    uint64_t id = 0;
    std::from_chars(snapshot.info.id.data(), snapshot.info.id.data() + snapshot.info.id.size(), id);
    next_id = std::max(next_id, id);
  }
  info.id = std::to_string(next_id + 1);
  info.disk_bytes = header_.size;
  co_return failed("Could not create snapshot", co_await take_snapshot(std::move(info)));
}

Task<IoResult<>> Qcow2Node::take_snapshot(SnapshotInfo info) {
  if (snapshots_.size() >= kMaxSnapshots) co_return io_fail(EFBIG);
  // First everything stops being ours alone, durably; then it is counted twice; then the snapshot is there.
  copied_stale_ = true;
  IoResult<> done = co_await refresh_copied(true);
  if (done) done = co_await write_back(true);
  if (done) done = co_await count_uses(l1_);
  if (!done) {
    co_await refresh_copied(false);
    co_return done;
  }
  std::vector<uint8_t> raw(l1_.size() * 8);
  for (size_t i = 0; i < l1_.size(); ++i) store_be64(raw.data() + i * 8, l1_[i]);
  const auto place = co_await write_new_table(std::move(raw));
  done = place ? IoResult<>{} : std::unexpected(place.error());
  if (done) {
    std::vector<Snapshot> snapshots = snapshots_;
    snapshots.push_back({std::move(info), *place, static_cast<uint32_t>(l1_.size()), {}});
    done = co_await write_snapshots(std::move(snapshots));
  }
  // Where the header may name the snapshot already, all it uses stays counted.
  if (!done && !pointers_unknown_) {
    if (place) free_range(*place, l1_.size() * 8);
    const CoMutex::Lock lock = co_await meta_.lock();
    co_await uncount_uses(l1_);
  }
  if (!done) co_await refresh_copied(false);
  co_return done;
}

Task<Result<>> Qcow2Node::snapshot_apply(std::string id_or_name) {
  if (read_only()) co_return fail("the image is open for reading only");
  const ExclusiveAccess access = co_await ExclusiveAccess::enter(*this);
  const auto found = find_snapshot(id_or_name);
  if (!found) co_return fail("Can't find the snapshot '{}'", id_or_name);
  if (!bitmaps().empty())
    co_return fail("Device has active dirty bitmaps ('{}'), which would not know of the change; remove them first",
                   bitmaps().all().front()->name());
  co_return failed("Could not apply snapshot", co_await apply_snapshot(snapshots_[*found]));
}

Task<IoResult<>> Qcow2Node::apply_snapshot(Snapshot snapshot) {
  KITE_CO_TRY(co_await write_back(true));
  KITE_CO_ASSIGN(std::vector<uint64_t> l1, co_await read_l1(snapshot.l1_offset, snapshot.l1_entries));
  const uint64_t entries = header_.l1_entries_for(snapshot.info.disk_bytes);
  if (entries > kMaxL1Bytes / 8) co_return io_fail(EFBIG);
  l1.resize(std::max<uint64_t>(l1.size(), entries));
  for (uint64_t& entry : l1) entry &= ~kCopied;
  KITE_CO_TRY(co_await count_uses(l1));
  const std::vector<uint64_t> old = l1_;
  copied_stale_ = true;
  if (const IoResult<> done = co_await switch_l1(l1, snapshot.info.disk_bytes); !done) {
    const CoMutex::Lock lock = co_await meta_.lock();
    if (!pointers_unknown_) co_await uncount_uses(l1);
    co_return done;
  }
  KITE_CO_TRY(co_await release_uses(old));
  KITE_CO_TRY(co_await write_back(true));
  KITE_CO_TRY(co_await refresh_copied(false));
  co_return co_await write_back(true);
}

Task<Result<>> Qcow2Node::snapshot_delete(std::string id_or_name) {
  if (read_only()) co_return fail("the image is open for reading only");
  const ExclusiveAccess access = co_await ExclusiveAccess::enter(*this);
  const auto found = find_snapshot(id_or_name);
  if (!found) co_return fail("Can't find the snapshot '{}'", id_or_name);
  co_return failed("Could not delete snapshot", co_await drop_snapshot(*found));
}

Task<IoResult<>> Qcow2Node::drop_snapshot(size_t index) {
  KITE_CO_TRY(co_await write_back(true));
  const Snapshot gone = snapshots_[index];
  KITE_CO_ASSIGN(const std::vector<uint64_t> l1, co_await read_l1(gone.l1_offset, gone.l1_entries));
  std::vector<Snapshot> left = snapshots_;
  left.erase(left.begin() + static_cast<std::ptrdiff_t>(index));
  KITE_CO_TRY(co_await write_snapshots(std::move(left)));
  copied_stale_ = true;
  KITE_CO_TRY(co_await release_uses(l1));
  free_range(gone.l1_offset, uint64_t{gone.l1_entries} * 8);
  KITE_CO_TRY(co_await write_back(true));
  KITE_CO_TRY(co_await refresh_copied(false));
  co_return co_await write_back(true);
}

Task<Result<>> Qcow2Node::snapshot_load(std::string id_or_name) {
  if (!read_only()) co_return fail("Device is not readonly");
  const auto found = find_snapshot(id_or_name);
  if (!found) co_return fail("Can't find snapshot");
  const Snapshot snapshot = snapshots_[*found];
  auto l1 = co_await read_l1(snapshot.l1_offset, snapshot.l1_entries);
  if (!l1) co_return fail("Could not read L1 table: {}", errno_text(l1.error().code));
  l1_ = std::move(*l1);
  header_.size = snapshot.info.disk_bytes;
  co_return Result<>{};
}

}  // namespace kite::block::qcow2

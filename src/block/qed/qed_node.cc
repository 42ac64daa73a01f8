#include "block/qed/qed_node.h"

#include <algorithm>
#include <cerrno>

#include "support/bits.h"
#include "support/bytes.h"

namespace kite::block::qed {
namespace {

constexpr uint64_t kZeroCluster = 1;                  // [qed] "L2 table": offset 1 stands for zeroes
constexpr uint64_t kCacheBytes = uint64_t{64} << 20;  // of L2 tables in memory, and two at least
constexpr uint64_t kMaxAllocation = uint64_t{4} << 20;
constexpr uint32_t kFileShared = Permissions::kConsistentRead | Permissions::kWriteUnchanged;

}  // namespace

int QedNode::probe(std::span<const uint8_t> head) {
  return head.size() >= kHeaderBytes && kite::load<uint32_t>(head.data()) == kMagic ? 100 : 0;
}

Task<Result<NodePtr>> QedNode::open(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  std::shared_ptr<QedNode> node(new QedNode(graph.executor(), std::move(config)));
  KITE_CO_ASSIGN(NodePtr below, co_await graph.open_child(options.take_child("file"), node->config_, "file"));
  node->follow_rights(*below);
  const bool given = options.has_child("backing");
  BlockOptions backing = options.take_child("backing");
  KITE_CO_TRY(options.all_taken("qed"));
  Permissions permissions{.need = Permissions::kConsistentRead, .shared = kFileShared};
  if (!node->read_only()) permissions.need |= Permissions::kWrite | Permissions::kResize;
  KITE_CO_ASSIGN(node->file_, NodeUse::claim(std::move(below), fmt::format("node '{}'", node->name()), permissions));
  KITE_CO_TRY(co_await node->load());
  KITE_CO_TRY(co_await node->open_backing(graph, std::move(backing), given));
  node->loaded_ = true;
  if (node->active()) KITE_CO_TRY(co_await node->repair_after_crash());
  co_return NodePtr(std::move(node));
}

Task<Result<>> QedNode::repair_after_crash() {
  if (read_only() || config_.for_check || (header_.features & kNeedCheck) == 0) co_return Result<>{};
  KITE_CO_ASSIGN(const CheckResult result, co_await check(Repair::kAll, [](const std::string&) {}));
  if (result.check_errors != 0 || result.corruptions != 0)
    co_return fail("Could not repair the QED image after an unclean end");
  co_return Result<>{};
}

Task<Result<>> QedNode::load() {
  tables_.clear();
  constexpr uint64_t kHead = 4096;
  std::vector<uint8_t> head(std::min(kHead, file_->length()));
  if (const auto done = co_await file_->read(0, IoSlice(head)); !done)
    co_return fail("Failed to read QED header: {}", errno_text(done.error().code));
  KITE_CO_ASSIGN(header_, parse_header(head));
  file_end_ = align_up(file_->length(), header_.cluster);
  if (!valid_table(header_.l1_offset)) co_return fail("QED table offset is invalid");
  l1_.resize(header_.entries());
  if (const auto done = co_await file_->read(header_.l1_offset, IoSlice(l1_.data(), l1_.size() * 8)); !done) {
    co_return fail("Failed to read L1 table: {}", errno_text(done.error().code));
  }
  // [qed] autoclear_features: who does not know a bit clears it.
  if (!read_only() && active() && header_.autoclear != 0) {
    header_.autoclear = 0;
    if (const auto done = co_await write_header(); !done)
      co_return fail("Failed to update header: {}", errno_text(done.error().code));
  }
  co_return Result<>{};
}

Task<Result<>> QedNode::open_backing(BlockGraph& graph, BlockOptions options, bool given) {
  const std::string* reference = options.find("");
  if (given && reference != nullptr && reference->empty()) co_return Result<>{};
  if (!given && header_.backing.empty()) co_return Result<>{};
  Result<NodePtr> node = fail("none");
  if (given) {
    NodeConfig config = config_;
    config.read_only = true;
    node = co_await graph.open_child(std::move(options), config, "backing");
  } else {
    node = co_await graph.open_backing(header_.backing, (header_.features & kRawBacking) != 0 ? "raw" : "",
                                       file_->filename(), config_, config_.backing_depth + 1);
  }
  if (!node) co_return fail("Could not open backing file: {}", node.error().message);
  co_return set_backing(std::move(*node));
}

Result<> QedNode::set_backing(NodePtr backing) {
  if (backing == nullptr) {
    backing_.reset();
    return {};
  }
  KITE_ASSIGN(backing_,
              NodeUse::claim(std::move(backing), fmt::format("node '{}'", name()),
                             {.need = Permissions::kConsistentRead, .shared = kFileShared | Permissions::kResize}));
  return {};
}

bool QedNode::valid_cluster(uint64_t offset) const {
  return is_aligned(offset, header_.cluster) && offset >= uint64_t{header_.header_clusters} * header_.cluster &&
         offset < file_end_;
}

bool QedNode::valid_table(uint64_t offset) const {
  return valid_cluster(offset) && header_.table_bytes() <= file_end_ && offset <= file_end_ - header_.table_bytes();
}

Task<IoResult<QedNode::Table>> QedNode::load_table(uint64_t offset) {
  if (const auto found = tables_.find(offset); found != tables_.end()) co_return found->second;
  if (!valid_table(offset)) co_return io_fail(EIO);
  if (!debug_event("l2_load")) co_return io_fail(EIO);
  auto table = std::make_shared<std::vector<uint64_t>>(header_.entries());
  uint64_t links = 0;
  do {  // what was read while the table changed may be old
    links = links_;
    KITE_CO_TRY(co_await file_->read(offset, IoSlice(table->data(), table->size() * 8)));
  } while (links != links_);
  // Tables are written as they change, so any may go.
  make_room();
  co_return tables_.try_emplace(offset, std::move(table)).first->second;
}

void QedNode::make_room() {
  if (tables_.size() >= std::max<uint64_t>(kCacheBytes / header_.table_bytes(), 2)) tables_.erase(tables_.begin());
}

Task<IoResult<QedNode::Extent>> QedNode::find_extent(uint64_t offset, uint64_t bytes) {
  const uint64_t span = header_.bytes_an_l2();
  bytes = std::min(bytes, span - offset % span);
  const uint64_t slot = offset / span;
  if (slot >= l1_.size() || l1_[slot] == 0) co_return Extent{.kind = Kind::kUnallocated, .bytes = bytes};
  KITE_CO_ASSIGN(const Table table, co_await load_table(l1_[slot]));
  uint64_t index = offset % span / header_.cluster;
  const uint64_t within = offset % header_.cluster;
  const uint64_t entry = (*table)[index];
  Extent extent{.kind = entry == 0 ? Kind::kUnallocated : entry == kZeroCluster ? Kind::kZero : Kind::kData};
  if (extent.kind == Kind::kData && !valid_cluster(entry)) co_return io_fail(EIO);
  extent.host = entry + within;
  uint64_t done = header_.cluster - within;
  for (uint64_t n = 1; done < bytes && ++index < table->size(); ++n, done += header_.cluster) {
    const uint64_t expected = extent.kind == Kind::kData ? entry + n * header_.cluster : entry;
    if ((*table)[index] != expected || (extent.kind == Kind::kData && !valid_cluster(expected))) break;
  }
  extent.bytes = std::min(bytes, done);
  co_return extent;
}

Task<IoResult<>> QedNode::read_old(uint64_t offset, IoSlice to, IoHow how) {
  const uint64_t length = backing_ ? backing_->length() : 0;
  const uint64_t inside = offset >= length ? 0 : std::min(to.bytes(), length - offset);
  to.from(inside).fill(0);
  return inside == 0 ? ready(IoResult<>{}) : backing_->read(offset, to.slice(0, inside), how);
}

Task<IoResult<>> QedNode::do_read(uint64_t offset, IoSlice to, IoHow how) {
  while (!to.empty()) {
    KITE_CO_ASSIGN(const Extent extent, co_await find_extent(offset, to.bytes()));
    const IoSlice here = to.slice(0, extent.bytes);
    if (extent.kind == Kind::kData) {
      KITE_CO_TRY(debug_event("read_aio"));
      KITE_CO_TRY(co_await file_->read(extent.host, here, how));
    } else if (extent.kind == Kind::kZero) {
      here.fill(0);
    } else {
      KITE_CO_TRY(co_await read_old(offset, here, how));
    }
    to = to.from(extent.bytes);
    offset += extent.bytes;
  }
  co_return IoResult<>{};
}

Task<IoResult<>> QedNode::do_write(uint64_t offset, IoSlice from, IoHow how) {
  const IoHow plain = how.without(IoHow::kFua);
  while (!from.empty()) {
    KITE_CO_ASSIGN(Extent extent, co_await find_extent(offset, from.bytes()));
    if (extent.kind == Kind::kData) {
      KITE_CO_TRY(debug_event("write_aio"));
      KITE_CO_TRY(co_await file_->write(extent.host, from.slice(0, extent.bytes), plain));
    } else {
      const CoMutex::Lock lock = co_await allocating_.lock();
      // Another write may have made the place while this one waited.
      KITE_CO_ASSIGN(const Extent again, co_await find_extent(offset, std::min(extent.bytes, kMaxAllocation)));
      if (again.kind == Kind::kData) continue;
      extent = again;
      KITE_CO_TRY(co_await write_new(offset, from.slice(0, extent.bytes), plain));
    }
    from = from.from(extent.bytes);
    offset += extent.bytes;
  }
  if (how.has(IoHow::kFua)) co_return co_await do_flush(how);
  co_return IoResult<>{};
}

// New clusters at the end of the file, with what was around the data before.
Task<IoResult<>> QedNode::write_new(uint64_t offset, IoSlice from, IoHow how) {
  KITE_CO_TRY(co_await set_need_check(true));
  const uint64_t cluster = header_.cluster;
  const uint64_t start = align_down(offset, cluster);
  const uint64_t end = align_up(offset + from.bytes(), cluster);
  const uint64_t host = file_end_;
  if (!file_->growable() && host + (end - start) > file_->length()) co_return io_fail(ENOSPC);
  std::vector<uint8_t> before(offset - start);
  std::vector<uint8_t> after(end - offset - from.bytes());
  const auto old = [&](uint64_t at, std::vector<uint8_t>& to) -> Task<IoResult<>> {
    return do_read(at, IoSlice(to), how);
  };
  if (!before.empty()) KITE_CO_TRY(co_await old(start, before));
  if (!after.empty()) KITE_CO_TRY(co_await old(offset + from.bytes(), after));
  std::vector<iovec> parts;
  if (!before.empty()) parts.push_back({before.data(), before.size()});
  from.for_parts([&](std::span<uint8_t> part) {
    parts.push_back({part.data(), part.size()});
    return true;
  });
  if (!after.empty()) parts.push_back({after.data(), after.size()});
  file_end_ = host + (end - start);
  KITE_CO_TRY(debug_event("write_aio"));
  KITE_CO_TRY(co_await file_->write(host, IoSlice(parts), how));
  // What was copied from the backing file was durable there: it is, before this image takes its place.
  if (backing_) KITE_CO_TRY(co_await file_->flush());
  co_return co_await link(start, (end - start) / cluster, host, cluster);
}

Task<IoResult<>> QedNode::write_entries(uint64_t table_at, const std::vector<uint64_t>& table, uint64_t from,
                                        uint64_t to) {
  constexpr uint64_t kSectorEntries = 64;
  from = align_down(from, kSectorEntries);
  to = align_up(to, kSectorEntries);
  const std::vector<uint64_t> copy(table.begin() + static_cast<std::ptrdiff_t>(from),
                                   table.begin() + static_cast<std::ptrdiff_t>(to));
  co_return co_await file_->write(table_at + from * 8, IoSlice::of_const(copy.data(), copy.size() * 8));
}

// Entries first_entry, first_entry + step, ... for clusters of one L2 table.
Task<IoResult<>> QedNode::link(uint64_t offset, uint64_t clusters, uint64_t first_entry, uint64_t step) {
  const uint64_t slot = offset / header_.bytes_an_l2();
  const uint64_t index = offset % header_.bytes_an_l2() / header_.cluster;
  if (slot >= l1_.size()) co_return io_fail(EIO);
  const auto fill = [&](std::vector<uint64_t>& table) {
    for (uint64_t i = 0; i < clusters; ++i) table[index + i] = first_entry + i * step;
  };
  if (!debug_event("l2_update")) co_return io_fail(EIO);
  if (l1_[slot] != 0) {
    KITE_CO_ASSIGN(const Table table, co_await load_table(l1_[slot]));
    std::vector<uint64_t> changed = *table;
    fill(changed);
    KITE_CO_TRY(co_await write_entries(l1_[slot], changed, index, index + clusters));
    ++links_;
    if (const auto cached = tables_.find(l1_[slot]); cached != tables_.end()) fill(*cached->second);
    co_return IoResult<>{};
  }
  auto table = std::make_shared<std::vector<uint64_t>>(header_.entries());
  fill(*table);
  const uint64_t place = file_end_;
  if (!file_->growable() && place + header_.table_bytes() > file_->length()) co_return io_fail(ENOSPC);
  file_end_ += header_.table_bytes();
  KITE_CO_TRY(co_await write_entries(place, *table, 0, table->size()));
  KITE_CO_TRY(co_await file_->flush());
  if (!debug_event("l1_update")) co_return io_fail(EIO);
  std::vector<uint64_t> l1 = l1_;
  l1[slot] = place;
  KITE_CO_TRY(co_await write_entries(header_.l1_offset, l1, slot, slot + 1));
  l1_[slot] = place;
  make_room();
  tables_[place] = std::move(table);
  co_return IoResult<>{};
}

Task<IoResult<>> QedNode::do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) {
  const uint64_t end = offset + bytes == header_.size ? align_up(offset + bytes, header_.cluster) : offset + bytes;
  if (!is_aligned(offset | end, header_.cluster)) co_return io_fail(ENOTSUP);
  for (uint64_t at = offset; at < end;) {
    const CoMutex::Lock lock = co_await allocating_.lock();
    KITE_CO_ASSIGN(const Extent extent, co_await find_extent(at, end - at));
    if (extent.kind == Kind::kData) {
      // There is no way to give the clusters back.
      KITE_CO_TRY(co_await file_->write_zeroes(extent.host, extent.bytes, how.without(IoHow::kFua)));
    } else if (extent.kind == Kind::kUnallocated) {
      KITE_CO_TRY(co_await set_need_check(true));
      KITE_CO_TRY(co_await link(at, extent.bytes / header_.cluster, kZeroCluster, 0));
    }
    at += extent.bytes;
  }
  if (how.has(IoHow::kFua)) co_return co_await do_flush(how);
  co_return IoResult<>{};
}

Task<IoResult<>> QedNode::do_flush(IoHow how) {
  if (read_only()) co_return IoResult<>{};
  co_return co_await file_->flush(how);
}

Task<IoResult<BlockStatus>> QedNode::do_block_status(uint64_t offset, uint64_t bytes, bool) {
  KITE_CO_ASSIGN(const Extent extent, co_await find_extent(offset, bytes));
  BlockStatus status{
      .bytes = extent.bytes, .allocated = extent.kind != Kind::kUnallocated, .data = extent.kind == Kind::kData};
  status.zero = extent.kind == Kind::kZero || (!status.allocated && !backing_);
  if (status.data) {
    status.has_offset = true;
    status.offset = extent.host;
    status.file = file_.node().get();
  }
  co_return status;
}

Task<IoResult<>> QedNode::write_header() {
  const std::vector<uint8_t> raw = render_header(header_);
  co_return co_await file_->write(0, IoSlice::of_const(raw.data(), raw.size()));
}

Task<IoResult<>> QedNode::set_need_check(bool needed) {
  if (((header_.features & kNeedCheck) != 0) == needed) co_return IoResult<>{};
  if (!needed) KITE_CO_TRY(co_await file_->flush());
  header_.features ^= kNeedCheck;
  IoResult<> done = co_await write_header();
  if (done) done = co_await file_->flush();
  if (!done) header_.features ^= kNeedCheck;
  co_return done;
}

Task<Result<>> QedNode::make_clean() {
  if (!loaded_ || read_only() || !active()) co_return Result<>{};
  IoResult<> done = co_await file_->flush();
  if (done && !config_.for_check) done = co_await set_need_check(false);
  if (!done) co_return fail("Failed to flush the image: {}", errno_text(done.error().code));
  co_return Result<>{};
}

Task<Result<>> QedNode::do_deactivate() { return make_clean(); }

Task<Result<>> QedNode::do_activate() {
  KITE_CO_TRY(co_await load());
  co_return co_await repair_after_crash();
}

Task<Result<>> QedNode::do_close() {
  Result<> result = co_await make_clean();
  if (Result<> closed = co_await close_use(backing_); !closed && result) result = std::move(closed);
  if (Result<> closed = co_await close_use(file_); !closed && result) result = std::move(closed);
  co_return result;
}

BlockLimits QedNode::limits() const {
  BlockLimits limits = file_->limits();
  limits.opt_transfer = header_.cluster;
  limits.write_zeroes_alignment = header_.cluster;
  return limits;
}

std::vector<NodeEdge> QedNode::children() const {
  std::vector<NodeEdge> edges{{"file", file_.node().get()}};
  if (backing_) edges.push_back({"backing", backing_.node().get()});
  return edges;
}

ImageInfo QedNode::image_info() const {
  ImageInfo info;
  info.cluster_bytes = header_.cluster;
  info.dirty = (header_.features & kNeedCheck) != 0;
  info.backing_filename = header_.backing;
  if ((header_.features & kRawBacking) != 0) info.backing_format = "raw";
  return info;
}

Task<Result<>> QedNode::truncate(uint64_t bytes, Preallocation preallocation) {
  if (preallocation != Preallocation::kOff) co_return fail("Unsupported preallocation mode for QED images");
  if (bytes < header_.size) co_return fail("Shrinking images is currently not supported");
  if (!is_aligned(bytes, 512) || bytes > header_.max_size()) co_return fail("Invalid image size specified");
  const uint64_t old = std::exchange(header_.size, bytes);
  IoResult<> done = co_await write_header();
  if (done) done = co_await file_->flush();
  if (!done) header_.size = old;
  if (!done) co_return fail("Failed to update the image size: {}", errno_text(done.error().code));
  // A longer backing file must not show where the disk grew.
  if (backing_ && backing_->length() > old) {
    const uint64_t end = std::min(backing_->length(), bytes);
    if (done = co_await write_zeroes(old, end - old); !done)
      co_return fail("Failed to clear the new area: {}", errno_text(done.error().code));
  }
  co_return Result<>{};
}

Task<Result<>> QedNode::change_backing_name(std::string filename, std::string format) {
  if (filename.size() > kMaxBackingName) co_return fail("Backing file name too long");
  header_.features &= ~(kHasBacking | kRawBacking);
  if (!filename.empty()) header_.features |= kHasBacking | (format == "raw" ? kRawBacking : 0);
  header_.backing = std::move(filename);
  IoResult<> done = co_await write_header();
  if (done) done = co_await file_->flush();
  if (!done) co_return fail("Failed to update the header: {}", errno_text(done.error().code));
  co_return Result<>{};
}

Task<IoResult<>> QedNode::check_table(uint64_t table_at, Repair repair, const CheckMessage& message,
                                      CheckResult& result, std::vector<bool>& used) {
  KITE_CO_ASSIGN(const Table table, co_await load_table(table_at));
  uint64_t last = 0;
  for (uint64_t index = 0; index < table->size(); ++index) {
    const uint64_t entry = (*table)[index];
    if (entry == 0 || entry == kZeroCluster) continue;
    ++result.allocated_clusters;
    if (last != 0 && entry != last + header_.cluster) ++result.fragmented_clusters;
    last = entry;
    const bool inside = valid_cluster(entry);
    if (inside && !used[entry / header_.cluster]) {
      used[entry / header_.cluster] = true;
      continue;
    }
    message(
        fmt::format("ERROR: the data cluster at {:#x} is {}", entry, inside ? "used twice" : "outside of the image"));
    ++(repair == Repair::kAll ? result.corruptions_fixed : result.corruptions);
    if (repair != Repair::kAll) continue;
    (*table)[index] = 0;
    KITE_CO_TRY(co_await write_entries(table_at, *table, index, index + 1));
  }
  co_return IoResult<>{};
}

Task<Result<CheckResult>> QedNode::check(Repair repair, CheckMessage message) {
  if (repair != Repair::kNone && read_only()) co_return fail("the image is open for reading only");
  const CoMutex::Lock lock = co_await allocating_.lock();
  CheckResult result;
  result.total_clusters = (header_.size + header_.cluster - 1) / header_.cluster;
  constexpr uint64_t kMostClusters = uint64_t{1} << 31;  // a bit each
  if (file_end_ / header_.cluster > kMostClusters) co_return fail("the file is too large to be checked");
  std::vector<bool> used(file_end_ / header_.cluster);
  const auto use_table = [&](uint64_t at) {
    for (uint64_t i = 0; i < header_.table_clusters; ++i) used[at / header_.cluster + i] = true;
  };
  for (uint64_t i = 0; i < std::min<uint64_t>(header_.header_clusters, used.size()); ++i) used[i] = true;
  use_table(header_.l1_offset);
  IoResult<> done;
  for (uint64_t slot = 0; slot < l1_.size() && done; ++slot) {
    const uint64_t table_at = l1_[slot];
    if (table_at == 0) continue;
    if (!valid_table(table_at) || used[table_at / header_.cluster]) {
      message(fmt::format("ERROR: the L2 table at {:#x} (L1 index {}) is {}", table_at, slot,
                          valid_table(table_at) ? "used twice" : "outside of the image"));
      ++(repair == Repair::kAll ? result.corruptions_fixed : result.corruptions);
      if (repair == Repair::kAll) {
        l1_[slot] = 0;
        done = co_await write_entries(header_.l1_offset, l1_, slot, slot + 1);
      }
      continue;
    }
    use_table(table_at);
    done = co_await check_table(table_at, repair, message, result, used);
  }
  for (uint64_t i = 0; i < used.size(); ++i) result.leaks += used[i] ? 0 : 1;
  if (done && repair == Repair::kAll && result.corruptions == 0) done = co_await set_need_check(false);
  if (!done) {
    ++result.check_errors;
    message(fmt::format("the check could not be ended: {}", errno_text(done.error().code)));
  }
  co_return result;
}

}  // namespace kite::block::qed

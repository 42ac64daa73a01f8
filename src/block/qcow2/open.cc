// Options, opening, the header, closing.
#include <algorithm>
#include <bit>
#include <cerrno>

#include "block/qcow2/access.h"
#include "block/qcow2/qcow2_node.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::block::qcow2 {
namespace {

constexpr uint32_t kFileShared = Permissions::kConsistentRead | Permissions::kWriteUnchanged;
constexpr uint32_t kBackingShared = kFileShared | Permissions::kResize;
constexpr size_t kMostKnownTables = size_t{1} << 20;

Permissions file_permissions(bool writes) {
  Permissions permissions{.need = Permissions::kConsistentRead, .shared = kFileShared};
  if (writes) permissions.need |= Permissions::kWrite | Permissions::kResize;
  return permissions;
}

}  // namespace

int Qcow2Node::probe(std::span<const uint8_t> head) {
  return head.size() >= 8 && load_be32(head.data()) == kMagic && load_be32(head.data() + 4) >= 2 ? 100 : 0;
}

Qcow2Node::Qcow2Node(Executor& executor, NodeConfig config)
    : FormatNode(executor, "qcow2", std::move(config)), epoch_(std::make_shared<int>(0)) {}

Qcow2Node::~Qcow2Node() = default;

Task<Result<NodePtr>> Qcow2Node::open(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  std::shared_ptr<Qcow2Node> node(new Qcow2Node(graph.executor(), std::move(config)));
  KITE_CO_ASSIGN(NodePtr below, co_await graph.open_child(options.take_child("file"), node->config_, "file"));
  node->follow_rights(*below);
  const bool backing_given = options.has_child("backing");
  BlockOptions backing_options = options.take_child("backing");
  KITE_CO_TRY(node->take_options(options));
  KITE_CO_ASSIGN(node->file_, NodeUse::claim(std::move(below), fmt::format("node '{}'", node->name()),
                                             file_permissions(!node->read_only())));
  KITE_CO_TRY(co_await node->load());
  KITE_CO_TRY(co_await node->open_backing(graph, std::move(backing_options), backing_given));
  node->loaded_ = true;
  if (node->active()) KITE_CO_TRY(co_await node->recover_dirty());
  co_return NodePtr(std::move(node));
}

Result<> Qcow2Node::take_options(BlockOptions& options) {
  const bool lazy_given = options.has("lazy-refcounts");
  KITE_ASSIGN(const bool lazy, options.take_bool("lazy-refcounts", false));
  if (lazy_given) lazy_option_ = lazy;
  KITE_ASSIGN(pass_discard_request_, options.take_bool("pass-discard-request", config_.discard_unmap));
  KITE_ASSIGN(pass_discard_snapshot_, options.take_bool("pass-discard-snapshot", true));
  KITE_ASSIGN(pass_discard_other_, options.take_bool("pass-discard-other", false));
  const bool all_sizes =
      options.has("cache-size") && options.has("l2-cache-size") && options.has("refcount-cache-size");
  KITE_ASSIGN(const uint64_t total, options.take_size("cache-size", 0));
  const bool has_total = total != 0;
  KITE_ASSIGN(cache_bytes_, options.take_size("l2-cache-size", total != 0 ? total / 2 : cache_bytes_));
  KITE_ASSIGN(refcount_cache_bytes_,
              options.take_size("refcount-cache-size", total != 0 ? total / 2 : refcount_cache_bytes_));
  if (all_sizes) return fail("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
  if (has_total && cache_bytes_ > total) return fail("l2-cache-size may not exceed cache-size");
  if (has_total && refcount_cache_bytes_ > total) return fail("refcount-cache-size may not exceed cache-size");
  // Understood for the sake of command lines written for QEMU. Whole tables are cached, and unused ones are dropped
  // as others come.
  KITE_ASSIGN(l2_entry_size_, options.take_size("l2-cache-entry-size", 0));
  KITE_TRY(options.take_unsigned("cache-clean-interval", 600, 0, ~uint32_t{0}));
  static constexpr std::string_view kOverlap[] = {"none", "constant", "cached", "all"};
  KITE_TRY(options.take_choice("overlap-check", kOverlap, 2));
  KITE_TRY(options.take_choice("overlap-check.template", kOverlap, 2));
  for (const char* part : {"main-header", "active-l1", "active-l2", "refcount-table", "refcount-block",
                           "snapshot-table", "inactive-l1", "inactive-l2", "bitmap-directory"}) {
    KITE_TRY(options.take_bool(std::string("overlap-check.") + part, true));
  }
  if (options.has_child("data-file")) return fail("data-file: Kite does not support external data files yet");
  if (options.has_child("encrypt")) return fail("encrypt: Kite does not support encrypted images yet");
  return options.all_taken("qcow2");
}

Task<Result<>> Qcow2Node::load() {
  free_from_ = compressed_next_ = 0;
  std::vector<uint8_t> head(kHeaderBytesV3);
  const uint64_t available = file_->length();
  head.resize(std::min<uint64_t>(head.size(), available));
  const auto failed = [](int code) { return fail("Could not read qcow2 header: {}", errno_text(code)); };
  if (const auto done = co_await file_->read(0, IoSlice(head.data(), head.size())); !done)
    co_return failed(done.error().code);
  if (head.size() >= 24 && load_be32(head.data()) == kMagic) {
    const uint32_t bits = load_be32(head.data() + 20);
    if (bits >= kMinClusterBits && bits <= kMaxClusterBits) {
      head.resize(std::min(available, uint64_t{1} << bits));
      if (const auto done = co_await file_->read(0, IoSlice(head.data(), head.size())); !done)
        co_return failed(done.error().code);
    }
  }
  KITE_CO_ASSIGN(header_, parse_header(head));
  KITE_CO_TRY(check_header(header_, config_.for_check));
  if ((header_.incompatible & kCorrupt) != 0 && !read_only() && !config_.for_check) {
    co_return fail("qcow2: Image is corrupt; cannot be opened read/write");
  }
  lazy_refcounts_ = lazy_option_.value_or((header_.compatible & kLazyRefcounts) != 0);
  if (lazy_refcounts_ && header_.version < 3) {
    co_return fail("Lazy refcounts require a qcow2 image with at least qcow2 version 3");
  }
  if (l2_entry_size_ != 0 &&
      (!std::has_single_bit(l2_entry_size_) || l2_entry_size_ < 512 || l2_entry_size_ > header_.cluster_bytes())) {
    co_return fail("L2 cache entry size must be a power of two between 512 and the cluster size ({})",
                   header_.cluster_bytes());
  }
  l2_cache_ = std::make_unique<TableCache>(header_.cluster_bytes(), cache_bytes_);
  refcount_cache_ = std::make_unique<TableCache>(header_.cluster_bytes(), refcount_cache_bytes_);
  KITE_CO_TRY(co_await load_tables());
  KITE_CO_TRY(co_await load_snapshots());
  const Result<> known = co_await load_bitmaps();
  if (!known) log::warn("'{}': the bitmaps in the image cannot be used: {}", filename(), known.error().message);
  if (!read_only() && active() && !config_.for_check) KITE_CO_TRY(co_await begin_writing(known.has_value()));
  co_return Result<>{};
}

// [qcow2] autoclear: who does not keep up what such a bit stands for clears it when it writes. Bitmaps are kept up.
Task<Result<>> Qcow2Node::begin_writing(bool bitmaps_known) {
  if (const uint64_t kept = bitmaps_known ? header_.autoclear & kBitmaps : 0; kept != header_.autoclear) {
    if (const auto done = co_await write_autoclear(kept); !done)
      co_return fail("Could not write the qcow2 header: {}", errno_text(done.error().code));
  }
  co_return co_await claim_bitmaps();
}

Task<Result<>> Qcow2Node::load_tables() {
  const auto read_table = [](BlockNode& file, uint64_t offset,
                             uint64_t entries) -> Task<IoResult<std::vector<uint64_t>>> {
    std::vector<uint64_t> table(entries);
    KITE_CO_TRY(co_await file.read(offset, IoSlice(table.data(), entries * 8)));
    for (uint64_t& entry : table) entry = __builtin_bswap64(entry);
    co_return table;
  };
  auto l1 = co_await read_table(*file_, header_.l1_offset, header_.l1_entries);
  if (!l1) co_return fail("Could not read L1 table: {}", errno_text(l1.error().code));
  l1_ = std::move(*l1);
  const uint64_t entries = uint64_t{header_.reftable_clusters} << header_.cluster_bits >> 3;
  auto reftable = co_await read_table(*file_, header_.reftable_offset, entries);
  if (!reftable) co_return fail("Could not read refcount table: {}", errno_text(reftable.error().code));
  reftable_ = std::move(*reftable);
  tables_.clear();
  for (const auto* table : {&l1_, &reftable_}) {
    for (const uint64_t entry : *table) {
      if (const uint64_t offset = entry & kOffsetMask; offset != 0 && tables_.size() < kMostKnownTables)
        tables_.insert(offset);
    }
  }
  co_return Result<>{};
}

Task<Result<>> Qcow2Node::open_backing(BlockGraph& graph, BlockOptions options, bool given) {
  const std::string* reference = options.find("");
  if (given && reference != nullptr && reference->empty() && options.all().size() == 1) co_return Result<>{};
  if (!given && header_.backing_name.empty()) co_return Result<>{};
  Result<NodePtr> node = fail("none");
  if (given && (reference != nullptr || options.has_child("file") || options.has("filename"))) {
    NodeConfig config = config_;
    config.read_only = true;
    node = co_await graph.open_child(std::move(options), config, "backing");
  } else {
    // The header names the file; options may say more about it.
    std::string format = options.take_string("driver", header_.backing_format);
    node = co_await graph.open_backing(header_.backing_name, std::move(format), file_->filename(), config_,
                                       config_.backing_depth + 1, std::move(options));
  }
  if (!node) co_return fail("Could not open backing file: {}", node.error().message);
  co_return set_backing(std::move(*node));
}

Result<> Qcow2Node::set_backing(NodePtr backing) {
  if (backing == nullptr) {
    backing_.reset();
    return {};
  }
  backing_is_known_ = backing->user_count() != 0 || backing->kept();
  KITE_ASSIGN(backing_, NodeUse::claim(std::move(backing), fmt::format("node '{}'", name()),
                                       backing_permissions(user_count() == 0 ? Permissions::kAll : user_shared_)));
  return {};
}

// What a disk in use is the backing file of (a backup's scratch image) bears it to be written where its own users do:
// they see the disk change, or know who sees to it that they do not.
Permissions Qcow2Node::backing_permissions(uint32_t shared) const {
  const uint32_t write = backing_is_known_ ? shared & Permissions::kWrite : 0;
  return {.need = Permissions::kConsistentRead, .shared = kBackingShared | write};
}

Result<> Qcow2Node::set_permissions(uint32_t, uint32_t shared) {
  if (backing_) KITE_TRY(backing_.change(backing_permissions(shared)));
  user_shared_ = shared;
  return {};
}

Task<Result<>> Qcow2Node::recover_dirty() {
  if (read_only() || config_.for_check || (header_.incompatible & kDirty) == 0) co_return Result<>{};
  // [qcow2] dirty bit: the refcounts may be behind; the tables are right.
  size_t said = 0;
  const std::string prefix = fmt::format("'{}': ", filename());
  const auto say = [&said, &prefix](const std::string& line) {
    constexpr size_t kMostLines = 100;
    if (++said <= kMostLines) log::message(prefix, said == kMostLines ? "(there is more)" : line);
  };
  KITE_CO_ASSIGN(const CheckResult result, co_await check(Repair::kAll, say));
  if (result.check_errors != 0 || result.corruptions > result.corruptions_fixed) {
    co_return fail("Could not repair dirty image");
  }
  co_return Result<>{};
}

Task<Result<>> Qcow2Node::write_header() {
  KITE_CO_ASSIGN(const std::vector<uint8_t> raw, render_header(header_));
  if (const auto done = co_await file_->write(0, IoSlice::of_const(raw.data(), raw.size())); !done) {
    co_return fail("Could not write the qcow2 header: {}", errno_text(done.error().code));
  }
  if (const auto done = co_await file_->flush(); !done) {
    co_return fail("Could not write the qcow2 header: {}", errno_text(done.error().code));
  }
  co_return Result<>{};
}

Task<IoResult<>> Qcow2Node::write_pointers(uint64_t at, const uint8_t* fields, size_t bytes) {
  IoResult<> done = co_await file_->write(at, IoSlice::of_const(fields, bytes));
  if (done) done = co_await file_->flush();
  pointers_unknown_ |= !done;
  co_return done;
}

Task<IoResult<>> Qcow2Node::restore_pointers() {
  if (!pointers_unknown_) co_return IoResult<>{};
  uint8_t fields[48];
  store_be64(fields, header_.size);
  store_be32(fields + 8, header_.crypt_method);
  store_be32(fields + 12, header_.l1_entries);
  store_be64(fields + 16, header_.l1_offset);
  store_be64(fields + 24, header_.reftable_offset);
  store_be32(fields + 32, header_.reftable_clusters);
  store_be32(fields + 36, header_.snapshot_count);
  store_be64(fields + 40, header_.snapshots_offset);
  KITE_CO_TRY(co_await write_pointers(24, fields, sizeof fields));
  pointers_unknown_ = false;
  co_return IoResult<>{};
}

Task<IoResult<>> Qcow2Node::write_header_field(uint64_t at, uint64_t value) {
  uint8_t raw[8];
  store_be64(raw, value);
  KITE_CO_TRY(co_await file_->write(at, IoSlice(raw, sizeof raw)));
  co_return co_await file_->flush();
}

Task<IoResult<>> Qcow2Node::set_incompatible(uint64_t set, uint64_t clear) {
  const uint64_t bits = (header_.incompatible | set) & ~clear;
  KITE_CO_TRY(co_await write_header_field(72, bits));
  header_.incompatible = bits;
  co_return IoResult<>{};
}

// The image is damaged. No more is written to it; the bit that says so is set when it is closed.
void Qcow2Node::mark_corrupt(const std::string& why) {
  if (!std::exchange(corrupt_, true)) {
    log::warn("qcow2: Marking image as corrupt: {}; further corruption events will be suppressed", why);
  }
}

// Writes back until nothing is left: what one flush lets go, the next one counts out.
Task<IoResult<>> Qcow2Node::settle() {
  do {
    KITE_CO_TRY(co_await write_back(true, true));
    epoch_ = std::make_shared<int>(0);
    const CoMutex::Lock lock = co_await meta_.lock();
    KITE_CO_TRY(co_await apply_freed());
  } while (!freed_.empty() || !freed_batches_.empty() || !refcount_cache_->dirty_tables().empty());
  if (!copied_stale_) co_return IoResult<>{};
  KITE_CO_TRY(co_await refresh_copied(false));
  co_return co_await write_back(true, true);
}

// Nothing was changed, and nothing waits to be written.
bool Qcow2Node::untouched() const {
  return file_->highest_written() == 0 && (header_.incompatible & kDirty) == 0 && freed_.empty() &&
         freed_batches_.empty() && l1_dirty_from_ == l1_dirty_to_ && reftable_dirty_from_ == reftable_dirty_to_ &&
         l2_cache_->dirty_tables().empty() && refcount_cache_->dirty_tables().empty();
}

Task<Result<>> Qcow2Node::make_clean() {
  if (corrupt_) {
    if (header_.version < 3) co_return Result<>{};
    const IoResult<> marked = co_await set_incompatible(kCorrupt, 0);
    if (!marked) co_return fail("Failed to mark the image as corrupt: {}", errno_text(marked.error().code));
    co_return Result<>{};
  }
  IoResult<> done = co_await settle();
  if (done && (header_.incompatible & kDirty) != 0) done = co_await set_incompatible(0, kDirty);
  if (done) co_return Result<>{};
  const std::string why = errno_text(done.error().code);
  co_return fail("Failed to flush the L2 table cache: {}\nFailed to flush the refcount block cache: {}", why, why);
}

Task<Result<>> Qcow2Node::make_clean_if_used() {
  if (!loaded_ || read_only() || !active()) co_return Result<>{};
  Result<> stored;
  if (!corrupt_ && !config_.for_check) stored = co_await store_bitmaps();
  if (corrupt_ || !untouched()) KITE_CO_TRY(co_await make_clean());
  co_return stored;
}

Task<Result<>> Qcow2Node::do_deactivate() { return make_clean_if_used(); }

Task<Result<>> Qcow2Node::do_activate() {
  KITE_CO_TRY(co_await load());
  co_return co_await recover_dirty();
}

Task<Result<>> Qcow2Node::do_set_read_only(bool read_only) {
  const ExclusiveAccess access = co_await ExclusiveAccess::enter(*this);
  if (read_only) {
    KITE_CO_TRY(co_await make_clean_if_used());
    KITE_CO_TRY(file_.change(file_permissions(false)));
    config_.read_only = true;
    for (const BitmapPtr& bitmap : bitmaps().all()) bitmap->read_only = bitmap->persistent;
    co_return Result<>{};
  }
  if (corrupt_ || (header_.incompatible & kCorrupt) != 0)
    co_return fail("qcow2: Image is corrupt; cannot be opened read/write");
  KITE_CO_TRY(co_await file_->set_read_only(false));
  KITE_CO_TRY(file_.change(file_permissions(true)));
  config_.read_only = false;
  Result<> done = co_await begin_writing((header_.autoclear & kBitmaps) == 0 || bitmap_directory_.count != 0);
  config_.read_only = !done;
  co_return done;
}

Task<Result<>> Qcow2Node::do_close() {
  Result<> result = co_await make_clean_if_used();
  if (Result<> closed = co_await close_use(backing_); !closed && result) result = std::move(closed);
  if (Result<> closed = co_await close_use(file_); !closed && result) result = std::move(closed);
  co_return result;
}

void Qcow2Node::invalidate() {
  l2_cache_->clear_clean();
  refcount_cache_->clear_clean();
  file_->invalidate();
}

BlockLimits Qcow2Node::limits() const {
  BlockLimits limits = file_->limits();
  limits.opt_transfer = header_.cluster_bytes();
  limits.discard_alignment = static_cast<uint32_t>(header_.cluster_bytes());
  limits.write_zeroes_alignment = static_cast<uint32_t>(unit_bytes());
  return limits;
}

std::vector<NodeEdge> Qcow2Node::children() const {
  std::vector<NodeEdge> edges{{"file", file_.node().get()}};
  if (backing_) edges.push_back({"backing", backing_.node().get()});
  return edges;
}

ImageInfo Qcow2Node::image_info() const {
  ImageInfo info;
  info.cluster_bytes = header_.cluster_bytes();
  info.vm_state_offset = vm_state_offset();
  info.dirty = (header_.incompatible & kDirty) != 0;
  info.backing_filename = header_.backing_name;
  if (!header_.backing_name.empty()) info.backing_format = header_.backing_format;
  info.has_format_specific = true;
  const std::string type = header_.compression == Compression::kZlib ? "zlib" : "zstd";
  InfoItems& items = info.format_specific;
  items.emplace_back("compat", std::string(header_.version == 2 ? "0.10" : "1.1"));
  items.emplace_back("compression-type", type);
  if (header_.version >= 3) items.emplace_back("lazy-refcounts", (header_.compatible & kLazyRefcounts) != 0);
  items.emplace_back("refcount-bits", uint64_t{1} << header_.refcount_order);
  if (header_.version >= 3) {
    items.emplace_back("corrupt", (header_.incompatible & kCorrupt) != 0);
    items.emplace_back("extended-l2", header_.extended_l2());
  }
  for (const Snapshot& snapshot : snapshots_) info.snapshots.push_back(snapshot.info);
  for (const StoredBitmap& stored : stored_bitmaps_)
    info.bitmaps.push_back({.name = stored.name,
                            .granularity = uint64_t{1} << stored.granularity_bits,
                            .in_use = stored.in_use(),
                            .enabled = (stored.flags & kBitmapAuto) != 0});
  return info;
}

namespace {

constexpr uint64_t kAtomic = 512;  // bytes that a disk writes whole or not at all

// Where the name in `changed` can lie so that it can be written before the header's first sector, and nothing between
// changes: what `raw`, the header as it would be, has behind its first sector is as it is now, but for the name. 0:
// nowhere.
uint64_t place_for_name(Header now, const Header& changed, const std::vector<uint8_t>& raw) {
  const uint64_t old_from = now.backing_offset, old_to = old_from + now.backing_name.size();
  const auto before = render_header(now);
  const uint64_t natural = raw.size() - changed.backing_name.size();
  if (!before || before->size() - now.backing_name.size() != natural) return 0;
  if (natural > kAtomic &&
      !std::equal(raw.begin() + kAtomic, raw.begin() + static_cast<std::ptrdiff_t>(natural), before->begin() + kAtomic))
    return 0;
  const bool apart = old_from == 0 || align_up(raw.size(), kAtomic) <= old_from;
  const uint64_t place = apart ? natural : align_up(old_to, kAtomic);
  return place + changed.backing_name.size() <= changed.cluster_bytes() ? place : 0;
}

}  // namespace

// The first sector of the header makes the switch: a name is written beside the old one, durably, before it.
Task<Result<>> Qcow2Node::change_backing_name(std::string filename, std::string format) {
  if (filename.size() > kMaxBackingName) co_return fail("Backing file name too long");
  Header changed = header_;
  // Without a name the format means nothing; its extension stays, so that what follows it stays where it is.
  if (!filename.empty() || !format.empty()) changed.backing_format = std::move(format);
  changed.backing_name = std::move(filename);
  KITE_CO_ASSIGN(std::vector<uint8_t> raw, render_header(changed));
  if (const uint64_t place = place_for_name(header_, changed, raw); place != 0 && raw.size() > kAtomic) {
    KITE_CO_ASSIGN(raw, render_header(changed, place));
    const uint64_t from = std::max(place & ~(kAtomic - 1), kAtomic);
    IoResult<> done;
    if (!changed.backing_name.empty()) {
      done = co_await file_->write(from, IoSlice::of_const(raw.data() + from, raw.size() - from));
      if (done) done = co_await file_->flush();
    }
    if (!done) co_return fail("Could not write the qcow2 header: {}", errno_text(done.error().code));
    raw.resize(kAtomic);
  }
  header_ = std::move(changed);
  IoResult<> done = co_await file_->write(0, IoSlice::of_const(raw.data(), raw.size()));
  if (done) done = co_await file_->flush();
  if (!done) co_return fail("Could not write the qcow2 header: {}", errno_text(done.error().code));
  co_return Result<>{};
}

}  // namespace kite::block::qcow2

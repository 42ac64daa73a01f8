// Other options for an existing image.
#include <array>

#include "block/qcow2/access.h"
#include "block/qcow2/qcow2_node.h"
#include "object/object_type.h"

namespace kite::block::qcow2 {

// Version 2 has neither zero clusters nor any feature.
Task<Result<>> Qcow2Node::to_version_2() {
  if (header_.refcount_order != 4) co_return fail("compat=0.10 requires refcount_bits=16");
  if ((header_.incompatible & ~kDirty) != 0) co_return fail("Cannot downgrade an image with incompatible features set");
  for (const Snapshot& snapshot : snapshots_) {
    if (snapshot.info.disk_bytes != header_.size) co_return fail("Internal snapshots prevent downgrade of image");
  }
  if (!snapshots_.empty()) co_return fail("Internal snapshots prevent downgrade of image");
  for (const BitmapPtr& bitmap : bitmaps().all())
    if (bitmap->persistent) co_return fail("Bitmap '{}' prevents downgrade of image; remove it first", bitmap->name());
  // Zero clusters become unallocated ones, or real zeroes over a backing file.
  const uint64_t cluster = header_.cluster_bytes();
  IoResult<> done;
  for (uint64_t at = 0; at < header_.size && done;) {
    const auto extent = co_await find_extent(at, header_.size - at);
    if (!extent) co_return fail("Could not read the L2 tables: {}", errno_text(extent.error().code));
    if (extent->kind == ClusterKind::kZero || extent->kind == ClusterKind::kZeroAllocated) {
      const uint64_t end = (at + extent->bytes + cluster - 1) & ~(cluster - 1);
      if (header_.backing_name.empty()) {
        done = co_await discard_clusters(at, end, true);
      } else {
        const std::vector<uint8_t> zeroes(std::min<uint64_t>(end, header_.size) - at);
        done = co_await write_extents(at, IoSlice::of_const(zeroes.data(), zeroes.size()), {});
      }
    }
    at += extent->bytes;
  }
  if (done) done = co_await write_back(true, true);
  if (done && (header_.incompatible & kDirty) != 0) done = co_await set_incompatible(0, kDirty);
  if (!done) co_return fail("Could not turn zero clusters into others: {}", errno_text(done.error().code));
  header_.version = 2;
  header_.compatible = header_.autoclear = 0;
  header_.feature_names.clear();
  header_.unknown_fields.clear();
  lazy_refcounts_ = false;
  co_return Result<>{};
}

Task<Result<>> Qcow2Node::amend(BlockOptions options) {
  if (read_only()) co_return fail("the image is open for reading only");
  const auto size = options.take("size");
  const auto compat = options.take("compat");
  const auto backing = options.take("backing_file");
  const auto backing_format = options.take("backing_fmt");
  const bool lazy_given = options.has("lazy_refcounts");
  KITE_CO_ASSIGN(const bool lazy, options.take_bool("lazy_refcounts", false));
  // What cannot change may be named with the value it has.
  const std::array<std::pair<const char*, std::string>, 4> fixed{
      {{"cluster_size", std::to_string(header_.cluster_bytes())},
       {"refcount_bits", std::to_string(1u << header_.refcount_order)},
       {"extended_l2", header_.extended_l2() ? "on" : "off"},
       {"compression_type", header_.compression == Compression::kZlib ? "zlib" : "zstd"}}};
  for (const auto& [name, value] : fixed) {
    const auto given = options.take(name);
    const auto number = given ? parse_size(*given) : Result<uint64_t>(0);
    if (given && *given != value && !(number && std::to_string(*number) == value)) {
      co_return fail("Changing the option '{}' of an existing image is not supported", name);
    }
  }
  KITE_CO_TRY(options.all_taken("qcow2"));
  if (compat && *compat != "0.10" && *compat != "v2" && *compat != "1.1" && *compat != "v3") {
    co_return fail("Unknown compatibility level {}", *compat);
  }
  const bool to_v2 = compat && (*compat == "0.10" || *compat == "v2");
  if (lazy && (to_v2 || (header_.version == 2 && !compat))) {
    co_return fail("Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)");
  }
  if (compat && !to_v2) header_.version = 3;
  if (to_v2 && header_.version == 3) KITE_CO_TRY(co_await to_version_2());
  if (lazy_given && header_.version >= 3) {
    if (!lazy && (header_.incompatible & kDirty) != 0) {
      IoResult<> done = co_await write_back(true, true);
      if (done) done = co_await set_incompatible(0, kDirty);
      if (!done) co_return fail("Could not make the image clean: {}", errno_text(done.error().code));
    }
    header_.compatible = lazy ? header_.compatible | kLazyRefcounts : header_.compatible & ~kLazyRefcounts;
    lazy_refcounts_ = lazy;
  }
  if (backing) header_.backing_name = *backing;
  if (backing_format) header_.backing_format = *backing_format;
  if (header_.backing_name.empty()) header_.backing_format.clear();
  if (header_.backing_name.size() > kMaxBackingName) co_return fail("Backing file name too long");
  KITE_CO_TRY(co_await write_header());
  if (size) {
    KITE_CO_ASSIGN(const uint64_t bytes, parse_size(*size));
    co_return co_await truncate(bytes, Preallocation::kOff);
  }
  co_return Result<>{};
}

}  // namespace kite::block::qcow2

#include "block/dirty_bitmap.h"

#include <algorithm>
#include <bit>

namespace kite::block {
namespace {

constexpr uint64_t kBits = 8;  // in a byte

}  // namespace

void DirtyBitmap::mark(uint64_t offset, uint64_t bytes) {
  if (enabled) (successor_ ? *successor_ : chunks_).mark(offset, bytes);
}

void DirtyBitmap::resize(uint64_t length) {
  if (length == chunks_.length()) return;
  chunks_.resize(length);
  if (successor_) successor_->resize(length);
}

void DirtyBitmap::merge(const DirtyChunks& other) {
  other.for_each([this](DirtyChunks::Run run) { chunks_.mark(run.offset, run.bytes); });
}

void DirtyBitmap::forsake() {
  inconsistent = true;
  chunks_.resize(0);
  if (successor_) successor_->resize(0);
}

void DirtyBitmap::let_go() {
  chunks_ = std::move(*successor_);
  successor_.reset();
}

void DirtyBitmap::take_back() {
  merge(*successor_);
  successor_.reset();
}

Result<> DirtyBitmap::may(Need need) const {
  if (busy()) return fail("Bitmap '{}' is currently in use by another operation and cannot be used", name_);
  if (read_only && need != Need::kRead) return fail("Bitmap '{}' is readonly and cannot be modified", name_);
  if (inconsistent && need != Need::kRemove)
    return fail("Bitmap '{}' is inconsistent and cannot be used; block-dirty-bitmap-remove deletes it", name_);
  return {};
}

Result<> BitmapSet::may_add(std::string_view name, uint64_t length, uint64_t granularity) const {
  if (name.empty()) return fail("Bitmap name cannot be empty");
  if (name.size() > DirtyBitmap::kMaxName)
    return fail("Bitmap name is {} bytes long; {} are the most", name.size(), DirtyBitmap::kMaxName);
  if (!std::has_single_bit(granularity) || granularity < DirtyBitmap::kMinGranularity ||
      granularity > DirtyBitmap::kMaxGranularity)
    return fail("Granularity must be power of 2, and at least 512 and at most 2G");
  if (find(name) != nullptr) return fail("Bitmap already exists: {}", name);
  if (bitmaps_.size() >= kMaxBitmaps) return fail("the node has {} bitmaps already, the most", kMaxBitmaps);
  uint64_t bytes = length / granularity / kBits;
  for (const BitmapPtr& bitmap : bitmaps_) bytes += length / bitmap->granularity() / kBits;
  if (bytes > kMaxBytes)
    return fail("the node's bitmaps would take {} MiB; {} are the most: a coarser granularity makes them smaller",
                bytes >> 20, kMaxBytes >> 20);
  return {};
}

BitmapPtr BitmapSet::find(std::string_view name) const {
  const auto at =
      std::ranges::find(bitmaps_, name, [](const BitmapPtr& bitmap) { return std::string_view(bitmap->name()); });
  return at == bitmaps_.end() ? nullptr : *at;
}

void BitmapSet::mark(uint64_t offset, uint64_t bytes, uint64_t length) {
  resize(length);
  for (const BitmapPtr& bitmap : bitmaps_) bitmap->mark(offset, bytes);
}

void BitmapSet::resize(uint64_t length) {
  uint64_t bytes = 0;
  for (const BitmapPtr& bitmap : bitmaps_) {
    if (bitmap->inconsistent) continue;
    bytes += length / bitmap->granularity() / kBits;
    if (bytes > kMaxBytes) {
      bytes -= length / bitmap->granularity() / kBits;
      bitmap->forsake();
    } else {
      bitmap->resize(length);
    }
  }
}

}  // namespace kite::block

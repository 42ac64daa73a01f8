#include "block/qcow2/bitmap_directory.h"

#include <algorithm>
#include <set>

#include "block/dirty_bitmap.h"
#include "support/bits.h"
#include "support/bytes.h"

namespace kite::block::qcow2 {
namespace {

constexpr size_t kExtensionBytes = 24;
constexpr size_t kEntryBytes = 24;

// The entry at the front of `raw`.
Result<StoredBitmap> parse_entry(std::span<const uint8_t> raw, uint64_t cluster_bytes, size_t& bytes) {
  if (raw.size() < kEntryBytes) return fail("the directory ends in an entry");
  StoredBitmap bitmap;
  bitmap.table_offset = load_be64(raw.data());
  bitmap.table_entries = load_be32(raw.data() + 8);
  bitmap.flags = load_be32(raw.data() + 12);
  bitmap.type = raw[16];
  bitmap.granularity_bits = raw[17];
  const size_t name = load_be16(raw.data() + 18);
  const size_t extra = load_be32(raw.data() + 20);
  if (extra > raw.size()) return fail("an entry's extra data is larger than the directory");
  bytes = align_up(kEntryBytes + extra + name, 8);
  if (bytes > raw.size()) return fail("an entry is larger than the directory");
  const auto tail = raw.subspan(kEntryBytes);
  bitmap.extra.assign(tail.begin(), tail.begin() + static_cast<std::ptrdiff_t>(extra));
  bitmap.name.assign(reinterpret_cast<const char*>(tail.data()) + extra, name);
  if (name == 0 || name > DirtyBitmap::kMaxName) return fail("a name of {} bytes", name);
  if ((bitmap.flags & ~(kBitmapInUse | kBitmapAuto | kBitmapExtraCompatible)) != 0)
    return fail("bitmap '{}' has unknown flags ({:#x})", bitmap.name, bitmap.flags);
  if (bitmap.granularity_bits < kMinBitmapGranularityBits || bitmap.granularity_bits > kMaxBitmapGranularityBits)
    return fail("bitmap '{}' has a granularity of 2^{}", bitmap.name, bitmap.granularity_bits);
  if (bitmap.table_entries > kMaxBitmapBytes / cluster_bytes)
    return fail("the table of bitmap '{}' has {} entries", bitmap.name, bitmap.table_entries);
  constexpr uint64_t kLargest = uint64_t{1} << 56;
  if (!is_aligned(bitmap.table_offset, cluster_bytes) || bitmap.table_offset > kLargest ||
      (bitmap.table_offset == 0 && bitmap.table_entries != 0))
    return fail("the table of bitmap '{}' is at {:#x}", bitmap.name, bitmap.table_offset);
  return bitmap;
}

}  // namespace

Result<BitmapDirectory> parse_bitmap_extension(std::span<const uint8_t> data, uint64_t cluster_bytes) {
  if (data.size() != kExtensionBytes) return fail("the extension has {} bytes", data.size());
  const BitmapDirectory directory{
      .count = load_be32(data.data()), .bytes = load_be64(data.data() + 8), .offset = load_be64(data.data() + 16)};
  if (load_be32(data.data() + 4) != 0) return fail("the extension's reserved field is not zero");
  if (directory.count == 0 || directory.count > kMaxStoredBitmaps) return fail("{} bitmaps", directory.count);
  if (directory.bytes > kMaxBitmapDirectoryBytes || directory.bytes < uint64_t{directory.count} * kEntryBytes)
    return fail("a directory of {} bytes for {} bitmaps", directory.bytes, directory.count);
  constexpr uint64_t kLargest = uint64_t{1} << 56;
  if (!is_aligned(directory.offset, cluster_bytes) || directory.offset == 0 || directory.offset > kLargest)
    return fail("the directory is at {:#x}", directory.offset);
  return directory;
}

std::vector<uint8_t> render_bitmap_extension(const BitmapDirectory& directory) {
  std::vector<uint8_t> data(kExtensionBytes);
  store_be32(data.data(), directory.count);
  store_be64(data.data() + 8, directory.bytes);
  store_be64(data.data() + 16, directory.offset);
  return data;
}

Result<std::vector<StoredBitmap>> parse_bitmaps(std::span<const uint8_t> raw, uint32_t count, uint64_t cluster_bytes) {
  std::vector<StoredBitmap> bitmaps;
  std::set<std::string> names;
  while (!raw.empty()) {
    size_t bytes = 0;
    KITE_ASSIGN(StoredBitmap bitmap, parse_entry(raw, cluster_bytes, bytes));
    if (!names.insert(bitmap.name).second) return fail("two bitmaps are called '{}'", bitmap.name);
    bitmaps.push_back(std::move(bitmap));
    raw = raw.subspan(bytes);
  }
  if (bitmaps.size() != count) return fail("{} bitmaps, and {} in the directory", count, bitmaps.size());
  return bitmaps;
}

std::vector<uint8_t> render_bitmaps(std::span<const StoredBitmap> bitmaps) {
  std::vector<uint8_t> out;
  for (const StoredBitmap& bitmap : bitmaps) {
    const size_t at = out.size();
    out.resize(at + align_up(kEntryBytes + bitmap.extra.size() + bitmap.name.size(), 8));
    uint8_t* const raw = out.data() + at;
    store_be64(raw, bitmap.table_offset);
    store_be32(raw + 8, bitmap.table_entries);
    store_be32(raw + 12, bitmap.flags);
    raw[16] = bitmap.type;
    raw[17] = bitmap.granularity_bits;
    store_be16(raw + 18, static_cast<uint16_t>(bitmap.name.size()));
    store_be32(raw + 20, static_cast<uint32_t>(bitmap.extra.size()));
    uint8_t* const tail = std::ranges::copy(bitmap.extra, raw + kEntryBytes).out;
    std::ranges::copy(bitmap.name, tail);
  }
  return out;
}

}  // namespace kite::block::qcow2

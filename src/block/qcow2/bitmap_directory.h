// What a qcow2 image says of the dirty bitmaps that it keeps: [qcow2] "Bitmaps extension", "Bitmaps".
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "support/result.h"

namespace kite::block::qcow2 {

// Bounds that other implementations keep too.
inline constexpr uint32_t kMaxStoredBitmaps = 65535;
inline constexpr uint64_t kMaxBitmapDirectoryBytes = uint64_t{1024} * 65536;
inline constexpr uint64_t kMaxBitmapBytes = uint64_t{512} << 20;  // of one bitmap's bits
inline constexpr unsigned kMinBitmapGranularityBits = 9;
inline constexpr unsigned kMaxBitmapGranularityBits = 31;

// [qcow2] Bitmap directory entry: flags
inline constexpr uint32_t kBitmapInUse = 1u << 0;
inline constexpr uint32_t kBitmapAuto = 1u << 1;
inline constexpr uint32_t kBitmapExtraCompatible = 1u << 2;
inline constexpr uint8_t kDirtyTracking = 1;  // the only type

// [qcow2] Bitmap table entry
inline constexpr uint64_t kBitmapTableReserved = 0xff000000000001fe;
inline constexpr uint64_t kBitmapAllOnes = 1;  // in an entry without an offset

struct BitmapDirectory {
  uint32_t count = 0;
  uint64_t bytes = 0, offset = 0;
};
// The header's extension; its limits are checked.
Result<BitmapDirectory> parse_bitmap_extension(std::span<const uint8_t> data, uint64_t cluster_bytes);
std::vector<uint8_t> render_bitmap_extension(const BitmapDirectory& directory);

struct StoredBitmap {
  std::string name;
  uint64_t table_offset = 0;
  uint32_t table_entries = 0;
  uint32_t flags = 0;
  uint8_t type = kDirtyTracking;
  uint8_t granularity_bits = 16;
  std::vector<uint8_t> extra{};

  [[nodiscard]] bool in_use() const { return (flags & kBitmapInUse) != 0; }
  // Nothing says that it must be left alone.
  [[nodiscard]] bool understood() const {
    return type == kDirtyTracking && (extra.empty() || (flags & kBitmapExtraCompatible) != 0);
  }
};
Result<std::vector<StoredBitmap>> parse_bitmaps(std::span<const uint8_t> raw, uint32_t count, uint64_t cluster_bytes);
std::vector<uint8_t> render_bitmaps(std::span<const StoredBitmap> bitmaps);

}  // namespace kite::block::qcow2

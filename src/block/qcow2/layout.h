// The layout of a qcow2 image. [qcow2] stands for QEMU's docs/interop/qcow2.txt. All numbers in the file are
// big-endian.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "support/bytes.h"
#include "support/result.h"

namespace kite::block::qcow2 {

inline constexpr uint32_t kMagic = 0x514649fb;  // "QFI\xfb"
inline constexpr uint32_t kHeaderBytesV2 = 72;
inline constexpr uint32_t kHeaderBytesV3 = 104;  // the least; 112 with the compression type
inline constexpr unsigned kMinClusterBits = 9;
inline constexpr unsigned kMaxClusterBits = 21;
inline constexpr unsigned kSubclusters = 32;
inline constexpr unsigned kMinExtendedClusterBits = 14;

// Bounds that other implementations keep too: memory an image can make us use.
inline constexpr uint64_t kMaxL1Bytes = 32u << 20;
inline constexpr uint64_t kMaxReftableBytes = 8u << 20;
inline constexpr uint32_t kMaxSnapshots = 65536;
inline constexpr uint64_t kMaxSnapshotTableBytes = uint64_t{1024} * kMaxSnapshots;
inline constexpr uint32_t kMaxSnapshotExtra = 1024;
inline constexpr uint32_t kMaxBackingName = 1023;

// [qcow2] Header: incompatible features
inline constexpr uint64_t kDirty = 1u << 0;
inline constexpr uint64_t kCorrupt = 1u << 1;
inline constexpr uint64_t kDataFile = 1u << 2;
inline constexpr uint64_t kCompressionType = 1u << 3;
inline constexpr uint64_t kExtendedL2 = 1u << 4;
// compatible features
inline constexpr uint64_t kLazyRefcounts = 1u << 0;
// autoclear features
inline constexpr uint64_t kBitmaps = 1u << 0;
inline constexpr uint64_t kRawDataFile = 1u << 1;

enum class Extension : uint32_t {
  kEnd = 0,
  kBackingFormat = 0xe2792aca,
  kFeatureNames = 0x6803f857,
  kBitmaps = 0x23852875,
  kEncryption = 0x0537be77,
  kDataFile = 0x44415441,
};

enum class Compression : uint8_t { kZlib = 0, kZstd = 1 };

// [qcow2] L1 and L2 entries
inline constexpr uint64_t kCopied = uint64_t{1} << 63;
inline constexpr uint64_t kCompressed = uint64_t{1} << 62;
inline constexpr uint64_t kZero = uint64_t{1} << 0;
inline constexpr uint64_t kOffsetMask = 0x00fffffffffffe00;
inline constexpr uint64_t kReftableMask = 0xfffffffffffffe00;
inline constexpr uint64_t kL1Reserved = 0x7f000000000001ff;
inline constexpr uint64_t kL2StandardReserved = 0x3f000000000001fe;

struct UnknownExtension {
  uint32_t type;
  std::vector<uint8_t> data;
};

struct FeatureName {
  uint8_t kind;  // 0 incompatible, 1 compatible, 2 autoclear
  uint8_t bit;
  std::string name;
};

// The header, checked: sizes within bounds, offsets aligned.
struct Header {
  uint32_t version = 3;
  uint64_t backing_offset = 0;
  uint32_t backing_bytes = 0;
  uint32_t cluster_bits = 16;
  uint64_t size = 0;
  uint32_t crypt_method = 0;
  uint32_t l1_entries = 0;
  uint64_t l1_offset = 0;
  uint64_t reftable_offset = 0;
  uint32_t reftable_clusters = 0;
  uint32_t snapshot_count = 0;
  uint64_t snapshots_offset = 0;
  uint64_t incompatible = 0;
  uint64_t compatible = 0;
  uint64_t autoclear = 0;
  uint32_t refcount_order = 4;
  uint32_t header_bytes = 112;
  Compression compression = Compression::kZlib;
  std::string backing_name;
  std::string backing_format;
  std::vector<FeatureName> feature_names;
  std::vector<UnknownExtension> unknown;  // kept as they are
  std::vector<uint8_t> unknown_fields;    // of the header, behind those we know

  [[nodiscard]] uint64_t cluster_bytes() const { return uint64_t{1} << cluster_bits; }
  [[nodiscard]] bool extended_l2() const { return (incompatible & kExtendedL2) != 0; }
  [[nodiscard]] uint64_t l2_entry_bytes() const { return extended_l2() ? 16 : 8; }
  [[nodiscard]] uint64_t l2_entries() const { return cluster_bytes() / l2_entry_bytes(); }
  [[nodiscard]] uint64_t bytes_an_l2() const { return l2_entries() << cluster_bits; }
  // L1 entries that a disk of `bytes` needs.
  [[nodiscard]] uint64_t l1_entries_for(uint64_t bytes) const {
    return bytes / bytes_an_l2() + (bytes % bytes_an_l2() != 0 ? 1 : 0);
  }
};

// `file` is the image's first cluster, or all of a shorter image (at least the header). Names what is wrong.
Result<Header> parse_header(std::span<const uint8_t> first);
// Checks that go beyond the form: features we do not know, limits of the tables.
Result<> check_header(const Header& header, bool for_check);
// The first cluster's content up to the end of the extensions and the backing name; an error when it does not fit.
// `name_at`: the backing file's name lies there, or behind all else where that ends later.
Result<std::vector<uint8_t>> render_header(Header& header, uint64_t name_at = 0);

}  // namespace kite::block::qcow2

#include "block/qcow2/layout.h"

#include <algorithm>
#include <cstring>

#include "support/bits.h"

namespace kite::block::qcow2 {
namespace {

constexpr size_t kFeatureNameBytes = 48;  // kind, bit, 46 bytes of name

Result<> parse_extensions(std::span<const uint8_t> file, size_t at, size_t end, Header& header) {
  while (at + 8 <= end) {
    const uint32_t type = load_be32(file.data() + at);
    const uint32_t length = load_be32(file.data() + at + 4);
    at += 8;
    if (type == static_cast<uint32_t>(Extension::kEnd)) return {};
    if (length > end - at) return fail("Header extension too large");
    const std::span<const uint8_t> data = file.subspan(at, length);
    const std::string text(reinterpret_cast<const char*>(data.data()), data.size());
    switch (static_cast<Extension>(type)) {
      case Extension::kBackingFormat:
        if (length > 15) return fail("ERROR: ext_backing_format: len={} too large (>=16)", length);
        header.backing_format = text;
        break;
      case Extension::kFeatureNames:
        // A later table takes the place of an earlier one; the last name may be cut off.
        header.feature_names.clear();
        for (size_t i = 0; i + 2 < length; i += kFeatureNameBytes) {
          const std::string name = text.substr(i + 2, kFeatureNameBytes - 2);
          header.feature_names.push_back({data[i], data[i + 1], name.substr(0, name.find('\0'))});
        }
        break;
      default: header.unknown.push_back({type, {data.begin(), data.end()}}); break;
    }
    at += align_up(length, 8);
  }
  return {};
}

std::string unknown_features(const Header& header, uint64_t unknown) {
  std::string text;
  const auto add = [&](const std::string& name) { text += (text.empty() ? "" : ", ") + name; };
  for (const FeatureName& feature : header.feature_names) {
    if (feature.kind != 0 || feature.bit > 63 || (unknown >> feature.bit & 1) == 0) continue;
    add(feature.name);
    unknown &= ~(uint64_t{1} << feature.bit);
  }
  if (unknown != 0) add(fmt::format("Unknown incompatible feature: {:x}", unknown));
  return text;
}

// A table of `entries` times `entry_bytes` at an offset: aligned and inside of what an offset can say.
Result<> check_table(uint64_t offset, uint64_t entries, uint64_t entry_bytes, uint64_t max_bytes, uint64_t cluster,
                     const char* name) {
  if (entries > max_bytes / entry_bytes) return fail("{} too large", name);
  constexpr uint64_t kLargest = uint64_t{1} << 62;
  if (!is_aligned(offset, cluster) || offset > kLargest) return fail("{} offset invalid", name);
  return {};
}

}  // namespace

Result<Header> parse_header(std::span<const uint8_t> file) {
  if (file.size() < kHeaderBytesV2) return fail("Could not read qcow2 header");
  const uint8_t* raw = file.data();
  if (load_be32(raw) != kMagic) return fail("Image is not in qcow2 format");
  Header header;
  header.version = load_be32(raw + 4);
  if (header.version < 2 || header.version > 3) return fail("Unsupported qcow2 version {}", header.version);
  header.backing_offset = load_be64(raw + 8);
  header.backing_bytes = load_be32(raw + 16);
  header.cluster_bits = load_be32(raw + 20);
  header.size = load_be64(raw + 24);
  header.crypt_method = load_be32(raw + 32);
  header.l1_entries = load_be32(raw + 36);
  header.l1_offset = load_be64(raw + 40);
  header.reftable_offset = load_be64(raw + 48);
  header.reftable_clusters = load_be32(raw + 56);
  header.snapshot_count = load_be32(raw + 60);
  header.snapshots_offset = load_be64(raw + 64);
  if (header.cluster_bits < kMinClusterBits || header.cluster_bits > kMaxClusterBits) {
    return fail("Unsupported cluster size: 2^{}", header.cluster_bits);
  }
  header.header_bytes = kHeaderBytesV2;
  if (header.version == 3) {
    if (file.size() < kHeaderBytesV3) return fail("qcow2 header too short");
    header.incompatible = load_be64(raw + 72);
    header.compatible = load_be64(raw + 80);
    header.autoclear = load_be64(raw + 88);
    header.refcount_order = load_be32(raw + 96);
    header.header_bytes = load_be32(raw + 100);
    if (header.header_bytes < kHeaderBytesV3) return fail("qcow2 header too short");
  }
  if (header.header_bytes > header.cluster_bytes()) return fail("qcow2 header exceeds cluster size");
  if (header.header_bytes > file.size()) return fail("Could not read unknown qcow2 header fields");
  // [qcow2] byte 104, compression type: there when the header is longer than 104 bytes.
  if (header.header_bytes > kHeaderBytesV3) {
    header.compression = static_cast<Compression>(raw[kHeaderBytesV3]);
    constexpr size_t kKnown = 112;
    if (header.header_bytes > kKnown) header.unknown_fields.assign(raw + kKnown, raw + header.header_bytes);
  }
  if (header.backing_offset > header.cluster_bytes()) return fail("Invalid backing file offset");
  const size_t extensions_end = header.backing_offset != 0 ? header.backing_offset : header.cluster_bytes();
  KITE_TRY(parse_extensions(file, header.header_bytes, std::min(extensions_end, file.size()), header));
  if (header.backing_offset != 0) {
    const uint64_t room = header.cluster_bytes() - header.backing_offset;
    if (header.backing_bytes > std::min<uint64_t>(kMaxBackingName, room)) return fail("Backing file name too long");
    if (header.backing_offset + header.backing_bytes > file.size()) return fail("Could not read backing file name");
    header.backing_name.assign(reinterpret_cast<const char*>(raw) + header.backing_offset, header.backing_bytes);
  }
  return header;
}

Result<> check_header(const Header& header, bool for_check) {
  constexpr uint64_t kKnown = kDirty | kCorrupt | kCompressionType | kExtendedL2;
  if (const uint64_t unknown = header.incompatible & ~(kKnown | kDataFile); unknown != 0) {
    return fail("Unsupported qcow2 feature(s): {}", unknown_features(header, unknown));
  }
  if ((header.incompatible & kDataFile) != 0) {
    return fail("the image keeps its data in an external data file, which Kite does not support yet");
  }
  if (header.crypt_method != 0) {
    return fail("the image is encrypted (method {}), which Kite does not support yet", header.crypt_method);
  }
  const bool other = header.compression != Compression::kZlib;
  if (other != ((header.incompatible & kCompressionType) != 0)) {
    return fail("qcow2: Compression type incompatible feature bit must {}be set", other ? "" : "not ");
  }
  if (header.compression != Compression::kZlib && header.compression != Compression::kZstd) {
    return fail("qcow2: unknown compression type: {}", static_cast<unsigned>(header.compression));
  }
  if (header.extended_l2() && header.cluster_bits < kMinExtendedClusterBits) {
    return fail("Extended L2 entries are only supported with cluster sizes of at least {} bytes",
                1u << kMinExtendedClusterBits);
  }
  if (header.refcount_order > 6) return fail("Reference count entry width too large; may not exceed 64 bits");
  const uint64_t cluster = header.cluster_bytes();
  if (header.reftable_clusters > kMaxReftableBytes >> header.cluster_bits)
    return fail("Image does not contain a reference count table or it is too large");
  if (header.reftable_clusters == 0 && !for_check) return fail("Image does not contain a reference count table");
  KITE_TRY(check_table(header.reftable_offset, uint64_t{header.reftable_clusters} << header.cluster_bits, 1,
                       kMaxReftableBytes, cluster, "Reference count table"));
  if (header.snapshot_count > kMaxSnapshots) return fail("Snapshot table too large");
  if (!is_aligned(header.snapshots_offset, cluster)) return fail("Snapshot table offset invalid");
  KITE_TRY(check_table(header.l1_offset, header.l1_entries, 8, kMaxL1Bytes, cluster, "Active L1 table"));
  constexpr uint64_t kLargest = uint64_t{1} << 61;
  if (header.size > kLargest || header.l1_entries_for(header.size) > kMaxL1Bytes / 8) return fail("Image is too big");
  if (header.l1_entries < header.l1_entries_for(header.size)) return fail("L1 table is too small");
  return {};
}

namespace {

void put_extension(std::vector<uint8_t>& out, uint32_t type, std::span<const uint8_t> data) {
  const size_t at = out.size();
  out.resize(at + 8 + align_up(data.size(), 8));
  store_be32(out.data() + at, type);
  store_be32(out.data() + at + 4, static_cast<uint32_t>(data.size()));
  std::ranges::copy(data, out.begin() + static_cast<std::ptrdiff_t>(at) + 8);
}

std::vector<uint8_t> render_feature_names() {
  struct Named {
    uint8_t kind, bit;
    const char* name;
  };
  static constexpr Named kNames[] = {
      {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
      {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
      {2, 0, "bitmaps"},          {2, 1, "raw external data"}};
  std::vector<uint8_t> table(std::size(kNames) * kFeatureNameBytes);
  size_t at = 0;
  for (const Named& named : kNames) {
    table[at] = named.kind;
    table[at + 1] = named.bit;
    std::memcpy(table.data() + at + 2, named.name, std::strlen(named.name));
    at += kFeatureNameBytes;
  }
  return table;
}

}  // namespace

Result<std::vector<uint8_t>> render_header(Header& header, uint64_t name_at) {
  constexpr uint32_t kKnown = 112;
  header.header_bytes =
      header.version == 2 ? kHeaderBytesV2 : kKnown + static_cast<uint32_t>(header.unknown_fields.size());
  std::vector<uint8_t> out(header.header_bytes);
  if (!header.backing_format.empty()) {
    put_extension(out, static_cast<uint32_t>(Extension::kBackingFormat),
                  {reinterpret_cast<const uint8_t*>(header.backing_format.data()), header.backing_format.size()});
  }
  if (header.version == 3) put_extension(out, static_cast<uint32_t>(Extension::kFeatureNames), render_feature_names());
  for (const UnknownExtension& extension : header.unknown) put_extension(out, extension.type, extension.data);
  put_extension(out, static_cast<uint32_t>(Extension::kEnd), {});
  if (name_at > out.size()) out.resize(name_at);
  header.backing_offset = header.backing_name.empty() ? 0 : out.size();
  header.backing_bytes = static_cast<uint32_t>(header.backing_name.size());
  out.insert(out.end(), header.backing_name.begin(), header.backing_name.end());
  if (out.size() > header.cluster_bytes()) {
    return fail("the header does not fit into one cluster of {} bytes: shorten the backing file's name",
                header.cluster_bytes());
  }
  uint8_t* raw = out.data();
  store_be32(raw, kMagic);
  store_be32(raw + 4, header.version);
  store_be64(raw + 8, header.backing_offset);
  store_be32(raw + 16, header.backing_bytes);
  store_be32(raw + 20, header.cluster_bits);
  store_be64(raw + 24, header.size);
  store_be32(raw + 32, header.crypt_method);
  store_be32(raw + 36, header.l1_entries);
  store_be64(raw + 40, header.l1_offset);
  store_be64(raw + 48, header.reftable_offset);
  store_be32(raw + 56, header.reftable_clusters);
  store_be32(raw + 60, header.snapshot_count);
  store_be64(raw + 64, header.snapshots_offset);
  if (header.version == 3) {
    store_be64(raw + 72, header.incompatible);
    store_be64(raw + 80, header.compatible);
    store_be64(raw + 88, header.autoclear);
    store_be32(raw + 96, header.refcount_order);
    store_be32(raw + 100, header.header_bytes);
    raw[kHeaderBytesV3] = static_cast<uint8_t>(header.compression);
    std::ranges::copy(header.unknown_fields, out.begin() + kKnown);
  }
  return out;
}

}  // namespace kite::block::qcow2

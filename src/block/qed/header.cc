// The header, new images.
#include <algorithm>
#include <array>
#include <bit>

#include "block/qed/qed_node.h"
#include "support/bits.h"
#include "support/bytes.h"

namespace kite::block::qed {

Result<Header> parse_header(std::span<const uint8_t> raw) {
  if (raw.size() < kHeaderBytes || load<uint32_t>(raw.data()) != kMagic) return fail("Image not in QED format");
  Header header;
  header.cluster = load<uint32_t>(raw.data() + 4);
  header.table_clusters = load<uint32_t>(raw.data() + 8);
  header.header_clusters = load<uint32_t>(raw.data() + 12);
  header.features = load<uint64_t>(raw.data() + 16);
  header.compatible = load<uint64_t>(raw.data() + 24);
  header.autoclear = load<uint64_t>(raw.data() + 32);
  header.l1_offset = load<uint64_t>(raw.data() + 40);
  header.size = load<uint64_t>(raw.data() + 48);
  if (const uint64_t unknown = header.features & ~(kHasBacking | kNeedCheck | kRawBacking); unknown != 0) {
    return fail("Unsupported QED features: {:x}", unknown);
  }
  if (!std::has_single_bit(header.cluster) || header.cluster < kMinCluster || header.cluster > kMaxCluster) {
    return fail("QED cluster size is invalid");
  }
  if (!std::has_single_bit(header.table_clusters) || header.table_clusters > kMaxTableClusters) {
    return fail("QED table size is invalid");
  }
  constexpr uint64_t kLargestTable = uint64_t{256} << 20;
  if (header.table_bytes() > kLargestTable) {
    return fail("the QED image has tables of {} bytes each: more than {} are not supported", header.table_bytes(),
                kLargestTable);
  }
  if (header.header_clusters == 0) return fail("the QED image has no header");
  if (header.size > header.max_size() || header.size > uint64_t{1} << 62 || !is_aligned(header.size, 512)) {
    return fail("QED image size is invalid");
  }
  if (!is_aligned(header.l1_offset, header.cluster) || header.l1_offset == 0)
    return fail("QED table offset is invalid");
  if ((header.features & kHasBacking) != 0) {
    const uint64_t at = load<uint32_t>(raw.data() + 56);
    const uint64_t bytes = load<uint32_t>(raw.data() + 60);
    if (bytes > kMaxBackingName || at + bytes > raw.size() ||
        at + bytes > uint64_t{header.header_clusters} * header.cluster) {
      return fail("the QED image's backing file name is too long or outside of the header");
    }
    header.backing.assign(reinterpret_cast<const char*>(raw.data()) + at, bytes);
  }
  return header;
}

std::vector<uint8_t> render_header(const Header& header) {
  std::vector<uint8_t> raw(kHeaderBytes + header.backing.size());
  store(raw.data(), kMagic);
  store(raw.data() + 4, header.cluster);
  store(raw.data() + 8, header.table_clusters);
  store(raw.data() + 12, header.header_clusters);
  store(raw.data() + 16, header.features);
  store(raw.data() + 24, header.compatible);
  store(raw.data() + 32, header.autoclear);
  store(raw.data() + 40, header.l1_offset);
  store(raw.data() + 48, header.size);
  store(raw.data() + 56, static_cast<uint32_t>(header.backing.empty() ? 0 : kHeaderBytes));
  store(raw.data() + 60, static_cast<uint32_t>(header.backing.size()));
  std::ranges::copy(header.backing, raw.begin() + kHeaderBytes);
  return raw;
}

namespace {

constexpr auto kOptions = std::to_array<CreateOption>({
    {"backing_file", "str", "File name of a base image"},
    {"backing_fmt", "str", "Image format of the base image"},
    {"cluster_size", "size", "Cluster size (in bytes)"},
    {"size", "size", "Virtual disk size"},
    {"table_size", "size", "L1/L2 table size (in clusters)"},
});

Result<Header> take_header(BlockOptions options) {
  Header header;
  KITE_ASSIGN(const uint64_t cluster, options.take_size("cluster_size", 65536));
  KITE_ASSIGN(const uint64_t table, options.take_size("table_size", 4));
  for (const char* done : {"size", "backing_file", "backing_fmt"}) options.take(done);
  KITE_TRY(options.all_taken("qed"));
  if (!std::has_single_bit(cluster) || cluster < kMinCluster || cluster > kMaxCluster) {
    return fail("QED cluster size must be within range [{}, {}] and power of 2", kMinCluster, kMaxCluster);
  }
  if (!std::has_single_bit(table) || table > kMaxTableClusters) {
    return fail("QED table size must be within range [1, {}] and power of 2", kMaxTableClusters);
  }
  header.cluster = static_cast<uint32_t>(cluster);
  header.table_clusters = static_cast<uint32_t>(table);
  header.l1_offset = cluster;
  return header;
}

}  // namespace

std::span<const CreateOption> create_options() { return kOptions; }

Task<Result<>> create(BlockGraph&, NodePtr file, CreateRequest request) {
  KITE_CO_ASSIGN(Header header, take_header(std::move(request.options)));
  header.size = align_up(request.bytes, 512);
  if (header.size > header.max_size()) {
    co_return fail("QED image size must be a non-zero multiple of cluster size and less than {} bytes",
                   header.max_size());
  }
  if (request.backing_filename.size() > kMaxBackingName) co_return fail("Backing file name too long");
  if (!request.backing_filename.empty()) {
    header.features |= kHasBacking | (request.backing_format == "raw" ? kRawBacking : 0);
    header.backing = request.backing_filename;
  }
  const std::vector<uint8_t> raw = render_header(header);
  const std::vector<uint8_t> l1(header.table_bytes());
  IoResult<> done = co_await file->write(0, IoSlice::of_const(raw.data(), raw.size()));
  if (done) done = co_await file->write(header.l1_offset, IoSlice::of_const(l1.data(), l1.size()));
  if (done) done = co_await file->flush();
  if (!done) co_return fail("Could not write the QED header: {}", errno_text(done.error().code));
  co_return Result<>{};
}

Result<uint64_t> cluster_bytes_of(BlockOptions options) {
  KITE_ASSIGN(const Header header, take_header(std::move(options)));
  return header.cluster;
}

Result<Measure> measure(uint64_t bytes, uint64_t data_bytes, BlockOptions options) {
  KITE_ASSIGN(const Header header, take_header(std::move(options)));
  const uint64_t tables = (bytes + header.bytes_an_l2() - 1) / header.bytes_an_l2();
  const uint64_t metadata = header.cluster + (tables + 1) * header.table_bytes();
  return Measure{.required = metadata + align_up(data_bytes, header.cluster),
                 .fully_allocated = metadata + align_up(bytes, header.cluster)};
}

}  // namespace kite::block::qed

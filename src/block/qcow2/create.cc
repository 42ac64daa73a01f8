#include "block/qcow2/create.h"

#include <algorithm>
#include <array>
#include <bit>

#include "block/qcow2/qcow2_node.h"
#include "support/bits.h"

namespace kite::block::qcow2 {
namespace {

struct Settings {
  Header header;
  Preallocation preallocation = Preallocation::kOff;
};

Result<Header> take_header(BlockOptions& options) {
  Header header;
  static constexpr std::array<std::string_view, 4> kCompat{"1.1", "v3", "0.10", "v2"};
  const auto compat_text = options.take("compat");
  if (compat_text) {
    const auto found = std::ranges::find(kCompat, std::string_view(*compat_text));
    if (found == kCompat.end()) return fail("Invalid parameter '{}'", *compat_text);
    header.version = found - kCompat.begin() < 2 ? 3 : 2;
  }
  KITE_ASSIGN(const bool extended, options.take_bool("extended_l2", false));
  KITE_ASSIGN(const uint64_t cluster, options.take_size("cluster_size", 65536));
  if (!std::has_single_bit(cluster) || cluster < 1u << kMinClusterBits || cluster > 1u << kMaxClusterBits) {
    return fail("Cluster size must be a power of two between {} and {}k", 1 << kMinClusterBits,
                1 << (kMaxClusterBits - 10));
  }
  header.cluster_bits = static_cast<uint32_t>(std::countr_zero(cluster));
  if (extended) {
    if (header.version < 3)
      return fail(
          "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)");
    if (header.cluster_bits < kMinExtendedClusterBits) {
      return fail("Extended L2 entries are only supported with cluster sizes of at least {} bytes",
                  1u << kMinExtendedClusterBits);
    }
    header.incompatible |= kExtendedL2;
  }
  KITE_ASSIGN(const bool lazy, options.take_bool("lazy_refcounts", false));
  if (lazy && header.version < 3)
    return fail("Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)");
  if (lazy) header.compatible |= kLazyRefcounts;
  KITE_ASSIGN(const uint64_t bits, options.take_unsigned("refcount_bits", 16, 0, ~uint64_t{0}));
  if (bits > 64 || !std::has_single_bit(bits))
    return fail("Refcount width must be a power of two and may not exceed 64 bits");
  if (bits != 16 && header.version < 3)
    return fail(
        "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)");
  header.refcount_order = static_cast<uint32_t>(std::countr_zero(bits));
  static constexpr std::array<std::string_view, 2> kTypes{"zlib", "zstd"};
  KITE_ASSIGN(const size_t type, options.take_choice("compression_type", kTypes, 0));
  if (type != 0) {
    if (header.version < 3)
      return fail(
          "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or "
          "greater)");
    header.compression = Compression::kZstd;
    header.incompatible |= kCompressionType;
  }
  for (const char* refused : {"encryption", "encrypt.format", "data_file", "data_file_raw"}) {
    const auto given = options.take(refused);
    if (given && *given != "off") return fail("Kite does not support the option '{}' of qcow2 images yet", refused);
  }
  options.take("nocow");
  return header;
}

Result<Settings> take_settings(BlockOptions options) {
  Settings settings;
  KITE_ASSIGN(settings.header, take_header(options));
  KITE_ASSIGN(settings.preallocation, parse_preallocation(options.take_string("preallocation", "off")));
  for (const char* done : {"size", "backing_file", "backing_fmt"}) options.take(done);
  KITE_TRY(options.all_taken("qcow2"));
  return settings;
}

// Header, a refcount table of one cluster and its first block; the L1 table comes when the image gets its size.
Task<Result<>> write_skeleton(BlockNode& file, Header& header) {
  const uint64_t cluster = header.cluster_bytes();
  header.reftable_offset = cluster;
  header.reftable_clusters = 1;
  KITE_CO_ASSIGN(const std::vector<uint8_t> raw, render_header(header));
  std::vector<uint8_t> image(3 * cluster);
  std::ranges::copy(raw, image.begin());
  store_be64(image.data() + cluster, 2 * cluster);
  uint8_t* block = image.data() + 2 * cluster;
  for (unsigned i = 0; i < 3; ++i) {
    const unsigned order = header.refcount_order;
    if (order < 3) {
      block[i >> (3 - order)] = static_cast<uint8_t>(block[i >> (3 - order)] | 1u << ((i << order) & 7));
    } else {
      block[((i + 1) << (order - 3)) - 1] = 1;
    }
  }
  if (const auto done = co_await file.write(0, IoSlice(image)); !done) {
    co_return fail("Could not write qcow2 header: {}", errno_text(done.error().code));
  }
  co_return Result<>{};
}

constexpr auto kOptions = std::to_array<CreateOption>({
    {"backing_file", "str", "File name of a base image"},
    {"backing_fmt", "str", "Image format of the base image"},
    {"cluster_size", "size", "qcow2 cluster size"},
    {"compat", "str", "Compatibility level (v2 [0.10] or v3 [1.1])"},
    {"compression_type", "str", "Compression method used for image cluster compression"},
    {"extended_l2", "bool (on/off)", "Extended L2 tables"},
    {"lazy_refcounts", "bool (on/off)", "Postpone refcount updates"},
    {"preallocation", "str", "Preallocation mode (allowed values: off, metadata, falloc, full)"},
    {"refcount_bits", "num", "Width of a reference count entry in bits"},
    {"size", "size", "Virtual disk size"},
});

}  // namespace

std::span<const CreateOption> create_options() { return kOptions; }

Task<Result<>> create(BlockGraph& graph, NodePtr file, CreateRequest request) {
  KITE_CO_ASSIGN(Settings settings, take_settings(std::move(request.options)));
  if (!request.backing_filename.empty() && settings.preallocation != Preallocation::kOff &&
      !settings.header.extended_l2()) {
    co_return fail("Backing file and preallocation can only be used at the same time if extended_l2 is enabled");
  }
  if (request.backing_filename.size() > kMaxBackingName) co_return fail("Backing file name too long");
  if (settings.header.l1_entries_for(request.bytes) > kMaxL1Bytes / 8) {
    co_return fail("The image size is too large for file format 'qcow2' (try using a larger cluster size)");
  }
  constexpr uint64_t kSector = 512;
  settings.header.backing_name = request.backing_filename;
  settings.header.backing_format = request.backing_format;
  KITE_CO_TRY(co_await write_skeleton(*file, settings.header));
  file->set_kept(true);
  BlockOptions options;
  options.set("driver", "qcow2");
  options.set("file", file->name());
  options.set("backing", "");
  KITE_CO_ASSIGN(const NodePtr node, co_await graph.open(std::move(options)));
  const Result<> sized = co_await node->truncate(align_up(request.bytes, kSector), settings.preallocation);
  const Result<> closed = co_await node->close();
  co_return !sized ? sized : closed;
}

Result<uint64_t> cluster_bytes_of(BlockOptions options) {
  KITE_ASSIGN(const Settings settings, take_settings(std::move(options)));
  return settings.header.cluster_bytes();
}

// The space of a fully allocated image: data, L1 and L2 tables, and refcounts that count themselves too.
Result<Measure> measure(uint64_t bytes, uint64_t data_bytes, BlockOptions options) {
  KITE_ASSIGN(const Settings settings, take_settings(std::move(options)));
  const Header& header = settings.header;
  const uint64_t cluster = header.cluster_bytes();
  if (header.l1_entries_for(bytes) > kMaxL1Bytes / 8) {
    return fail("The image size is too large (try using a larger cluster size)");
  }
  const auto clusters = [&](uint64_t size) { return (size + cluster - 1) >> header.cluster_bits; };
  const uint64_t tables = clusters(clusters(bytes) * header.l2_entry_bytes());
  const uint64_t l1 = clusters(tables * 8);
  const uint64_t fixed = 1 + l1 + tables;
  const uint64_t a_block = cluster * 8 >> header.refcount_order;
  const uint64_t used = fixed + clusters(bytes);
  uint64_t blocks = 0;
  uint64_t table = 0;
  for (uint64_t before = ~uint64_t{0}; before != blocks + table;) {
    before = blocks + table;
    blocks = (used + blocks + table + a_block - 1) / a_block;
    table = clusters(blocks * 8);
  }
  Measure measure;
  const uint64_t metadata = (fixed + blocks + table) << header.cluster_bits;
  measure.fully_allocated = metadata + (clusters(bytes) << header.cluster_bits);
  const bool all = settings.preallocation == Preallocation::kFull || settings.preallocation == Preallocation::kFalloc;
  measure.required = metadata + (all ? clusters(bytes) << header.cluster_bits : align_up(data_bytes, cluster));
  return measure;
}

}  // namespace kite::block::qcow2

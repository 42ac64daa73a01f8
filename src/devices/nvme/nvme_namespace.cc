#include "devices/nvme/nvme_namespace.h"

#include <algorithm>
#include <bit>

#include "devices/section.h"
#include "support/bytes.h"

namespace kite::devices {
namespace {

struct NvmeNamespaceV1 {
  static constexpr uint32_t kVersion = 1;
  uint8_t format;
};
template <class Codec>
void visit(Codec& codec, NvmeNamespaceV1& wire) {
  codec.field(1, wire.format);
}

// Offsets into the namespace data structure.
enum Field : uint16_t {
  kNsze = 0,
  kNcap = 8,
  kNuse = 16,
  kNsfeat = 24,
  kNlbaf = 25,
  kFlbas = 26,
  kDlfeat = 33,
  kNpwg = 64,
  kNpwa = 66,
  kNpdg = 68,
  kNpda = 70,
  kNows = 72,
  kNsattr = 99,
  kEui64 = 120,
  kLbaf0 = 128,
};
constexpr uint8_t kFeatThin = 1u << 0, kFeatOptimalSizes = 1u << 4;
// Blocks that were deallocated read as zeroes; WRITE ZEROES may deallocate.
constexpr uint8_t kReadsZeroes = 1, kZeroesDeallocate = 1u << 3;
constexpr uint8_t kAttributeWriteProtected = 1u << 0;
constexpr uint8_t kDescriptorEui64 = 1, kDescriptorUuid = 3;

}  // namespace

uint64_t make_eui64(std::string_view serial, uint32_t nsid) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto mix = [&hash](uint8_t byte) { hash = (hash ^ byte) * 0x100000001b3; };
  for (const char c : serial) mix(static_cast<uint8_t>(c));
  for (unsigned shift = 0; shift < 32; shift += 8) mix(static_cast<uint8_t>(nsid >> shift));
  return uint64_t{0x525400} << 40 | (hash & 0xff'ffff'ffff);  // locally administered
}

Result<std::unique_ptr<NvmeNamespace>> NvmeNamespace::create(std::string_view what, std::string path,
                                                             const DiskConfig& disk, const Identity& identity) {
  if (disk.drive == nullptr)
    return fail("-device {}: a namespace needs drive=, the id of a -drive if=none or a node's name", what);
  if (!disk.drive->has_medium())
    return fail("-device {}: drive '{}' has no medium, and a namespace cannot be without", what, disk.drive->id());
  if (disk.logical_block_bytes != 512 && disk.logical_block_bytes != 4096)
    return fail("-device {}: logical_block_size={}: namespaces have blocks of 512 or 4096 bytes", what,
                disk.logical_block_bytes);
  const unsigned format = disk.logical_block_bytes == 512 ? 0 : 1;
  return std::unique_ptr<NvmeNamespace>(new NvmeNamespace(std::move(path), disk, identity, format));
}

NvmeNamespace::NvmeNamespace(std::string path, const DiskConfig& disk, const Identity& identity, unsigned format)
    : Device(std::move(path)), disk_(disk), identity_(identity), format_(static_cast<uint8_t>(format)) {}

void NvmeNamespace::identify(std::array<uint8_t, 4096>& data) const {
  data.fill(0);
  const unsigned shift = block_shift();
  for (const Field field : {kNsze, kNcap, kNuse}) store(&data[field], blocks());
  data[kNsfeat] = kFeatThin | kFeatOptimalSizes;
  data[kNlbaf] = kFormats - 1;
  data[kFlbas] = static_cast<uint8_t>(format());
  data[kDlfeat] = kReadsZeroes | kZeroesDeallocate;
  // Sizes in blocks, less one.
  const auto in_blocks = [shift](uint64_t bytes) {
    return static_cast<uint16_t>(std::clamp<uint64_t>(bytes >> shift, 1, 65536) - 1);
  };
  const uint16_t write = in_blocks(std::max(disk_.physical_block_bytes, disk_.min_io_bytes));
  const uint64_t granularity = disk_.discard_granularity > 0 ? static_cast<uint64_t>(disk_.discard_granularity)
                                                             : drive().limits().discard_alignment;
  store(&data[kNpwg], write);
  store(&data[kNpwa], write);
  store(&data[kNpdg], in_blocks(granularity));
  store(&data[kNpda], in_blocks(granularity));
  store(&data[kNows], disk_.opt_io_bytes != 0 ? in_blocks(disk_.opt_io_bytes) : write);
  if (drive().read_only()) data[kNsattr] = kAttributeWriteProtected;
  store_be64(&data[kEui64], identity_.eui64);
  for (unsigned i = 0; i < kFormats; ++i) data[kLbaf0 + 4 * i + 2] = static_cast<uint8_t>(shift_of(i));
}

void NvmeNamespace::describe(std::array<uint8_t, 4096>& data) const {
  data.fill(0);
  size_t at = 0;
  if (identity_.eui64 != 0) {
    data[at] = kDescriptorEui64;
    data[at + 1] = 8;
    store_be64(&data[at + 4], identity_.eui64);
    at += 4 + 8;
  }
  if (std::ranges::any_of(identity_.uuid, [](uint8_t byte) { return byte != 0; })) {
    data[at] = kDescriptorUuid;
    data[at + 1] = 16;
    std::ranges::copy(identity_.uuid, data.begin() + static_cast<std::ptrdiff_t>(at + 4));
  }
}

void NvmeNamespace::save(StateWriter& writer) {
  save_section(writer, path(), NvmeNamespaceV1{.format = static_cast<uint8_t>(format())});
}

void NvmeNamespace::restore(StateReader& reader) {
  NvmeNamespaceV1 wire{};
  if (!restore_section(reader, path(), wire,
                       [&] { require(reader, wire.format < kFormats, "a namespace format that does not exist"); }))
    return;
  set_format(wire.format);
}

}  // namespace kite::devices

#include "machine/moved_bitmaps.h"

#include <algorithm>
#include <bit>
#include <cctype>

#include "block/bitmap_requests.h"
#include "devices/section.h"
#include "support/log.h"

namespace kite::machine {

using block::BitmapPtr;
using block::BlockGraph;
using block::DirtyBitmap;
using block::DirtyChunks;
using block::NodePtr;

namespace {

constexpr size_t kByteBits = 8;
constexpr uint32_t kMostBitmaps = 65536;  // of a machine

struct ListV1 {
  static constexpr uint32_t kVersion = 1;
  uint32_t count = 0;
};
template <class Codec>
void visit(Codec& codec, ListV1& wire) {
  auto& [count] = wire;
  codec.field(1, count);
}

struct BitmapV1 {
  static constexpr uint32_t kVersion = 1;
  std::vector<uint8_t> node, name;
  uint64_t length = 0, granularity = 0;  // bytes
  bool enabled = false, persistent = false;
  std::vector<uint8_t> bits;
};
template <class Codec>
void visit(Codec& codec, BitmapV1& wire) {
  auto& [node, name, length, granularity, enabled, persistent, bits] = wire;
  codec.field(1, node);
  codec.field(2, name);
  codec.field(3, length);
  codec.field(4, granularity);
  codec.field(5, enabled);
  codec.field(6, persistent);
  codec.field(7, bits);
}

constexpr std::string_view kList = "block-bitmaps", kBitmap = "block-bitmap";

std::vector<uint8_t> bytes_of(std::string_view text) { return {text.begin(), text.end()}; }
std::string text_of(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }
// A stream's text, fit for a log.
std::string printable(const std::vector<uint8_t>& bytes) {
  std::string text = text_of(bytes).substr(0, DirtyBitmap::kMaxName);
  std::ranges::replace_if(text, [](unsigned char c) { return std::isprint(c) == 0; }, '?');
  return text;
}

std::vector<uint8_t> bits_of(const DirtyChunks& chunks) {
  std::vector<uint8_t> bits((chunks.chunks() + kByteBits - 1) / kByteBits);
  for (size_t i = 0; i < chunks.chunks(); ++i)
    if (chunks.test(i)) bits[i / kByteBits] |= static_cast<uint8_t>(1u << i % kByteBits);
  return bits;
}

DirtyChunks chunks_of(const BitmapV1& wire) {
  DirtyChunks chunks(wire.length, wire.granularity);
  for (size_t i = 0; i < chunks.chunks(); ++i)
    if ((wire.bits[i / kByteBits] >> i % kByteBits & 1) != 0) chunks.mark(i * wire.granularity, 1);
  return chunks;
}

Result<BitmapV1> pack_one(const DirtyBitmap& bitmap, std::string_view node, std::string_view name) {
  if (const auto may = bitmap.may(DirtyBitmap::Need::kRead); !may) return Failure(may.error());
  if (bitmap.chunks().chunks() / kByteBits > kMaxStateBytes)
    return fail("bitmap '{}' is too large to move: a coarser granularity makes it smaller", bitmap.name());
  return BitmapV1{.node = bytes_of(node),
                  .name = bytes_of(name),
                  .length = bitmap.chunks().length(),
                  .granularity = bitmap.granularity(),
                  .enabled = bitmap.enabled,
                  .persistent = bitmap.persistent,
                  .bits = bits_of(bitmap.chunks())};
}

Result<std::vector<BitmapV1>> pack_all(const BlockGraph& graph) {
  std::vector<BitmapV1> packed;
  for (const NodePtr& node : graph.nodes()) {
    for (const BitmapPtr& bitmap : node->bitmaps().all()) {
      if (bitmap->inconsistent) continue;
      // [QAPI] a node without a name of a person's is nothing that the other end could know.
      if (node->name().starts_with('#'))
        return fail("the node of bitmap '{}' has no name under which it could move; block-bitmap-mapping gives it one",
                    bitmap->name());
      KITE_ASSIGN(BitmapV1 wire, pack_one(*bitmap, node->name(), bitmap->name()));
      packed.push_back(std::move(wire));
    }
  }
  return packed;
}

Result<std::vector<BitmapV1>> pack_named(const BlockGraph& graph, const BitmapMapping& mapping) {
  std::vector<BitmapV1> packed;
  for (const BitmapMapping::Node& named : mapping.nodes) {
    const NodePtr node = graph.find(named.name);
    for (const BitmapMapping::Bitmap& each : named.bitmaps) {
      // A mapping may name more than there is.
      const BitmapPtr bitmap = node == nullptr ? nullptr : node->bitmaps().find(each.name);
      if (bitmap == nullptr) continue;
      KITE_ASSIGN(BitmapV1 wire, pack_one(*bitmap, named.alias, each.alias));
      packed.push_back(std::move(wire));
    }
  }
  return packed;
}

// What the names of a stream are here.
struct Place {
  std::string node, name;
  std::optional<bool> persistent;
};
std::optional<Place> place_of(const BitmapV1& wire, const std::optional<BitmapMapping>& mapping) {
  const std::string node = text_of(wire.node), name = text_of(wire.name);
  if (!mapping) return Place{.node = node, .name = name, .persistent = {}};
  const auto at = std::ranges::find(mapping->nodes, node, &BitmapMapping::Node::alias);
  if (at == mapping->nodes.end()) return std::nullopt;
  const auto bitmap = std::ranges::find(at->bitmaps, name, &BitmapMapping::Bitmap::alias);
  if (bitmap == at->bitmaps.end()) return std::nullopt;
  return Place{.node = at->name, .name = bitmap->name, .persistent = bitmap->persistent};
}

void judge(StateReader& reader, const BitmapV1& wire) {
  using devices::require;
  const bool granularity = std::has_single_bit(wire.granularity) && wire.granularity >= DirtyBitmap::kMinGranularity &&
                           wire.granularity <= DirtyBitmap::kMaxGranularity;
  if (!require(reader, granularity, "its granularity is impossible")) return;
  const uint64_t chunks = wire.length / wire.granularity + (wire.length % wire.granularity != 0 ? 1 : 0);
  require(reader, wire.bits.size() == (chunks + kByteBits - 1) / kByteBits, "its bits are too few or too many");
}

// One that is there already (from an image that both ends have) gets what has come.
Result<> place_one(const BlockGraph& graph, const BitmapV1& wire, const Place& place) {
  const NodePtr node = graph.find(place.node);
  if (node == nullptr) return fail("there is no node '{}'", place.node);
  if (node->length() != wire.length)
    return fail("the node '{}' has {} bytes here, and {} there", place.node, node->length(), wire.length);
  const bool persistent = place.persistent.value_or(wire.persistent);
  BitmapPtr old = node->bitmaps().find(place.name);
  if (old != nullptr && old->busy()) return fail("bitmap '{}' of the node '{}' is in use", place.name, place.node);
  if (old != nullptr) node->bitmaps().remove(old);
  auto made = block::add_bitmap(
      *node, {.name = place.name, .granularity = wire.granularity, .persistent = persistent, .enabled = wire.enabled});
  if (!made && old != nullptr) node->bitmaps().add(old);
  if (!made) return Failure(std::move(made).error());
  (*made)->set_chunks(chunks_of(wire));
  return {};
}

}  // namespace

Task<Result<std::vector<uint8_t>>> pack_bitmaps(BlockGraph& graph, std::optional<BitmapMapping> mapping) {
  for (const NodePtr& node : graph.nodes()) node->bitmaps().resize(node->length());
  KITE_CO_ASSIGN(const std::vector<BitmapV1> packed, mapping ? pack_named(graph, *mapping) : pack_all(graph));
  StateWriter writer;
  devices::save_section(writer, kList, ListV1{.count = static_cast<uint32_t>(packed.size())});
  for (const BitmapV1& wire : packed) devices::save_section(writer, kBitmap, wire);
  co_return writer.take();
}

Task<Result<>> unpack_bitmaps(BlockGraph& graph, std::optional<BitmapMapping> mapping, std::vector<uint8_t> bytes) {
  StateReader reader(bytes);
  ListV1 list;
  devices::restore_section(reader, kList, list,
                           [&] { devices::require(reader, list.count <= kMostBitmaps, "there are too many"); });
  for (uint32_t i = 0; i < list.count && reader.ok(); ++i) {
    BitmapV1 wire;
    if (!devices::restore_section(reader, kBitmap, wire, [&] { judge(reader, wire); })) break;
    const auto place = place_of(wire, mapping);
    const Result<> placed = place ? place_one(graph, wire, *place) : fail("block-bitmap-mapping has no name for it");
    if (!placed)
      log::warn("bitmap '{}' of '{}' has not arrived: {}", printable(wire.name), printable(wire.node),
                placed.error().message);
  }
  co_return reader.finish();
}

}  // namespace kite::machine

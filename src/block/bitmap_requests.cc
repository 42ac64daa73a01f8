#include "block/bitmap_requests.h"

#include <algorithm>

#include "block/image.h"

namespace kite::block {
namespace {

uint64_t usual_granularity(const BlockNode& node) {
  constexpr uint64_t kLeast = 4096, kMost = 65536;
  const auto* const format = dynamic_cast<const FormatNode*>(&node);
  const uint64_t cluster = format == nullptr ? 0 : format->image_info().cluster_bytes;
  return cluster == 0 ? kMost : std::clamp(cluster, kLeast, kMost);
}

}  // namespace

Result<BitmapPtr> find_bitmap(BlockNode& node, std::string_view name) {
  node.bitmaps().resize(node.length());
  BitmapPtr bitmap = node.bitmaps().find(name);
  if (bitmap == nullptr) return fail("Dirty bitmap '{}' not found", name);
  return bitmap;
}

Result<BitmapPtr> add_bitmap(BlockNode& node, const NewBitmap& request) {
  const uint64_t granularity = request.granularity != 0 ? request.granularity : usual_granularity(node);
  KITE_TRY(node.bitmaps().may_add(request.name, node.length(), granularity));
  if (request.persistent) KITE_TRY(node.may_keep_bitmap(request.name, granularity));
  auto bitmap = std::make_shared<DirtyBitmap>(request.name, node.length(), granularity);
  bitmap->enabled = request.enabled;
  bitmap->persistent = request.persistent;
  node.bitmaps().add(bitmap);
  return bitmap;
}

Result<> may_merge(const DirtyBitmap& into, const DirtyBitmap& from) {
  KITE_TRY(into.may(DirtyBitmap::Need::kChange));
  KITE_TRY(from.may(DirtyBitmap::Need::kRead));
  const uint64_t ours = into.chunks().length(), theirs = from.chunks().length();
  if (ours != theirs)
    return fail("Bitmaps are of different sizes (destination size is {} and source size is {}) and can't be merged",
                ours, theirs);
  return {};
}

}  // namespace kite::block

// What clients ask of a node's dirty bitmaps, by name.
#pragma once

#include <string>
#include <string_view>

#include "block/node.h"

namespace kite::block {

// As long as the node is now.
Result<BitmapPtr> find_bitmap(BlockNode& node, std::string_view name);

struct NewBitmap {
  std::string name;
  uint64_t granularity = 0;  // bytes; 0: as large as what the format stores at once, within bounds
  bool persistent = false, enabled = true;
};
Result<BitmapPtr> add_bitmap(BlockNode& node, const NewBitmap& request);

// An error when the one cannot take what the other has.
Result<> may_merge(const DirtyBitmap& into, const DirtyBitmap& from);

}  // namespace kite::block

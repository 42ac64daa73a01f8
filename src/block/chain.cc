#include "block/chain.h"

#include <algorithm>

namespace kite::block {

BlockNode* skip_filters(BlockNode* node) {
  while (node != nullptr && node->is_filter()) node = node->file();
  return node;
}

BlockNode* backing_of(BlockNode* node) {
  node = skip_filters(node);
  return node == nullptr ? nullptr : skip_filters(node->backing());
}

Task<IoResult<ChainStatus>> chain_status(BlockNode& node, uint64_t offset, uint64_t bytes, const BlockNode* until) {
  ChainStatus found;
  BlockNode* at = skip_filters(&node);
  uint64_t limit = bytes;
  while (true) {
    KITE_CO_ASSIGN(found.status, co_await at->block_status(offset, limit));
    limit = found.status.bytes;
    found.bytes = limit;
    if (found.status.allocated) {
      found.present = true;
      break;
    }
    BlockNode* below = backing_of(at);
    if (below == nullptr || below == until) {
      found.status.zero = found.status.zero || below == nullptr;
      break;
    }
    ++found.depth;
    at = below;
    // Behind the end of a shorter backing file: zeroes, decided by that file.
    if (offset >= at->length()) {
      found.status = {.bytes = limit, .data = false, .zero = true};
      found.present = true;
      break;
    }
    limit = std::min(limit, at->length() - offset);
  }
  // A format's data may lie in a hole of its file.
  const BlockStatus& status = found.status;
  if (status.data && status.has_offset && status.file != nullptr && status.file != at && !status.compressed) {
    auto* file = const_cast<BlockNode*>(status.file);
    if (status.offset < file->length()) {
      KITE_CO_ASSIGN(const BlockStatus below, co_await file->block_status(status.offset, status.bytes));
      found.bytes = std::min(found.bytes, below.bytes);
      found.status.zero |= below.zero;
    }
  }
  found.status.bytes = found.bytes;
  co_return found;
}

std::vector<BlockNode*> images_below(BlockNode& node) {
  std::vector<BlockNode*> images;
  for (BlockNode* at = skip_filters(&node); at != nullptr; at = backing_of(at)) images.push_back(at);
  return images;
}

Result<> nothing_else_on(BlockNode& above, const BlockNode& base) {
  for (BlockNode* at = backing_of(&above); at != nullptr; at = backing_of(at)) {
    if (at->user_count() > 1) return fail("Node '{}' is used by others than '{}', too", at->name(), above.name());
    if (at == &base) break;
  }
  return {};
}

}  // namespace kite::block

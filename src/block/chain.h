// Chains of images: what is stored where, from an image down through its backing files.
#pragma once

#include <vector>

#include "block/node.h"

namespace kite::block {

// What is stored at an offset of a chain of images.
struct ChainStatus {
  uint64_t bytes = 0;
  unsigned depth = 0;    // 0: the image itself
  bool present = false;  // some image of the chain has it
  BlockStatus status;
};
// `until`: the chain ends above this image.
Task<IoResult<ChainStatus>> chain_status(BlockNode& node, uint64_t offset, uint64_t bytes,
                                         const BlockNode* until = nullptr);
// The node that decides the content: filters passed over.
BlockNode* skip_filters(BlockNode* node);
BlockNode* backing_of(BlockNode* node);
// The images from the node down, itself first; filters passed over.
std::vector<BlockNode*> images_below(BlockNode& node);
// An error when something else than this chain stands on an image from below `above` down to `base`: what it shows
// would change with them.
Result<> nothing_else_on(BlockNode& above, const BlockNode& base);

}  // namespace kite::block

// Dirty bitmaps that move with a machine ([QAPI] migration.json: the capability dirty-bitmaps, block-bitmap-mapping).
// They are packed when the source stands still, and unpacked when the images are the destination's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "async/task.h"
#include "block/graph.h"
#include "support/result.h"

namespace kite::machine {

// Under which names they travel. What is not named stays.
struct BitmapMapping {
  struct Bitmap {
    std::string name, alias;
    std::optional<bool> persistent = {};  // what it is to be where it arrives; nothing: what it was
  };
  struct Node {
    std::string name, alias;
    std::vector<Bitmap> bitmaps;
  };
  std::vector<Node> nodes;
};

// Without a mapping all go, under their own names. On the block thread.
Task<Result<std::vector<uint8_t>>> pack_bitmaps(block::BlockGraph& graph, std::optional<BitmapMapping> mapping);
// What nobody here has a name for is dropped with a warning. An error: the bytes make no sense.
Task<Result<>> unpack_bitmaps(block::BlockGraph& graph, std::optional<BitmapMapping> mapping,
                              std::vector<uint8_t> bytes);

}  // namespace kite::machine

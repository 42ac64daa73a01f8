// Copying a range from one node to another, as jobs do it: holes stay holes where they can.
#pragma once

#include "block/file_node.h"
#include "block/node.h"

namespace kite::block {

// What a failed copy failed at.
struct CopyFailure {
  int code;
  bool reading;
};
using CopyResult = std::expected<void, CopyFailure>;

// How much is copied by one request at most, in bytes.
inline constexpr uint64_t kCopyPiece = uint64_t{1} << 20;

// The range, up to kCopyPiece of it, lies inside both nodes. `memory` has room for it.
Task<CopyResult> copy_range(BlockNode& from, BlockNode& to, uint64_t offset, uint64_t bytes,
                            const AlignedBuffer& memory);

}  // namespace kite::block

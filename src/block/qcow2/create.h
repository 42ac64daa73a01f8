// New qcow2 images, and how large they become.
#pragma once

#include "block/image.h"

namespace kite::block::qcow2 {

std::span<const CreateOption> create_options();
Task<Result<>> create(BlockGraph& graph, NodePtr file, CreateRequest request);
Result<Measure> measure(uint64_t bytes, uint64_t data_bytes, BlockOptions options);
Result<uint64_t> cluster_bytes_of(BlockOptions options);

}  // namespace kite::block::qcow2

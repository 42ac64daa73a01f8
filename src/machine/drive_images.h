// How the images of -drive and -blockdev are opened. Everything runs on the block thread.
#pragma once

#include "async/task.h"
#include "block/graph.h"
#include "block/options.h"
#include "machine/drive_spec.h"
#include "support/result.h"

namespace kite::machine {

// -blockdev: opens the tree and keeps its top by name.
Task<Result<>> open_named_node(block::BlockGraph& graph, block::BlockOptions options);

// -drive: the image, with what the options put above it: the overlay of snapshot=on, copy-on-read. The format is probed
// when the options do not name it; what looks raw is only taken for reading.
Task<Result<block::NodePtr>> open_image(block::BlockGraph& graph, DriveSpec spec);

}  // namespace kite::machine

// How the images of -drive and -blockdev are opened. Everything runs on the block thread.
#pragma once

#include <optional>
#include <string>

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

// An image that a monitor asks for beside one in use: an overlay, a copy.
struct NewImage {
  std::string filename;
  std::string format;
  std::string node_name{};
  bool existing = false;  // the file holds an image already
  uint64_t bytes = 0;
  std::string backing_filename{}, backing_format{};  // as the new image's header says
  // The node that is its backing file, "" for none; nothing: what its header names.
  std::optional<std::string> backing{};
};
// With the cache of `like` and its handling of discards. The node is closed with its last user.
Task<Result<block::NodePtr>> open_new_image(block::BlockGraph& graph, NewImage image, block::NodePtr like);

}  // namespace kite::machine

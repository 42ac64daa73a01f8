// The table of drivers.
#include <array>

#include "block/file_node.h"
#include "block/graph.h"
#include "block/plain_nodes.h"
#include "block/qcow2/qcow2_node.h"
#include "block/raw_node.h"

namespace kite::block {

std::span<const Driver> drivers() {
  static constexpr auto kDrivers = std::to_array<Driver>({
      {"file", true, &FileNode::open_file, nullptr},
      {"host_device", true, &FileNode::open_device, nullptr},
      {"memory", true, &MemoryNode::open, nullptr},
      {"null-aio", true, &NullNode::open_aio, nullptr},
      {"null-co", true, &NullNode::open_co, nullptr},
      {"qcow2", false, &qcow2::Qcow2Node::open, &qcow2::Qcow2Node::probe},
      {"raw", false, &RawNode::open, nullptr},
  });
  return kDrivers;
}

}  // namespace kite::block

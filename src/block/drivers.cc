// The table of drivers.
#include <array>

#include "block/file_node.h"
#include "block/filters/filters.h"
#include "block/graph.h"
#include "block/nbd/nbd_node.h"
#include "block/plain_nodes.h"
#include "block/qcow2/qcow2_node.h"
#include "block/qed/qed_node.h"
#include "block/raw_node.h"

namespace kite::block {

std::span<const Driver> drivers() {
  static constexpr auto kDrivers = std::to_array<Driver>({
      {"blkdebug", true, &BlkdebugNode::open, nullptr},
      {"copy-on-read", false, &CopyOnReadNode::open, nullptr},
      {"file", true, &FileNode::open_file, nullptr},
      {"host_device", true, &FileNode::open_device, nullptr},
      {"host_cdrom", true, &FileNode::open_cdrom, nullptr},
      {"memory", true, &MemoryNode::open, nullptr},
      {"nbd", true, &nbd::NbdNode::open, nullptr},
      {"null-aio", true, &NullNode::open_aio, nullptr},
      {"null-co", true, &NullNode::open_co, nullptr},
      {"power-cut", false, &PowerCutNode::open, nullptr},
      {"qcow2", false, &qcow2::Qcow2Node::open, &qcow2::Qcow2Node::probe},
      {"qed", false, &qed::QedNode::open, &qed::QedNode::probe},
      {"raw", false, &RawNode::open, nullptr},
      {"throttle", false, &ThrottleNode::open, nullptr},
  });
  return kDrivers;
}

}  // namespace kite::block

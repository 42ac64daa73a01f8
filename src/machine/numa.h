// NUMA nodes: which of them CPUs and RAM belong to, made of what -numa says.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "machine/machine_config.h"
#include "support/result.h"

namespace kite::machine {

struct NumaLayout {
  struct Node {
    uint64_t bytes = 0;  // RAM is divided in the order of the nodes
    std::string memory;  // the -object that it is; "": a part of the board's own RAM
  };
  std::vector<Node> nodes;            // none: the machine tells of none
  std::vector<uint32_t> node_of_cpu;  // by index, MachineConfig::max_cpus of them
  std::vector<uint8_t> distances;     // nodes times nodes, the row is where an access comes from

  [[nodiscard]] bool empty() const { return nodes.empty(); }
  // RAM is in blocks of its own for each node.
  [[nodiscard]] bool has_memories() const { return !nodes.empty() && !nodes.front().memory.empty(); }
  [[nodiscard]] uint8_t distance(size_t from, size_t to) const { return distances[from * nodes.size() + to]; }
};

// The error names the option, and what is missing or too much: a node, a CPU, memory, a distance.
Result<NumaLayout> lay_out_numa(const MachineConfig& config);

}  // namespace kite::machine

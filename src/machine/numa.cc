#include "machine/numa.h"

#include <algorithm>
#include <optional>

#include "machine/memory_backends.h"

namespace kite::machine {

namespace {

Result<> add_nodes(const MachineConfig& config, NumaLayout& layout) {
  const auto& wanted = config.numa.nodes;
  uint64_t bytes = 0;
  for (const auto& [id, node] : wanted) {
    if (id != layout.nodes.size())
      return fail("-numa node,nodeid={}: nodes are numbered from 0 without gaps, and there is no {}", id,
                  layout.nodes.size());
    if (node.memory.empty() == !node.bytes.has_value())
      return fail("-numa node,nodeid={}: say how much memory it has, either by mem=SIZE or by memdev=ID", id);
    if (node.memory.empty() != wanted.begin()->second.memory.empty())
      return fail("-numa node,nodeid={}: either every node has mem=, or every node has memdev=", id);
    NumaLayout::Node made{.bytes = node.bytes.value_or(0), .memory = node.memory};
    if (!made.memory.empty()) {
      KITE_ASSIGN(const MemoryBackend* backend, find_memory_backend(config, "-numa node,memdev", made.memory));
      made.bytes = backend->bytes;
      if (std::ranges::find(layout.nodes, made.memory, &NumaLayout::Node::memory) != layout.nodes.end())
        return fail("-numa node,nodeid={},memdev={}: another node has this memory", id, made.memory);
    }
    constexpr uint64_t kPage = 4096;
    if (made.bytes % kPage != 0) return fail("-numa node,nodeid={}: its memory is not a multiple of 4096 bytes", id);
    bytes += made.bytes;
    layout.nodes.push_back(std::move(made));
  }
  if (layout.has_memories() && !config.main_memory.empty())
    return fail("-machine memory-backend={}: with -numa node,memdev= the nodes' memory is the RAM; leave it out",
                config.main_memory);
  if (bytes != config.ram_bytes)
    return fail("-numa: the nodes have {} MiB of memory together, and -m says {}; both have to be the same",
                bytes >> 20, config.ram_bytes >> 20);
  return {};
}

Result<> put_cpu(uint32_t cpu, uint32_t node, std::vector<std::optional<uint32_t>>& nodes) {
  if (nodes[cpu].value_or(node) != node)
    return fail("-numa: CPU {} is in node {} and in node {}", cpu, *nodes[cpu], node);
  nodes[cpu] = node;
  return {};
}

Result<> add_cpus(const MachineConfig& config, NumaLayout& layout) {
  std::vector<std::optional<uint32_t>> nodes(config.max_cpus);
  for (const auto& [id, node] : config.numa.nodes) {
    for (const auto& [first, last] : node.cpus) {
      if (last >= config.max_cpus)
        return fail("-numa node,nodeid={},cpus={}-{}: -smp gives CPUs 0 to {}", id, first, last, config.max_cpus - 1);
      for (uint32_t cpu = first; cpu <= last; ++cpu) KITE_TRY(put_cpu(cpu, id, nodes));
    }
  }
  for (const NumaConfig::Cpus& cpus : config.numa.cpus) {
    if (cpus.node >= layout.nodes.size()) return fail("-numa cpu,node-id={}: there is no such node", cpus.node);
    bool found = false;
    for (uint32_t cpu = 0; cpu < config.max_cpus; ++cpu) {
      const auto place = config.topology.place(cpu);
      const auto is = [](const std::optional<uint32_t>& asked, uint32_t number) {
        return asked.value_or(number) == number;
      };
      if (!is(cpus.socket, place.socket) || !is(cpus.die, place.die) || !is(cpus.core, place.core) ||
          !is(cpus.thread, place.thread))
        continue;
      found = true;
      KITE_TRY(put_cpu(cpu, cpus.node, nodes));
    }
    if (!found) return fail("-numa cpu,node-id={}: -smp has no CPU at that place", cpus.node);
  }
  const auto placed = std::ranges::count_if(nodes, [](const auto& node) { return node.has_value(); });
  for (uint32_t cpu = 0; cpu < config.max_cpus; ++cpu) {
    if (placed != 0 && !nodes[cpu])
      return fail("-numa: CPU {} is in no node; name it in a node's cpus=, or none at all", cpu);
    const auto sockets_turn = static_cast<uint32_t>(config.topology.place(cpu).socket % layout.nodes.size());
    layout.node_of_cpu.push_back(nodes[cpu].value_or(sockets_turn));
  }
  return {};
}

// [ACPI 6.4] 5.2.17: 10 is the distance of a node from itself, 255 that of one that cannot be reached.
Result<> add_distances(const NumaConfig& numa, NumaLayout& layout) {
  constexpr uint8_t kLocal = 10, kRemote = 20;
  const size_t count = layout.nodes.size();
  std::vector<std::optional<uint8_t>> given(count * count);
  for (const NumaConfig::Distance& distance : numa.distances) {
    if (distance.from >= count || distance.to >= count)
      return fail("-numa dist,src={},dst={}: there are nodes 0 to {}", distance.from, distance.to, count - 1);
    if (distance.value < kLocal || (distance.from == distance.to) != (distance.value == kLocal))
      return fail("-numa dist,src={},dst={},val={}: it is 10 from a node to itself, and 11 to 255 to another",
                  distance.from, distance.to, distance.value);
    given[distance.from * count + distance.to] = distance.value;
  }
  for (size_t from = 0; from < count; ++from) {
    for (size_t to = 0; to < count; ++to) {
      const auto there = given[from * count + to], back = given[to * count + from];
      if (from != to && !there && !back && !numa.distances.empty())
        return fail("-numa: with some distances given, that from node {} to node {} is missing", from, to);
      layout.distances.push_back(from == to ? kLocal : there.value_or(back.value_or(kRemote)));
    }
  }
  return {};
}

}  // namespace

Result<NumaLayout> lay_out_numa(const MachineConfig& config) {
  NumaLayout layout;
  if (config.numa.nodes.empty()) {
    if (!config.numa.cpus.empty() || !config.numa.distances.empty())
      return fail("-numa: there are no nodes; add -numa node,nodeid=0 and so on");
    return layout;
  }
  KITE_TRY(add_nodes(config, layout));
  KITE_TRY(add_cpus(config, layout));
  KITE_TRY(add_distances(config.numa, layout));
  return layout;
}

}  // namespace kite::machine

#include "machine/numa.h"

#include <gtest/gtest.h>

namespace kite::machine {
namespace {

constexpr uint64_t kMib = 1 << 20;

// Four CPUs in two sockets, 64 MiB.
MachineConfig two_nodes() {
  MachineConfig config;
  config.ram_bytes = 64 * kMib;
  config.cpu_count = config.max_cpus = 4;
  config.topology = {.sockets = 2, .cores = 2};
  config.numa.nodes[0].bytes = 48 * kMib;
  config.numa.nodes[1].bytes = 16 * kMib;
  return config;
}

std::string refusal(const MachineConfig& config) {
  const auto layout = lay_out_numa(config);
  return layout ? "" : layout.error().message;
}

TEST(Numa, AMachineWithoutNodesTellsOfNone) {
  EXPECT_TRUE(lay_out_numa(MachineConfig{})->empty());
  MachineConfig config;
  config.numa.distances.push_back({.from = 0, .to = 1, .value = 20});
  EXPECT_NE(refusal(config).find("no nodes"), std::string::npos);
}

TEST(Numa, SocketsTakeTurnsWhereNoCpuIsNamed) {
  const auto layout = lay_out_numa(two_nodes());
  ASSERT_TRUE(layout) << layout.error().message;
  EXPECT_EQ(layout->node_of_cpu, (std::vector<uint32_t>{0, 0, 1, 1}));
  EXPECT_EQ(layout->distances, (std::vector<uint8_t>{10, 20, 20, 10}));
  EXPECT_FALSE(layout->has_memories());
}

TEST(Numa, CpusAreNamedByNumberOrByPlace) {
  MachineConfig config = two_nodes();
  config.numa.nodes[1].cpus = {{0, 0}};
  config.numa.cpus = {{.node = 0, .socket = 0, .core = 1}, {.node = 0, .socket = 1}};
  EXPECT_EQ(lay_out_numa(config)->node_of_cpu, (std::vector<uint32_t>{1, 0, 0, 0}));
  config.numa.cpus.pop_back();
  EXPECT_NE(refusal(config).find("CPU 2 is in no node"), std::string::npos);
  config.numa.cpus = {{.node = 0}};
  EXPECT_NE(refusal(config).find("CPU 0 is in node 1 and in node 0"), std::string::npos);
  config.numa.cpus = {{.node = 0, .socket = 2}};
  EXPECT_NE(refusal(config).find("no CPU at that place"), std::string::npos);
  config.numa.cpus = {{.node = 2}};
  EXPECT_NE(refusal(config).find("node-id=2"), std::string::npos);
  config.numa.nodes[1].cpus = {{3, 4}};
  EXPECT_NE(refusal(config).find("CPUs 0 to 3"), std::string::npos);
}

TEST(Numa, MemoryAddsUpToTheMachines) {
  MachineConfig config = two_nodes();
  config.numa.nodes[1].bytes = 15 * kMib;
  EXPECT_NE(refusal(config).find("63 MiB"), std::string::npos);
  config.numa.nodes[1].bytes.reset();
  EXPECT_NE(refusal(config).find("nodeid=1"), std::string::npos);
  config.numa.nodes[1].memory = "m1";
  EXPECT_NE(refusal(config).find("every node"), std::string::npos);
  config.numa.nodes[0] = {.cpus = {}, .bytes = {}, .memory = "m0"};
  config.memory_backends = {{.id = "m0", .bytes = 48 * kMib}, {.id = "m1", .bytes = 16 * kMib}};
  EXPECT_TRUE(lay_out_numa(config)->has_memories());
  config.main_memory = "m0";
  EXPECT_NE(refusal(config).find("memory-backend=m0"), std::string::npos);
  config.main_memory = "";
  config.numa.nodes[1].memory = "m0";
  EXPECT_NE(refusal(config).find("another node"), std::string::npos);
  config.numa.nodes[1].memory = "m2";
  EXPECT_NE(refusal(config).find("m2"), std::string::npos);
  config.numa.nodes.erase(0);
  EXPECT_NE(refusal(config).find("there is no 0"), std::string::npos);
}

TEST(Numa, DistancesAreAllGivenOrNone) {
  MachineConfig config = two_nodes();
  config.numa.nodes[1].bytes = 8 * kMib;
  config.numa.nodes[2].bytes = 8 * kMib;
  config.numa.distances = {{.from = 0, .to = 1, .value = 21}, {.from = 1, .to = 0, .value = 31}};
  EXPECT_NE(refusal(config).find("from node 0 to node 2"), std::string::npos);
  config.numa.distances.push_back({.from = 2, .to = 0, .value = 40});
  config.numa.distances.push_back({.from = 1, .to = 2, .value = 50});
  const auto layout = lay_out_numa(config);
  ASSERT_TRUE(layout) << layout.error().message;
  EXPECT_EQ(layout->distances, (std::vector<uint8_t>{10, 21, 40, 31, 10, 50, 40, 50, 10}));
  config.numa.distances.push_back({.from = 1, .to = 1, .value = 11});
  EXPECT_NE(refusal(config).find("src=1,dst=1"), std::string::npos);
  config.numa.distances.back() = {.from = 1, .to = 0, .value = 10};
  EXPECT_NE(refusal(config).find("src=1,dst=0"), std::string::npos);
  config.numa.distances.back() = {.from = 1, .to = 3, .value = 20};
  EXPECT_NE(refusal(config).find("nodes 0 to 2"), std::string::npos);
}

}  // namespace
}  // namespace kite::machine

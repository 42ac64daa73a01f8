#include "monitor/memory_commands.h"

#include "monitor/test_monitor.h"

namespace kite::monitor {
namespace {

machine::MachineConfig two_nodes() {
  machine::MachineConfig config;
  config.cpu_count = 3;
  config.max_cpus = 4;
  config.topology = {.sockets = 2, .cores = 1, .threads = 2};
  config.memory_backends = {{.id = "low", .bytes = 1 << 20}, {.id = "high", .bytes = 1 << 20, .preallocate = true}};
  config.numa.nodes[0].memory = "low";
  config.numa.nodes[1].memory = "high";
  return config;
}

TEST(MemoryCommands, CpusTellWhereTheyAre) {
  const TestMonitor monitor(two_nodes());
  const Json cpus = monitor.answer("query-cpus-fast");
  ASSERT_EQ(cpus.size(), 3U);
  EXPECT_EQ(cpus[2].at("props"), (Json{{"socket-id", 1}, {"core-id", 0}, {"thread-id", 0}, {"node-id", 1}}));
  const Json places = monitor.answer("query-hotpluggable-cpus");
  ASSERT_EQ(places.size(), 4U);
  EXPECT_FALSE(places[0].contains("qom-path"));
  EXPECT_EQ(places[1].at("qom-path"), cpus[2].at("qom-path"));
  EXPECT_EQ(places[1].at("props"), cpus[2].at("props"));
}

TEST(MemoryCommands, NodesAndTheirMemory) {
  const TestMonitor monitor(two_nodes());
  const Json backends = monitor.answer("query-memdev");
  EXPECT_EQ(find_entry(backends, "id", "high").at("prealloc"), true);
  EXPECT_EQ(monitor.answer("query-memory-size-summary").at("base-memory"), 2 << 20);
  EXPECT_EQ(info_numa(*monitor.context, ""),
            "2 nodes\nnode 0 cpus: 0 1\nnode 0 size: 1 MB\nnode 0 plugged: 0 MB\n"
            "node 1 cpus: 2\nnode 1 size: 1 MB\nnode 1 plugged: 0 MB\n");
  EXPECT_NE(info_memdev(*monitor.context, "").find("high"), std::string::npos);
}

TEST(MemoryCommands, AMachineWithoutNodesSaysSo) {
  const TestMonitor monitor;
  EXPECT_EQ(info_numa(*monitor.context, ""), "0 nodes\n");
  EXPECT_FALSE(monitor.answer("query-cpus-fast")[0].at("props").contains("node-id"));
}

}  // namespace
}  // namespace kite::monitor

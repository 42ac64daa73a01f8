#include "x86/topology.h"

#include <gtest/gtest.h>

#include <vector>

namespace kite::x86 {
namespace {

std::vector<uint32_t> apic_ids(const CpuTopology& topology) {
  std::vector<uint32_t> ids;
  for (uint32_t index = 0; index < topology.in_machine(); ++index) ids.push_back(topology.apic_id(index));
  return ids;
}

TEST(Topology, PowersOfTwoLeaveNoGaps) {
  EXPECT_EQ(apic_ids({.sockets = 2, .cores = 2, .threads = 2}), (std::vector<uint32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(apic_ids({.cores = 3}), (std::vector<uint32_t>{0, 1, 2}));
}

TEST(Topology, OtherNumbersDo) {
  EXPECT_EQ(apic_ids({.sockets = 2, .cores = 3}), (std::vector<uint32_t>{0, 1, 2, 4, 5, 6}));
  EXPECT_EQ(apic_ids({.sockets = 1, .dies = 2, .cores = 1, .threads = 3}), (std::vector<uint32_t>{0, 1, 2, 4, 5, 6}));
}

TEST(Topology, AnIndexHasItsPlace) {
  const CpuTopology topology{.sockets = 2, .dies = 2, .cores = 3, .threads = 2};
  EXPECT_EQ(topology.place(0), (CpuTopology::Place{}));
  EXPECT_EQ(topology.place(23), (CpuTopology::Place{.socket = 1, .die = 1, .core = 2, .thread = 1}));
  EXPECT_EQ(topology.place(7), (CpuTopology::Place{.socket = 0, .die = 1, .core = 0, .thread = 1}));
}

}  // namespace
}  // namespace kite::x86

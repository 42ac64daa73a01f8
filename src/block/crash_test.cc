// What a crash, a power cut and failing requests may do to an image, and what they may not.
#include "block/crash_bench.h"

namespace kite::block {
namespace {

void power_cuts(const std::string& format, const std::string& options, unsigned first_seed, unsigned seeds) {
  constexpr uint64_t kBytes = uint64_t{2} << 20;
  for (unsigned seed = first_seed; seed < first_seed + seeds; ++seed) {
    std::mt19937 random(seed);
    Bench bench(format, options, kBytes);
    Expectations expected(kBytes);
    auto power = std::dynamic_pointer_cast<PowerCutNode>(PowerCutNode::over(bench.disk()));
    const uint64_t cut = 10 + random() % 300;
    power->set_trigger([cut](uint64_t operation) { return operation >= cut; });
    {
      const auto node = bench.open(power);
      ASSERT_NE(node, nullptr);
      work(bench, *node, random, expected, 120);
    }
    const unsigned chance = random() % 5;
    power->settle([&] { return random() % 4 < chance; },
                  [&](uint64_t offset, const uint8_t* sector) {
                    bench.disk()->copy_in(offset, IoSlice::of_const(sector, kSector));
                  });
    power.reset();
    verify(bench, expected, fmt::format("{} {} seed {}", format, options, seed));
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(Qcow2PowerCut, KeepsWhatWasFlushed) { power_cuts("qcow2", "cluster_size=64k", 1, 40); }
TEST(Qcow2PowerCut, KeepsWhatWasFlushedInSmallClusters) { power_cuts("qcow2", "cluster_size=512", 100, 40); }
TEST(Qcow2PowerCut, KeepsWhatWasFlushedWithLazyRefcounts) {
  power_cuts("qcow2", "cluster_size=4k,lazy_refcounts=on", 200, 40);
}
TEST(Qcow2PowerCut, KeepsWhatWasFlushedInSubclusters) {
  power_cuts("qcow2", "cluster_size=16k,extended_l2=on", 300, 40);
}
TEST(Qcow2PowerCut, KeepsWhatWasFlushedWithWideRefcounts) {
  power_cuts("qcow2", "cluster_size=512,refcount_bits=64", 400, 40);
}

TEST(QedPowerCut, KeepsWhatWasFlushed) { power_cuts("qed", "cluster_size=64k", 500, 40); }
TEST(QedPowerCut, KeepsWhatWasFlushedInSmallClusters) { power_cuts("qed", "cluster_size=4k,table_size=1", 600, 40); }

// The nth request of one kind fails, whatever it is for: the guest sees an error, and no metadata is lost.
void failing_requests(const std::string& options, const char* type, int code) {
  constexpr uint64_t kBytes = uint64_t{1} << 20;
  for (unsigned n = 0; n < 40; ++n) {
    Bench bench("qcow2", options, kBytes);
    Expectations expected(kBytes);
    auto power = std::dynamic_pointer_cast<PowerCutNode>(PowerCutNode::over(bench.disk()));
    BlockOptions faults;
    bench.register_node(power);
    power->set_kept(true);
    faults.set("driver", "blkdebug");
    faults.set("node-name", "faults");
    faults.set("image", power->name());
    faults.set("inject-error.0.event", n % 2 == 0 ? "l2_update" : "cluster_alloc");
    faults.set("inject-error.0.iotype", type);
    faults.set("inject-error.0.errno", std::to_string(code));
    faults.set("inject-error.0.once", "on");
    auto faulty = bench.run(bench.graph().open(std::move(faults)));
    ASSERT_TRUE(faulty) << faulty.error().message;
    std::mt19937 random(n);
    {
      const auto node = bench.open(*faulty);
      for (int rounds = 0; rounds < 4; ++rounds) work(bench, *node, random, expected, 20);
      EXPECT_TRUE(bench.run(node->close()));
    }
    faulty = NodePtr();
    ASSERT_TRUE(bench.run(power->flush()));
    ASSERT_TRUE(bench.run(power->close()));
    power.reset();
    verify(bench, expected, fmt::format("{} {} {}", options, type, n));
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(Qcow2Faults, AWriteThatFailsLosesNoMetadata) { failing_requests("cluster_size=4k", "write", EIO); }
TEST(Qcow2Faults, AFullDiskLosesNoMetadata) { failing_requests("cluster_size=512", "write", ENOSPC); }
TEST(Qcow2Faults, AFlushThatFailsLosesNoMetadata) { failing_requests("cluster_size=4k", "flush", EIO); }

}  // namespace
}  // namespace kite::block

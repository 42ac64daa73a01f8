// What a crash, a power cut and failing requests may do to an image, and what they may not.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "block/filters/filters.h"
#include "block/image.h"
#include "block/plain_nodes.h"
#include "block/qcow2/create.h"
#include "block/qcow2/qcow2_node.h"

namespace kite::block {
namespace {

constexpr uint64_t kSector = 512;

// A qcow2 image in memory under a node that can lose its power.
class Bench {
 public:
  explicit Bench(const std::string& options, uint64_t bytes)
      : executor_(*Executor::create("test")),
        graph_(std::make_unique<BlockGraph>(*executor_)),
        disk_(std::make_shared<MemoryNode>(*executor_, NodeConfig{.name = "disk"}, 0, true)) {
    disk_->set_kept(true);
    CreateRequest request;
    request.bytes = bytes;
    request.options = *BlockOptions::parse(options);
    names_.push_back(disk_);
    register_node(disk_);
    const Result<> made = run(qcow2::create(*graph_, disk_, std::move(request)));
    EXPECT_TRUE(made) << made.error().message;
  }

  template <class T>
  T run(Task<T> task) {
    return run_until_done(*executor_, std::move(task));
  }
  std::shared_ptr<FormatNode> open(const NodePtr& file) {
    register_node(file);
    BlockOptions options;
    options.set("driver", "qcow2");
    options.set("file", file->name());
    options.set("discard", "unmap");
    auto node = run(graph_->open(std::move(options)));
    EXPECT_TRUE(node) << node.error().message;
    return node ? std::dynamic_pointer_cast<FormatNode>(*node) : nullptr;
  }
  void register_node(const NodePtr& node) {
    if (graph_->find(node->name()) == nullptr) EXPECT_TRUE(graph_->adopt(node));
  }
  [[nodiscard]] const std::shared_ptr<MemoryNode>& disk() const { return disk_; }
  [[nodiscard]] BlockGraph& graph() { return *graph_; }

 private:
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<BlockGraph> graph_;
  std::shared_ptr<MemoryNode> disk_;
  std::vector<NodePtr> names_;
};

// For each sector: which values it may have after the power comes back.
class Expectations {
 public:
  explicit Expectations(uint64_t bytes) : sectors_(bytes / kSector, {0}) {}
  void write(uint64_t offset, uint64_t bytes, uint8_t value) {
    for (uint64_t at = offset / kSector; at < (offset + bytes) / kSector; ++at) sectors_[at].push_back(value);
  }
  // The last write failed: its sectors may keep either content until they are written again.
  void failed(uint64_t offset, uint64_t bytes) {
    for (uint64_t at = offset / kSector; at < (offset + bytes) / kSector; ++at) uncertain_.insert(at);
  }
  void succeeded(uint64_t offset, uint64_t bytes) {
    for (uint64_t at = offset / kSector; at < (offset + bytes) / kSector; ++at) uncertain_.erase(at);
  }
  // Everything that was written is durable: only the last value is left.
  void flushed() {
    for (uint64_t at = 0; at < sectors_.size(); ++at) {
      if (!uncertain_.contains(at)) sectors_[at] = {sectors_[at].back()};
    }
  }
  [[nodiscard]] bool allows(uint64_t sector, uint8_t value) const {
    return std::ranges::find(sectors_[sector], value) != sectors_[sector].end();
  }
  [[nodiscard]] uint64_t count() const { return sectors_.size(); }

 private:
  std::vector<std::vector<uint8_t>> sectors_;
  std::set<uint64_t> uncertain_;
};

// Random work until something fails; what it may have left behind is in `expected`.
void work(Bench& bench, BlockNode& node, std::mt19937& random, Expectations& expected, unsigned operations) {
  const uint64_t sectors = node.length() / kSector;
  for (unsigned i = 0; i < operations; ++i) {
    const uint64_t at = random() % sectors * kSector;
    const uint64_t bytes =
        std::min<uint64_t>((1 + random() % (random() % 4 == 0 ? 300 : 24)) * kSector, node.length() - at);
    const auto value = static_cast<uint8_t>(1 + random() % 255);
    const unsigned kind = random() % 10;
    IoResult<> done;
    if (kind < 6) {
      const std::vector<uint8_t> data(bytes, value);
      expected.write(at, bytes, value);
      done = bench.run(node.write(at, IoSlice::of_const(data.data(), data.size())));
    } else if (kind < 8) {
      expected.write(at, bytes, 0);
      done = bench.run(node.write_zeroes(at, bytes, {.flags = random() % 2 == 0 ? IoHow::kMayUnmap : 0u}));
    } else {
      done = bench.run(node.flush());
      if (done) expected.flushed();
    }
    if (kind < 8) done ? expected.succeeded(at, bytes) : expected.failed(at, bytes);
    if (!done) return;
  }
}

void verify(Bench& bench, const Expectations& expected, const std::string& what) {
  const auto node = bench.open(bench.disk());
  ASSERT_NE(node, nullptr) << what;
  std::string lines;
  const auto note = [&](const std::string& line) { lines += line + "\n"; };
  const auto checked = bench.run(node->check(Repair::kNone, note));
  ASSERT_TRUE(checked) << what;
  EXPECT_EQ(checked->corruptions, 0u) << what << "\n" << lines;
  const auto repaired = bench.run(node->check(Repair::kLeaks, note));
  ASSERT_TRUE(repaired) << what;
  EXPECT_EQ(repaired->leaks, 0u) << what;
  std::vector<uint8_t> content(node->length());
  ASSERT_TRUE(bench.run(node->read(0, IoSlice(content)))) << what;
  for (uint64_t sector = 0; sector < expected.count(); ++sector) {
    const uint8_t value = content[sector * kSector];
    ASSERT_TRUE(expected.allows(sector, value)) << what << ": sector " << sector << " is " << unsigned{value};
  }
  ASSERT_TRUE(bench.run(node->close())) << what;
}

void power_cuts(const std::string& options, unsigned first_seed, unsigned seeds) {
  constexpr uint64_t kBytes = uint64_t{2} << 20;
  for (unsigned seed = first_seed; seed < first_seed + seeds; ++seed) {
    std::mt19937 random(seed);
    Bench bench(options, kBytes);
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
    verify(bench, expected, fmt::format("{} seed {}", options, seed));
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(Qcow2PowerCut, KeepsWhatWasFlushed) { power_cuts("cluster_size=64k", 1, 40); }
TEST(Qcow2PowerCut, KeepsWhatWasFlushedInSmallClusters) { power_cuts("cluster_size=512", 100, 40); }
TEST(Qcow2PowerCut, KeepsWhatWasFlushedWithLazyRefcounts) { power_cuts("cluster_size=4k,lazy_refcounts=on", 200, 40); }
TEST(Qcow2PowerCut, KeepsWhatWasFlushedInSubclusters) { power_cuts("cluster_size=16k,extended_l2=on", 300, 40); }
TEST(Qcow2PowerCut, KeepsWhatWasFlushedWithWideRefcounts) { power_cuts("cluster_size=512,refcount_bits=64", 400, 40); }

// The nth request of one kind fails, whatever it is for: the guest sees an error, and no metadata is lost.
void failing_requests(const std::string& options, const char* type, int code) {
  constexpr uint64_t kBytes = uint64_t{1} << 20;
  for (unsigned n = 0; n < 40; ++n) {
    Bench bench(options, kBytes);
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

// What lies at the edges of a qcow2 disk: a machine's state behind it, growing and shrinking, writes that meet what is
// there, closing.
#include <gtest/gtest.h>

#include "block/crash_bench.h"

namespace kite::block {
namespace {

constexpr uint64_t kBytes = uint64_t{1} << 20;

class Qcow2Edges : public ::testing::Test {
 protected:
  // `backing`: what its bytes are behind the image's end; 0 for no backing file.
  void open(const std::string& options, uint8_t backing = 0) {
    bench_ = std::make_unique<Bench>("qcow2", options, kBytes);
    if (backing != 0) {
      const auto node =
          std::make_shared<MemoryNode>(bench_->graph().executor(), NodeConfig{.name = "backing"}, 2 * kBytes);
      std::vector<uint8_t> content(kBytes + 1024, backing);
      node->copy_in(kBytes - 1024, IoSlice(content));
      bench_->set_backing(node);
    }
    image_ = bench_->open(bench_->disk());
    ASSERT_NE(image_, nullptr);
  }
  bool put(uint64_t offset, size_t bytes, uint8_t value) {
    const std::vector<uint8_t> data(bytes, value);
    return bench_->run(image_->write_vm_state(offset, IoSlice::of_const(data.data(), bytes), {})).has_value();
  }
  uint8_t state_at(uint64_t offset) {
    uint8_t value = 0xee;
    EXPECT_TRUE(bench_->run(image_->read_vm_state(offset, IoSlice(&value, 1))));
    return value;
  }
  uint8_t disk_at(uint64_t offset) {
    uint8_t value = 0xee;
    EXPECT_TRUE(bench_->run(image_->read(offset, IoSlice(&value, 1))));
    return value;
  }
  void expect_clean() {
    const auto result =
        bench_->run(image_->check(Repair::kNone, [](const std::string& line) { ADD_FAILURE() << line; }));
    ASSERT_TRUE(result);
    EXPECT_EQ(result->corruptions + result->leaks + result->check_errors, 0u);
  }

  std::unique_ptr<Bench> bench_;
  std::shared_ptr<FormatNode> image_;
};

TEST_F(Qcow2Edges, VmStateIsBehindTheDiskAndNoPartOfIt) {
  open("cluster_size=512");
  EXPECT_EQ(image_->image_info().vm_state_offset, kBytes);
  ASSERT_TRUE(put(300, 100'000, 7));
  EXPECT_EQ(state_at(0), 0);
  EXPECT_EQ(state_at(300), 7);
  EXPECT_EQ(state_at(100'299), 7);
  EXPECT_EQ(state_at(100'300), 0);
  EXPECT_EQ(state_at(uint64_t{1} << 40), 0);
  EXPECT_EQ(image_->length(), kBytes);
  EXPECT_EQ(disk_at(300), 0);
  expect_clean();
}

TEST_F(Qcow2Edges, VmStateGoesWithASnapshot) {
  open("");
  ASSERT_TRUE(put(0, 4096, 1));
  ASSERT_TRUE(bench_->run(image_->snapshot_create({.name = "s"})));
  ASSERT_TRUE(put(0, 4096, 2));
  ASSERT_TRUE(bench_->run(image_->snapshot_apply("s")));
  EXPECT_EQ(state_at(0), 1);
  expect_clean();
}

TEST_F(Qcow2Edges, VmStateOfASizeThatAnImageCannotHoldIsRefused) {
  open("cluster_size=512");
  EXPECT_FALSE(put(uint64_t{1} << 60, 1, 1));
  EXPECT_FALSE(put(~uint64_t{0} - 5, 1, 1));
  expect_clean();
}

// The guest would find it as its new disk's content.
TEST_F(Qcow2Edges, VmStateDoesNotBecomePartOfAGrownDisk) {
  open("cluster_size=512");
  ASSERT_TRUE(put(0, 65536, 9));
  ASSERT_TRUE(bench_->run(image_->truncate(2 * kBytes)));
  EXPECT_EQ(disk_at(kBytes), 0);
  EXPECT_EQ(state_at(0), 0);
  expect_clean();
}

TEST_F(Qcow2Edges, VmStateLeavesNothingBehindWhenTheDiskShrinks) {
  open("cluster_size=512");
  ASSERT_TRUE(put(0, 65536, 9));
  ASSERT_TRUE(bench_->run(image_->truncate(kBytes / 2)));
  EXPECT_EQ(state_at(0), 0);
  expect_clean();
}

// Version 2 has no zero clusters: what grows over a backing file is written, or the backing file would come back.
TEST_F(Qcow2Edges, AVersion2DiskGrowsWithZeroesOverItsBackingFile) {
  open("compat=0.10", 0xbb);
  ASSERT_TRUE(bench_->run(image_->truncate(kBytes - 1024)));
  ASSERT_TRUE(bench_->run(image_->truncate(2 * kBytes)));
  for (const uint64_t at : {kBytes - 1024, kBytes - 1, kBytes, kBytes + 65536, 2 * kBytes - 1})
    EXPECT_EQ(disk_at(at), 0) << at;
  expect_clean();
}

// One place in the file is written in one piece, whether its clusters are data or read as zeroes.
TEST_F(Qcow2Edges, DataAroundAPreallocatedZeroClusterIsOneWrite) {
  open("");
  std::vector<uint8_t> data(196608, 1);
  ASSERT_TRUE(bench_->run(image_->write(0, IoSlice(data))));
  ASSERT_TRUE(bench_->run(image_->write_zeroes(65536, 65536)));
  ASSERT_TRUE(bench_->run(image_->close()));
  const auto cut = std::dynamic_pointer_cast<PowerCutNode>(PowerCutNode::over(bench_->disk()));
  image_ = bench_->open(cut);
  std::ranges::fill(data, 2);
  const uint64_t before = cut->operations();
  ASSERT_TRUE(bench_->run(image_->write(0, IoSlice(data))));
  EXPECT_EQ(cut->operations() - before, 1u);
  for (const uint64_t at : {0u, 65535u, 65536u, 131071u, 131072u, 196607u}) EXPECT_EQ(disk_at(at), 2) << at;
  expect_clean();
}

// A cluster that is used and counts as free makes all refcounts new; the old ones are let go afterwards.
TEST_F(Qcow2Edges, ARepairSaysWhatIsWrongFirstAndThenWhatItDoes) {
  open("");
  std::vector<uint8_t> data(65536, 1);
  ASSERT_TRUE(bench_->run(image_->write(0, IoSlice(data))));
  ASSERT_TRUE(bench_->run(image_->close()));
  uint8_t none[2] = {};
  bench_->disk()->copy_in(2 * 65536 + 5 * 2, IoSlice(none, sizeof none));  // the refcount of the data cluster
  image_ = bench_->open(bench_->disk());
  std::vector<std::string> lines;
  const auto result = bench_->run(image_->check(Repair::kAll, [&](const std::string& line) { lines.push_back(line); }));
  ASSERT_TRUE(result);
  EXPECT_EQ(lines, (std::vector<std::string>{"ERROR cluster 5 refcount=0 reference=1", "Rebuilding refcount structure",
                                             "Repairing cluster 1 refcount=1 reference=0",
                                             "Repairing cluster 2 refcount=1 reference=0"}));
  EXPECT_EQ(result->corruptions_fixed, 1u);
  EXPECT_EQ(result->leaks_fixed, 0u);
  EXPECT_EQ(result->corruptions + result->leaks, 0u);
  expect_clean();
  EXPECT_EQ(disk_at(0), 1);
}

// What a killed process leaves of an image with lazy refcounts: its data is not counted, its tables are.
TEST_F(Qcow2Edges, LazyRefcountsCountTablesAtOnce) {
  open("lazy_refcounts=on");
  std::vector<uint8_t> data(512, 1);
  ASSERT_TRUE(bench_->run(image_->write(0, IoSlice(data), {.flags = IoHow::kFua})));
  const auto refcount = [&](uint64_t cluster) {
    uint8_t raw[2] = {};
    bench_->disk()->copy_out(2 * 65536 + cluster * 2, IoSlice(raw, sizeof raw));
    return raw[0] * 256 + raw[1];
  };
  EXPECT_EQ(refcount(4), 1);  // the L2 table
  EXPECT_EQ(refcount(5), 0);  // the data
  ASSERT_TRUE(bench_->run(image_->close()));
  EXPECT_EQ(refcount(5), 1);
}

TEST_F(Qcow2Edges, AnImageThatWasOnlyReadIsClosedWithoutAWrite) {
  open("");
  ASSERT_TRUE(bench_->run(image_->close()));
  const auto cut = std::dynamic_pointer_cast<PowerCutNode>(PowerCutNode::over(bench_->disk()));
  image_ = bench_->open(cut);
  EXPECT_EQ(disk_at(0), 0);
  ASSERT_TRUE(bench_->run(image_->close()));
  EXPECT_EQ(cut->operations(), 0u);
}

}  // namespace
}  // namespace kite::block

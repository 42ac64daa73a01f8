// Filters over disks in memory.
#include "block/filters/filters.h"

#include <gtest/gtest.h>

#include "block/image.h"
#include "block/plain_nodes.h"

namespace kite::block {
namespace {

constexpr uint64_t kBytes = uint64_t{1} << 20;

class FiltersTest : public ::testing::Test {
 protected:
  std::shared_ptr<MemoryNode> memory(const std::string& name, bool growable = false) {
    NodeConfig config;
    config.name = name;
    auto node = std::make_shared<MemoryNode>(*executor_, config, growable ? 0 : kBytes, growable);
    node->set_kept(true);
    EXPECT_TRUE(graph_.adopt(node));
    kept_.push_back(node);
    return node;
  }
  NodePtr open(const std::string& options) {
    auto node = run(graph_.open(*BlockOptions::parse(options)));
    EXPECT_TRUE(node) << node.error().message;
    return node ? *node : nullptr;
  }
  template <class T>
  T run(Task<T> task) {
    return run_until_done(*executor_, std::move(task));
  }
  void fill(BlockNode& node, uint64_t offset, size_t bytes, uint8_t value) {
    std::vector<uint8_t> data(bytes, value);
    ASSERT_TRUE(run(node.write(offset, IoSlice(data))));
  }
  uint8_t byte(BlockNode& node, uint64_t offset) {
    uint8_t value = 0xee;
    EXPECT_TRUE(run(node.read(offset, IoSlice(&value, 1))));
    return value;
  }

  std::unique_ptr<Executor> executor_ = *Executor::create("test");
  BlockGraph graph_{*executor_};
  std::vector<NodePtr> kept_;
};

class CopyOnRead : public FiltersTest {
 protected:
  // A qcow2 overlay over a backing disk of sevens.
  CopyOnRead() {
    const auto base = memory("base");
    fill(*base, 0, kBytes, 7);
    const auto file = memory("file", true);
    CreateRequest request;
    request.bytes = kBytes;
    EXPECT_TRUE(run(find_image_format("qcow2")->create(graph_, file, std::move(request))));
    overlay_ = open("driver=qcow2,node-name=overlay,file=file,backing=base");
    filter_ = open("driver=copy-on-read,file=overlay");
  }
  bool allocated(uint64_t offset) { return run(overlay_->block_status(offset, 1))->allocated; }

  NodePtr overlay_, filter_;
};

TEST_F(CopyOnRead, WhatIsReadIsKept) {
  EXPECT_FALSE(allocated(200'000));
  EXPECT_EQ(byte(*filter_, 200'000), 7);
  EXPECT_TRUE(allocated(200'000));
  EXPECT_FALSE(allocated(600'000));
}

TEST_F(CopyOnRead, WhatTheImageHasIsNotCopiedOver) {
  fill(*filter_, 65536, 512, 9);
  EXPECT_EQ(byte(*filter_, 65536), 9);
  EXPECT_EQ(byte(*filter_, 65536 + 512), 7);
  EXPECT_EQ(byte(*overlay_, 65536), 9);
}

TEST_F(CopyOnRead, ReadsAndWritesAtOnceKeepTheWrite) {
  struct Both {
    static Task<void> read(BlockNode& node, std::vector<uint8_t>& to) { (void)co_await node.read(0, IoSlice(to)); }
    static Task<void> write(BlockNode& node, std::vector<uint8_t>& from) {
      (void)co_await node.write(4096, IoSlice(from));
    }
  };
  std::vector<uint8_t> to(65536), from(4096, 3);
  TaskScope scope;
  scope.spawn(Both::read(*filter_, to));
  scope.spawn(Both::write(*filter_, from));
  while (!scope.idle()) executor_->run_once(Clock::kNever);
  EXPECT_EQ(byte(*filter_, 4096), 3);
  EXPECT_EQ(byte(*filter_, 8192), 7);
}

TEST_F(FiltersTest, DetectedZeroesTakeNoSpace) {
  const auto file = memory("file", true);
  CreateRequest request;
  request.bytes = kBytes;
  ASSERT_TRUE(run(find_image_format("qcow2")->create(graph_, file, std::move(request))));
  const NodePtr image = open("driver=qcow2,file=file,detect-zeroes=unmap,discard=unmap");
  fill(*image, 0, 131072, 1);
  fill(*image, 0, 65536, 0);
  const auto zero = run(image->block_status(0, kBytes));
  ASSERT_TRUE(zero);
  EXPECT_TRUE(zero->zero);
  EXPECT_FALSE(zero->data);
  EXPECT_EQ(zero->bytes, 65536u);
  EXPECT_TRUE(run(image->block_status(65536, 1))->data);
}

TEST_F(FiltersTest, AThrottledDiskStillDoesEverything) {
  memory("disk");
  const NodePtr slow = open("driver=throttle,file=disk,limits.bps-total=100M,limits.iops-write=100000");
  fill(*slow, 0, 4096, 4);
  EXPECT_EQ(byte(*slow, 4095), 4);
  ASSERT_TRUE(run(slow->write_zeroes(0, 4096)));
  EXPECT_EQ(byte(*slow, 0), 0);
}

TEST_F(FiltersTest, ThrottlingRefusesABurstBelowTheRate) {
  memory("disk");
  const auto node =
      run(graph_.open(*BlockOptions::parse("driver=throttle,file=disk,limits.bps-total=10,limits.bps-total-max=5")));
  ASSERT_FALSE(node);
  EXPECT_NE(node.error().message.find("smaller"), std::string::npos);
}

TEST_F(FiltersTest, BlkdebugFailsWhatItsRulesSay) {
  memory("disk");
  const NodePtr node = open(
      "driver=blkdebug,image=disk,inject-error.0.event=none,inject-error.0.iotype=write,"
      "inject-error.0.errno=28,inject-error.0.sector=8,inject-error.0.once=on");
  std::vector<uint8_t> data(512);
  EXPECT_TRUE(run(node->write(0, IoSlice(data))));
  EXPECT_TRUE(run(node->read(4096, IoSlice(data))));
  const auto failed = run(node->write(4096, IoSlice(data)));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ENOSPC);
  EXPECT_TRUE(run(node->write(4096, IoSlice(data))));
}

}  // namespace
}  // namespace kite::block

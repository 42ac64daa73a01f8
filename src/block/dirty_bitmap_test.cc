#include "block/dirty_bitmap.h"

#include <gtest/gtest.h>

#include "block/bitmap_requests.h"
#include "block/plain_nodes.h"

namespace kite::block {
namespace {

constexpr uint64_t kBytes = uint64_t{1} << 20;

class DirtyBitmapTest : public ::testing::Test {
 protected:
  BitmapPtr add(const std::string& name, uint64_t granularity = 4096) {
    auto added = add_bitmap(*node_, {.name = name, .granularity = granularity});
    error_ = added ? "" : added.error().message;
    return added ? *added : nullptr;
  }
  void write(uint64_t offset, size_t bytes) {
    std::vector<uint8_t> data(bytes, 1);
    ASSERT_TRUE(run_until_done(*executor_, node_->write(offset, IoSlice(data))));
  }

  std::unique_ptr<Executor> executor_ = *Executor::create("test");
  NodePtr node_ = std::make_shared<MemoryNode>(*executor_, NodeConfig{.name = "n"}, kBytes, true);
  std::string error_;
};

TEST_F(DirtyBitmapTest, HearsOfWhatChanges) {
  const BitmapPtr on = add("on"), off = add("off"), coarse = add("coarse", 65536);
  off->enabled = false;
  write(4000, 200);
  ASSERT_TRUE(run_until_done(*executor_, node_->write_zeroes(8192, 1)));
  EXPECT_EQ(on->chunks().bytes(), 3 * 4096u);
  EXPECT_EQ(off->chunks().bytes(), 0u);
  EXPECT_EQ(coarse->chunks().bytes(), 65536u);
}

TEST_F(DirtyBitmapTest, TheNodeMayBecomeAnotherSize) {
  const BitmapPtr bitmap = add("b");
  write(0, 1);
  write(kBytes, 5000);  // makes it longer
  EXPECT_EQ(bitmap->chunks().length(), kBytes + 5000);
  EXPECT_EQ(bitmap->chunks().bytes(), 3 * 4096u);
  ASSERT_TRUE(run_until_done(*executor_, node_->truncate(kBytes, Preallocation::kOff)));
  EXPECT_EQ((*find_bitmap(*node_, "b"))->chunks().bytes(), 4096u);
  // Larger than bitmaps can be: it cannot be true any more.
  (void)add("fine", 512);
  node_->bitmaps().resize(uint64_t{1} << 60);
  EXPECT_TRUE(bitmap->inconsistent);
  EXPECT_FALSE(bitmap->may(DirtyBitmap::Need::kRead));
  EXPECT_TRUE(bitmap->may(DirtyBitmap::Need::kRemove));
}

TEST_F(DirtyBitmapTest, WhatIsFrozenKeepsWhatItHasAndHearsOfMore) {
  const BitmapPtr bitmap = add("b");
  write(0, 1);
  bitmap->freeze();
  write(8192, 1);
  EXPECT_EQ(bitmap->chunks().bytes(), 4096u);
  bitmap->take_back();
  EXPECT_EQ(bitmap->chunks().bytes(), 2 * 4096u);
  bitmap->freeze();
  write(16384, 1);
  bitmap->let_go();
  EXPECT_TRUE(bitmap->chunks().test(4));
  EXPECT_EQ(bitmap->chunks().bytes(), 4096u);
}

TEST_F(DirtyBitmapTest, MergesOtherGranularities) {
  const BitmapPtr fine = add("fine", 512), coarse = add("coarse", 65536);
  write(65536, 1);
  fine->set_chunks(DirtyChunks(kBytes, 512));
  ASSERT_TRUE(may_merge(*fine, *coarse));
  fine->merge(coarse->chunks());
  EXPECT_EQ(fine->chunks().bytes(), 65536u);
  EXPECT_FALSE(may_merge(*fine, DirtyBitmap("other", kBytes / 2, 512)));
}

TEST_F(DirtyBitmapTest, ThereIsAnEndToThem) {
  for (const uint64_t granularity : {uint64_t{1}, uint64_t{1000}, uint64_t{1} << 32})
    EXPECT_EQ(add("b", granularity), nullptr);
  EXPECT_NE(error_.find("Granularity"), std::string::npos);
  ASSERT_NE(add("b"), nullptr);
  EXPECT_EQ(add("b"), nullptr);
  EXPECT_NE(error_.find("already exists"), std::string::npos);
  EXPECT_EQ(add(std::string(1024, 'b')), nullptr);
  EXPECT_FALSE(node_->bitmaps().may_add("large", uint64_t{1} << 50, 512));
  EXPECT_FALSE(add_bitmap(*node_, {.name = "kept", .persistent = true}));
  for (size_t i = 1; i < BitmapSet::kMaxBitmaps; ++i) ASSERT_NE(add(std::to_string(i), 65536), nullptr);
  EXPECT_EQ(add("one more"), nullptr);
  EXPECT_NE(error_.find("4096"), std::string::npos) << error_;
}

}  // namespace
}  // namespace kite::block

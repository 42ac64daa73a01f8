// Dirty bitmaps that qcow2 images keep.
#include <gtest/gtest.h>

#include "block/bitmap_requests.h"
#include "block/crash_bench.h"
#include "support/bytes.h"

namespace kite::block {
namespace {

constexpr uint64_t kBytes = uint64_t{4} << 20;
constexpr uint64_t kGranularity = 65536;

class Qcow2Bitmaps : public ::testing::Test {
 protected:
  void make(const std::string& options = "cluster_size=64k") {
    image_.reset();
    bench_ = std::make_unique<Bench>("qcow2", options, kBytes);
    open();
  }
  void open() {
    image_ = bench_->open(bench_->disk());
    ASSERT_NE(image_, nullptr);
  }
  void close() {
    const Result<> closed = bench_->run(image_->close());
    EXPECT_TRUE(closed) << closed.error().message;
    image_.reset();
  }
  void reopen() {
    close();
    open();
  }
  BitmapPtr add(const std::string& name, uint64_t granularity = kGranularity, bool enabled = true) {
    const auto added =
        add_bitmap(*image_, {.name = name, .granularity = granularity, .persistent = true, .enabled = enabled});
    EXPECT_TRUE(added) << added.error().message;
    return added ? *added : nullptr;
  }
  BitmapPtr find(const std::string& name) { return image_->bitmaps().find(name); }
  void write(uint64_t offset, uint64_t bytes) {
    const std::vector<uint8_t> data(bytes, 7);
    ASSERT_TRUE(bench_->run(image_->write(offset, IoSlice::of_const(data.data(), data.size()))));
  }
  void expect_clean() {
    const auto result =
        bench_->run(image_->check(Repair::kNone, [](const std::string& line) { ADD_FAILURE() << line; }));
    ASSERT_TRUE(result);
    EXPECT_EQ(result->corruptions + result->leaks + result->check_errors, 0u);
  }
  uint64_t field(uint64_t at) {
    uint8_t raw[8];
    bench_->disk()->copy_out(at, IoSlice(raw, sizeof raw));
    return load_be64(raw);
  }
  void set_field(uint64_t at, uint64_t value) {
    uint8_t raw[8];
    store_be64(raw, value);
    bench_->disk()->copy_in(at, IoSlice(raw, sizeof raw));
  }
  // Where the header of an image that keeps bitmaps has their extension's data.
  uint64_t extension() {
    std::vector<uint8_t> head(1024);
    bench_->disk()->copy_out(0, IoSlice(head));
    constexpr uint64_t kMagicAndLength = 0x2385287500000018;
    for (size_t at = 104; at + 8 <= head.size(); at += 8)
      if (load_be64(head.data() + at) == kMagicAndLength) return at + 8;
    ADD_FAILURE() << "there is no extension";
    return 0;
  }

  std::unique_ptr<Bench> bench_;
  std::shared_ptr<FormatNode> image_;
};

TEST_F(Qcow2Bitmaps, AreKept) {
  for (const char* const options : {"cluster_size=64k", "cluster_size=1k", "cluster_size=4k,lazy_refcounts=on"}) {
    SCOPED_TRACE(options);
    make(options);
    (void)add("one");
    (void)add("fine", 512);
    (void)add("off", kGranularity, false);
    ASSERT_TRUE(add_bitmap(*image_, {.name = "passing"}));
    write(1 << 20, 4096);
    ASSERT_TRUE(bench_->run(image_->write_zeroes(kBytes - 512, 512)));
    for (int round = 0; round < 2; ++round) {
      reopen();
      ASSERT_EQ(image_->bitmaps().all().size(), 3u);
      EXPECT_EQ(find("one")->chunks().bytes(), 2 * kGranularity);
      EXPECT_TRUE(find("one")->chunks().test(16));
      EXPECT_EQ(find("fine")->chunks().bytes(), 4096u + 512u);
      EXPECT_EQ(find("off")->chunks().bytes(), 0u);
      EXPECT_FALSE(find("off")->enabled);
      EXPECT_TRUE(find("one")->persistent && find("one")->enabled && !find("one")->inconsistent);
      expect_clean();
    }
    ASSERT_TRUE(bench_->run(image_->truncate(2 * kBytes, Preallocation::kOff)));
    write(2 * kBytes - 512, 512);
    reopen();
    EXPECT_EQ(find("one")->chunks().bytes(), 3 * kGranularity);
    expect_clean();
    close();
  }
}

TEST_F(Qcow2Bitmaps, TheLastOneLeavesNothing) {
  make();
  write(0, 4096);
  reopen();
  const auto clusters = bench_->run(image_->check(Repair::kNone, [](const std::string&) {}))->allocated_clusters;
  (void)add("one");
  write(0, 4096);
  reopen();
  EXPECT_EQ(image_->image_info().bitmaps.size(), 1u);
  image_->bitmaps().remove(find("one"));
  reopen();
  EXPECT_TRUE(image_->bitmaps().empty());
  EXPECT_TRUE(image_->image_info().bitmaps.empty());
  expect_clean();
  EXPECT_EQ(bench_->run(image_->check(Repair::kNone, [](const std::string&) {}))->allocated_clusters, clusters);
  EXPECT_EQ(field(88), 0u);
  (void)add("two");
  reopen();
  EXPECT_NE(find("two"), nullptr);
  expect_clean();
}

TEST_F(Qcow2Bitmaps, AfterACrashTheyCanOnlyBeRemoved) {
  make();
  (void)add("one");
  write(0, 512);
  reopen();
  write(1 << 20, 512);
  ASSERT_TRUE(bench_->run(image_->flush()));
  image_.reset();  // as if it had been killed
  open();
  const BitmapPtr bitmap = find("one");
  ASSERT_NE(bitmap, nullptr);
  EXPECT_TRUE(bitmap->inconsistent);
  EXPECT_FALSE(bitmap->may(DirtyBitmap::Need::kRead));
  EXPECT_TRUE(image_->image_info().bitmaps.at(0).in_use);
  reopen();
  EXPECT_TRUE(find("one")->inconsistent);
  expect_clean();
  ASSERT_TRUE(find("one")->may(DirtyBitmap::Need::kRemove));
  image_->bitmaps().remove(find("one"));
  reopen();
  EXPECT_TRUE(image_->bitmaps().empty());
  expect_clean();
}

TEST_F(Qcow2Bitmaps, TheBackingFilesNameMovesForThem) {
  make();
  ASSERT_TRUE(bench_->run(image_->change_backing_name("some/other/image.qcow2", "qcow2")));
  close();
  const auto backing = std::make_shared<MemoryNode>(bench_->graph().executor(), NodeConfig{.name = "backing"}, kBytes);
  bench_->set_backing(backing);
  open();
  (void)add("one");
  reopen();
  EXPECT_EQ(image_->image_info().backing_filename, "some/other/image.qcow2");
  EXPECT_NE(find("one"), nullptr);
  ASSERT_TRUE(bench_->run(image_->change_backing_name("a.qcow2", "qcow2")));
  reopen();
  EXPECT_EQ(image_->image_info().backing_filename, "a.qcow2");
  EXPECT_NE(find("one"), nullptr);
  expect_clean();
}

TEST_F(Qcow2Bitmaps, WhereTheyCannotBe) {
  make("compat=0.10");
  EXPECT_FALSE(add_bitmap(*image_, {.name = "b", .persistent = true}));
  EXPECT_TRUE(add_bitmap(*image_, {.name = "b"}));
  make("cluster_size=512");
  EXPECT_FALSE(add_bitmap(*image_, {.name = "b", .persistent = true}));  // its header is full
  make();
  (void)add("b");
  ASSERT_TRUE(bench_->run(image_->snapshot_create({.name = "s"})));
  EXPECT_FALSE(bench_->run(image_->snapshot_apply("s")));
  BlockOptions old;
  old.set("compat", "0.10");
  ASSERT_TRUE(bench_->run(image_->snapshot_delete("s")));
  EXPECT_FALSE(bench_->run(image_->amend(std::move(old))));
}

// Nothing that an image says of its bitmaps does harm; and what makes no sense is not taken.
TEST_F(Qcow2Bitmaps, HostileOnes) {
  make();
  (void)add("one", 512);
  (void)add("two");
  write(0, 1 << 20);
  close();
  std::vector<uint8_t> good(bench_->disk()->length());
  bench_->disk()->copy_out(0, IoSlice(good));
  const uint64_t directory = field(extension() + 16);
  std::mt19937 random(1);
  for (unsigned i = 0; i < 200; ++i) {
    bench_->disk()->copy_in(0, IoSlice(good));
    const uint64_t table = field(directory);
    const uint64_t places[] = {extension(), directory, directory + 32, table};
    const uint64_t at = places[random() % 4] + random() % 3 * 8;
    const uint64_t values[] = {
        0, 1, ~uint64_t{0}, field(at) ^ uint64_t{1} << random() % 64, uint64_t{1} << random() % 64, directory, 512};
    set_field(at, values[random() % 7]);
    SCOPED_TRACE(fmt::format("{} at {:#x}", field(at), at));
    open();
    (void)bench_->run(image_->check(Repair::kNone, [](const std::string&) {}));
    write(2 << 20, 512);
    (void)bench_->run(image_->close());
    open();
    uint8_t byte = 0;
    ASSERT_TRUE(bench_->run(image_->read(2 << 20, IoSlice(&byte, 1))));
    EXPECT_EQ(byte, 7);
    (void)bench_->run(image_->close());
  }
}

TEST_F(Qcow2Bitmaps, OfWhatNobodyUnderstandsEverythingStays) {
  make();
  (void)add("one");
  close();
  const uint64_t directory = field(extension() + 16);
  set_field(directory + 16, field(directory + 16) ^ uint64_t{2} << 56);  // another type
  const uint64_t before = field(directory + 8);
  open();
  EXPECT_TRUE(find("one")->inconsistent);
  write(0, 512);
  close();
  const uint64_t now = field(extension() + 16);
  EXPECT_EQ(field(now + 8), before);
  EXPECT_EQ(field(now + 16) >> 56, 3u);
}

// Wherever the power goes while they are stored: the image is whole, and a bitmap is right, or said not to be.
TEST_F(Qcow2Bitmaps, APowerCutWhileTheyAreStored) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    make(seed % 2 == 0 ? "cluster_size=64k" : "cluster_size=2k");
    ASSERT_TRUE(bench_->run(image_->change_backing_name("some/other/image.qcow2", "raw")));
    const bool had = seed % 3 != 0;
    if (had) (void)add("one");
    close();
    bench_->set_backing(
        std::make_shared<MemoryNode>(bench_->graph().executor(), NodeConfig{.name = "backing"}, kBytes));
    auto power = std::dynamic_pointer_cast<PowerCutNode>(PowerCutNode::over(bench_->disk()));
    const uint64_t cut = 1 + random() % 24;
    power->set_trigger([cut](uint64_t operation) { return operation >= cut; });
    image_ = nullptr;
    bench_->register_node(power);
    BlockOptions options;
    options.set("driver", "qcow2");
    options.set("file", power->name());
    options.set("backing", "backing");
    if (auto node = bench_->run(bench_->graph().open(std::move(options)))) {
      image_ = std::dynamic_pointer_cast<FormatNode>(*node);
      if (!had) (void)add("one");
      const std::vector<uint8_t> data(512, 7);
      (void)bench_->run(image_->write(1 << 20, IoSlice::of_const(data.data(), data.size())));
      (void)bench_->run(image_->close());
      image_ = nullptr;
    }
    const unsigned chance = random() % 5;
    power->settle([&] { return random() % 4 < chance; },
                  [&](uint64_t offset, const uint8_t* sector) {
                    bench_->disk()->copy_in(offset, IoSlice::of_const(sector, kSector));
                  });
    power.reset();
    open();
    EXPECT_EQ(image_->image_info().backing_filename, "some/other/image.qcow2");
    const auto checked = bench_->run(image_->check(Repair::kLeaks, [](const std::string&) {}));
    ASSERT_TRUE(checked);
    EXPECT_EQ(checked->corruptions, 0u);
    uint8_t byte = 0;
    ASSERT_TRUE(bench_->run(image_->read(1 << 20, IoSlice(&byte, 1))));
    if (const BitmapPtr bitmap = find("one"); bitmap != nullptr && !bitmap->inconsistent && byte == 7)
      EXPECT_TRUE(bitmap->chunks().test(16));
    close();
  }
}

}  // namespace
}  // namespace kite::block

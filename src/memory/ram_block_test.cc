#include "memory/ram_block.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "support/fd.h"

namespace kite {
namespace {

std::shared_ptr<RamBlock> make_block(uint64_t pages) {
  auto block = RamBlock::create("test", pages * kPageSize);
  EXPECT_TRUE(block) << block.error().message;
  return *block;
}

TEST(RamBlock, ReadsAsZeroAndIsWritable) {
  const auto block = make_block(3);
  EXPECT_EQ(block->host()[3 * kPageSize - 1], 0);
  block->host()[5] = 7;
  EXPECT_EQ(block->host()[5], 7);
}

TEST(RamBlock, RefusesOddSizes) {
  EXPECT_FALSE(RamBlock::create("odd", 4095));
  EXPECT_FALSE(RamBlock::create("none", 0));
  EXPECT_FALSE(RamBlock::create("huge", uint64_t{1} << 60));
}

TEST(RamBlock, HugeBlocksCostNothingUntilTouched) {
  auto block = RamBlock::create("huge", uint64_t{64} << 30);
  ASSERT_TRUE(block) << block.error().message;
  (*block)->host()[(uint64_t{64} << 30) - 1] = 1;
  (*block)->note_write((uint64_t{64} << 30) - 1, 1);
}

TEST(RamBlock, AFileIsMemoryAndASharedOneSeesWhatIsWritten) {
  for (const bool share : {false, true}) {
    const Fd file(::memfd_create("test", MFD_CLOEXEC));
    ASSERT_EQ(::pwrite(file.get(), "abc", 3, 0), 3);
    ASSERT_EQ(::ftruncate(file.get(), 2 * kPageSize), 0);
    const auto block = make_block(2);
    ASSERT_TRUE(block->map_file(file.get(), share));
    EXPECT_EQ(block->host()[1], 'b');
    block->host()[1] = 'x';
    char text[3] = {};
    ASSERT_EQ(::pread(file.get(), text, 3, 0), 3);
    EXPECT_EQ(text[1], share ? 'x' : 'b');
  }
}

TEST(RamBlock, MemoryIsSurroundedByGuardZones) {
  const auto block = make_block(1);
  EXPECT_DEATH(static_cast<volatile uint8_t*>(block->host())[kPageSize] = 1, "");
  EXPECT_DEATH(static_cast<volatile uint8_t*>(block->host())[-1] = 1, "");
}

TEST(RamBlockCode, AWriteToAMarkedPageBumpsItsGeneration) {
  const auto block = make_block(4);
  const uint32_t generation = block->mark_code(kPageSize + 12);
  EXPECT_EQ(block->code_generation(kPageSize)->load(), generation);
  EXPECT_NE(block->page_state(kPageSize)->load(), 0);
  block->note_write(kPageSize + 100, 4);
  EXPECT_NE(block->code_generation(kPageSize)->load(), generation);
}

TEST(RamBlockCode, AWriteUnmarksThePageSoThatDataIsFastAgain) {
  const auto block = make_block(1);
  block->mark_code(0);
  block->note_write(0, 1);
  EXPECT_EQ(block->page_state(0)->load(), 0);
  const uint32_t generation = block->mark_code(0);
  block->note_write(8, 8);
  EXPECT_NE(block->code_generation(0)->load(), generation);
}

TEST(RamBlockCode, OtherPagesKeepTheirGeneration) {
  const auto block = make_block(3);
  const uint32_t first = block->mark_code(0);
  const uint32_t last = block->mark_code(2 * kPageSize);
  block->note_write(kPageSize, kPageSize);
  EXPECT_EQ(block->code_generation(0)->load(), first);
  EXPECT_EQ(block->code_generation(2 * kPageSize)->load(), last);
}

TEST(RamBlockCode, AWriteOverABorderBumpsBothPages) {
  const auto block = make_block(2);
  const uint32_t first = block->mark_code(0);
  const uint32_t second = block->mark_code(kPageSize);
  block->note_write(kPageSize - 1, 2);
  EXPECT_NE(block->code_generation(0)->load(), first);
  EXPECT_NE(block->code_generation(kPageSize)->load(), second);
}

TEST(RamBlockCode, CodeAndDataThatShareAPageAreToldApartAfterAWhile) {
  const auto block = make_block(1);
  for (uint32_t i = 0; i < RamBlock::kWholePages; ++i) {
    EXPECT_FALSE(block->marks_lines(0));
    block->mark_code(0x100, 16);
    block->note_write(0x800, 8);
  }
  ASSERT_TRUE(block->marks_lines(0));
  const uint32_t generation = block->mark_code(0x100, 16);
  for (const uint64_t elsewhere : {0x0u, 0xffu, 0x140u, 0xfffu}) block->note_write(elsewhere, 1);
  EXPECT_EQ(block->code_generation(0)->load(), generation);
  block->note_write(0xfc, 8);  // into the line at 0x100
  EXPECT_NE(block->code_generation(0)->load(), generation);
}

TEST(RamBlockCode, LinesThatAreMarkedLaterCountToo) {
  const auto block = make_block(1);
  for (uint32_t i = 0; i < RamBlock::kWholePages; ++i) {
    block->mark_code(0);
    block->note_write(0, 1);
  }
  const uint32_t first = block->mark_code(0x100, 16);
  EXPECT_EQ(block->mark_code(0xf80, 0x1000), first);  // as far as the page goes
  block->note_write(0xfff, 1);
  EXPECT_NE(block->code_generation(0)->load(), first);
  // With the mark the lines are gone.
  const uint32_t second = block->mark_code(0x200, 1);
  block->note_write(0x100, 1);
  EXPECT_EQ(block->code_generation(0)->load(), second);
}

TEST(RamBlockCode, AnEmptyWriteIsNone) {
  const auto block = make_block(1);
  const uint32_t generation = block->mark_code(0);
  block->note_write(0, 0);
  EXPECT_EQ(block->code_generation(0)->load(), generation);
}

// One thread writes a counter and notes it; others cache it under a generation. A cached value whose generation stands
// must be the value in memory once the writer rests.
TEST(RamBlockCode, NoCachedValueOutlivesItsWriteUnnoticed) {
  const auto block = make_block(1);
  auto* const word = reinterpret_cast<std::atomic<uint32_t>*>(block->host());
  constexpr uint32_t kWrites = 200'000;
  std::atomic<bool> stop{false};
  struct Cached {
    uint32_t generation = 0;
    uint32_t value = 0;
  };
  std::array<Cached, 2> caches;
  std::vector<std::thread> readers;
  for (Cached& cache : caches)
    readers.emplace_back([&] {
      cache.generation = block->mark_code(0);
      cache.value = word->load(std::memory_order_relaxed);
      while (!stop.load(std::memory_order_relaxed)) {
        if (block->code_generation(0)->load() == cache.generation) continue;
        cache.generation = block->mark_code(0);
        cache.value = word->load(std::memory_order_relaxed);
      }
    });
  for (uint32_t i = 1; i <= kWrites; ++i) {
    word->store(i, std::memory_order_relaxed);
    block->note_write(0, 4);
  }
  stop.store(true);
  for (auto& reader : readers) reader.join();
  for (const Cached& cache : caches)
    EXPECT_TRUE(cache.value == kWrites || block->code_generation(0)->load() != cache.generation);
}

TEST(RamBlockDirty, ReportsPagesWrittenSinceTheLastCollection) {
  const auto block = make_block(130);
  block->set_dirty_logging(true);
  block->note_write(kPageSize, 1);
  block->note_write(129 * kPageSize - 1, 2);
  const auto first = block->collect_dirty();
  ASSERT_EQ(first.size(), 3U);
  EXPECT_EQ(first[0], 2U);
  EXPECT_EQ(first[1], 0U);
  EXPECT_EQ(first[2], 3U);
  EXPECT_EQ(block->collect_dirty(), std::vector<uint64_t>(3, 0));
}

TEST(RamBlockDirty, EachIntervalSeesItsOwnWrites) {
  const auto block = make_block(2);
  block->set_dirty_logging(true);
  block->note_write(0, 1);
  (void)block->collect_dirty();
  block->note_write(0, 1);
  EXPECT_EQ(block->collect_dirty()[0], 1U);
}

TEST(RamBlockDirty, OnlyTheFirstWriteOfAnIntervalIsSlow) {
  const auto block = make_block(1);
  block->set_dirty_logging(true);
  EXPECT_NE(block->page_state(0)->load(), 0);
  block->note_write(0, 1);
  EXPECT_EQ(block->page_state(0)->load(), 0);
}

TEST(RamBlockDirty, OffReportsNothingAndForgets) {
  const auto block = make_block(1);
  block->note_write(0, 1);
  EXPECT_EQ(block->collect_dirty()[0], 0U);
  block->set_dirty_logging(true);
  block->note_write(0, 1);
  block->set_dirty_logging(false);
  EXPECT_EQ(block->page_state(0)->load(), 0);
  block->set_dirty_logging(true);
  EXPECT_EQ(block->collect_dirty()[0], 0U);
}

class CountingWatch final : public StoreWatch {
 public:
  void stored() override { ++stores; }
  int stores = 0;
};

TEST(RamBlockWatch, TellsOfTheNextStoreOnceAndOfNoOtherPage) {
  const auto block = *RamBlock::create("ram", 2 * kPageSize);
  CountingWatch watch;
  block->watch_page(kPageSize + 8, watch);
  block->note_write(0, 8);
  EXPECT_EQ(watch.stores, 0);
  block->note_write(2 * kPageSize - 1, 1);
  block->note_write(kPageSize, 1);
  EXPECT_EQ(watch.stores, 1);
}

TEST(RamBlockWatch, SaysNothingAfterUnwatching) {
  const auto block = *RamBlock::create("ram", kPageSize);
  CountingWatch gone, kept;
  block->watch_page(0, gone);
  block->watch_page(0, kept);
  block->unwatch_page(gone);
  block->note_write(0, 1);
  EXPECT_EQ(gone.stores, 0);
  EXPECT_EQ(kept.stores, 1);
}

TEST(RamBlockDirty, CodeAndDirtyMarksAreIndependent) {
  const auto block = make_block(1);
  block->set_dirty_logging(true);
  const uint32_t generation = block->mark_code(0);
  block->note_write(0, 1);
  EXPECT_EQ(block->collect_dirty()[0], 1U);
  EXPECT_NE(block->code_generation(0)->load(), generation);
}

TEST(RamBlockDirty, NoWriteIsLostBetweenConcurrentCollections) {
  const auto block = make_block(1);
  auto* const word = reinterpret_cast<std::atomic<uint32_t>*>(block->host());
  block->set_dirty_logging(true);
  constexpr uint32_t kWrites = 200'000;
  std::atomic<bool> stop{false};
  uint32_t copy = 0;
  std::thread copier([&] {
    while (!stop.load()) {
      if (block->collect_dirty()[0] != 0) copy = word->load(std::memory_order_relaxed);
    }
  });
  std::thread second([&] {
    for (uint32_t i = 0; i < kWrites; ++i) block->note_write(64, 1);
  });
  for (uint32_t i = 1; i <= kWrites; ++i) {
    word->store(i, std::memory_order_relaxed);
    block->note_write(0, 4);
  }
  second.join();
  stop.store(true);
  copier.join();
  if (block->collect_dirty()[0] != 0) copy = word->load();
  EXPECT_EQ(copy, kWrites);
}

// --- pages that are given back

TEST(RamBlockDiscard, PagesReadAsZeroAndCountAsWritten) {
  const auto block = make_block(4);
  std::memset(block->host(), 0x11, 4 * kPageSize);
  block->set_dirty_logging(true);
  const uint32_t code = block->mark_code(2 * kPageSize), other = block->mark_code(3 * kPageSize);
  CountingWatch watch;
  block->watch_page(kPageSize, watch);
  ASSERT_TRUE(block->discard(kPageSize, 2 * kPageSize));
  EXPECT_EQ(block->host()[kPageSize - 1], 0x11);
  EXPECT_EQ(block->host()[kPageSize], 0);
  EXPECT_EQ(block->host()[3 * kPageSize - 1], 0);
  EXPECT_EQ(block->host()[3 * kPageSize], 0x11);
  EXPECT_EQ(block->collect_dirty()[0], 6U);
  EXPECT_NE(block->code_generation(2 * kPageSize)->load(), code);
  EXPECT_EQ(block->code_generation(3 * kPageSize)->load(), other);
  EXPECT_EQ(watch.stores, 1);
}

TEST(RamBlockDiscard, FilesThatAreSharedGetHoles) {
  const auto block = make_block(4);
  const Fd file(::memfd_create("test", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), 4 * kPageSize), 0);
  void* const mapped =
      ::mmap(block->host(), 4 * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file.get(), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  std::memset(block->host(), 0x11, 4 * kPageSize);
  ASSERT_TRUE(block->discard(kPageSize, 2 * kPageSize));
  struct stat info{};
  ASSERT_EQ(::fstat(file.get(), &info), 0);
  EXPECT_EQ(info.st_blocks * 512, static_cast<off_t>(2 * kPageSize));
  EXPECT_EQ(block->host()[kPageSize], 0);
}

}  // namespace
}  // namespace kite

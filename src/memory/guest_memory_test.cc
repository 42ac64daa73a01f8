#include "memory/guest_memory.h"

#include <gtest/gtest.h>

#include <cstring>

#include "memory/test_io.h"

namespace kite {
namespace {

using testing::make_ram;
using testing::RecordingIo;

class GuestMemoryTest : public ::testing::Test {
 protected:
  // RAM 0-0x3fff, ROM 0x4000-0x4fff, a device at 0x5000, RAM again at 0x10000.
  GuestMemoryTest() {
    space.root().add(0, Region::ram("low", low));
    space.root().add(0x4000, Region::rom("rom", rom));
    space.root().add(0x5000, Region::io("dev", 0x1000, io));
    space.root().add(0x10000, Region::ram("high", high));
    space.commit();
  }
  std::shared_ptr<RamBlock> low = make_ram(4), rom = make_ram(1), high = make_ram(1);
  RecordingIo io;
  AddressSpace space{"memory", uint64_t{1} << 52};
  GuestMemory memory{space};
};

TEST_F(GuestMemoryTest, ValuesGoInAndOut) {
  ASSERT_TRUE(memory.store<uint32_t>(0x1ffe, 0xdeadbeef));
  EXPECT_EQ(memory.load<uint32_t>(0x1ffe).value(), 0xdeadbeefU);
  EXPECT_EQ(low->host()[0x1ffe], 0xef);
}

TEST_F(GuestMemoryTest, ReadsCrossFromRamToRom) {
  low->host()[0x3fff] = 1;
  rom->host()[0] = 2;
  EXPECT_EQ(memory.load<uint16_t>(0x3fff).value(), 0x0201U);
}

TEST_F(GuestMemoryTest, AWriteThatReachesRomChangesNothing) {
  EXPECT_FALSE(memory.store<uint32_t>(0x3ffe, 0x11111111));
  EXPECT_EQ(low->host()[0x3ffe], 0);
}

TEST_F(GuestMemoryTest, DevicesAreNeverReached) {
  EXPECT_FALSE(memory.load<uint32_t>(0x5000));
  EXPECT_FALSE(memory.store<uint32_t>(0x5000, 1));
  EXPECT_TRUE(io.take().empty());
}

TEST_F(GuestMemoryTest, HolesAndTheEndOfTheNumbersAreErrors) {
  EXPECT_FALSE(memory.load<uint8_t>(0x8000));
  EXPECT_FALSE(memory.load<uint64_t>(UINT64_MAX - 2));
  EXPECT_FALSE(memory.load<uint64_t>(0x10ffc));
  std::vector<DmaSpan> spans;
  EXPECT_FALSE(memory.pin(0x1000, UINT64_MAX, DmaDirection::kFromGuest, spans));
  EXPECT_FALSE(memory.fill(0, UINT64_MAX, 0));
}

TEST_F(GuestMemoryTest, NothingIsAlwaysThere) {
  EXPECT_TRUE(memory.read(0x8000, {}));
  std::vector<DmaSpan> spans;
  EXPECT_TRUE(memory.pin(0x8000, 0, DmaDirection::kToGuest, spans));
  EXPECT_TRUE(spans.empty());
}

TEST_F(GuestMemoryTest, WritesAndFillsAreNoted) {
  low->set_dirty_logging(true);
  ASSERT_TRUE(memory.store<uint16_t>(0xfff, 0));
  EXPECT_EQ(low->collect_dirty()[0], 3U);
  ASSERT_TRUE(memory.fill(0x2000, 0x1001, 0xcc));
  EXPECT_EQ(low->collect_dirty()[0], 0xcU);
  EXPECT_EQ(low->host()[0x3000], 0xcc);
}

TEST_F(GuestMemoryTest, PinsOneSpanAContiguousPiece) {
  // The second half of the block is seen just below the first: two pieces.
  space.root().add(0x20000, Region::alias("a", Region::ram("x", low), 0x2000, 0x2000));
  space.root().add(0x22000, Region::alias("b", Region::ram("y", low), 0x0000, 0x1000));
  space.root().add(0x23000, Region::alias("c", Region::ram("z", low), 0x1000, 0x1000));
  space.commit();
  std::vector<DmaSpan> spans;
  ASSERT_TRUE(memory.pin(0x21000, 0x2800, DmaDirection::kFromGuest, spans));
  ASSERT_EQ(spans.size(), 2U);
  EXPECT_EQ(spans[0].bytes().data(), low->host() + 0x3000);
  EXPECT_EQ(spans[0].size(), 0x1000U);
  EXPECT_EQ(spans[1].bytes().data(), low->host());
  EXPECT_EQ(spans[1].size(), 0x1800U);
}

TEST_F(GuestMemoryTest, PinGoesOnWhereTheLastSpanEnds) {
  std::vector<DmaSpan> spans;
  ASSERT_TRUE(memory.pin(0x1000, 0x800, DmaDirection::kFromGuest, spans));
  ASSERT_TRUE(memory.pin(0x1800, 0x800, DmaDirection::kFromGuest, spans));
  ASSERT_EQ(spans.size(), 1U);
  EXPECT_EQ(spans[0].size(), 0x1000U);
  ASSERT_TRUE(memory.pin(0x1000, 0x800, DmaDirection::kFromGuest, spans));
  ASSERT_TRUE(memory.pin(0x1800, 0x800, DmaDirection::kToGuest, spans));
  EXPECT_EQ(spans.size(), 3U) << "another place, another direction";
}

TEST_F(GuestMemoryTest, PinAppendsNothingOnError) {
  std::vector<DmaSpan> spans;
  EXPECT_FALSE(memory.pin(0x3000, 0x2000, DmaDirection::kToGuest, spans));
  EXPECT_TRUE(spans.empty());
  EXPECT_TRUE(memory.pin(0x3000, 0x2000, DmaDirection::kFromGuest, spans));
  EXPECT_EQ(spans.size(), 2U);
}

TEST_F(GuestMemoryTest, ASpanOutlivesItsRegion) {
  std::vector<DmaSpan> spans;
  ASSERT_TRUE(memory.pin(0x10000, 16, DmaDirection::kToGuest, spans));
  space.root().set_enabled(false);
  space.commit();
  const std::weak_ptr<RamBlock> watch = high;
  high.reset();
  spans[0].bytes()[0] = 1;
  EXPECT_FALSE(watch.expired());
}

TEST_F(GuestMemoryTest, CompletionMarksWhatWasWritten) {
  low->set_dirty_logging(true);
  std::vector<DmaSpan> spans;
  ASSERT_TRUE(memory.pin(0, 0x4000, DmaDirection::kToGuest, spans));
  spans[0].complete(0x1001);
  spans.clear();
  EXPECT_EQ(low->collect_dirty()[0], 3U);
}

TEST_F(GuestMemoryTest, CompletionIsClippedToTheSpan) {
  low->set_dirty_logging(true);
  std::vector<DmaSpan> spans;
  ASSERT_TRUE(memory.pin(0, 0x1000, DmaDirection::kToGuest, spans));
  spans[0].complete(UINT64_MAX);
  EXPECT_EQ(low->collect_dirty()[0], 1U);
}

TEST_F(GuestMemoryTest, ADroppedSpanCountsAsWritten) {
  low->set_dirty_logging(true);
  std::vector<DmaSpan> spans;
  ASSERT_TRUE(memory.pin(0x1000, 0x2000, DmaDirection::kToGuest, spans));
  spans.clear();
  EXPECT_EQ(low->collect_dirty()[0], 6U);
}

TEST_F(GuestMemoryTest, AMovedSpanFinishesOnce) {
  low->set_dirty_logging(true);
  std::vector<DmaSpan> spans;
  ASSERT_TRUE(memory.pin(0, 0x1000, DmaDirection::kToGuest, spans));
  DmaSpan moved = std::move(spans[0]);
  spans.clear();
  EXPECT_EQ(low->collect_dirty()[0], 0U);
  moved.complete(1);
  EXPECT_EQ(low->collect_dirty()[0], 1U);
}

TEST_F(GuestMemoryTest, ReadingSpansMarkNothing) {
  low->set_dirty_logging(true);
  std::vector<DmaSpan> spans;
  ASSERT_TRUE(memory.pin(0, 0x1000, DmaDirection::kFromGuest, spans));
  spans.clear();
  EXPECT_EQ(low->collect_dirty()[0], 0U);
}

TEST_F(GuestMemoryTest, WholePagesOfRamAreGivenBack) {
  for (const auto& block : {low, rom, high}) std::memset(block->host(), 0x11, block->size());
  EXPECT_EQ(memory.discard(0x2001, 0x1ffe), 0U);
  EXPECT_EQ(low->host()[0x3000], 0x11);
  // From the middle of RAM over ROM, a device and a hole into RAM.
  EXPECT_EQ(memory.discard(0x1800, 0xf800), 0x3000U);
  EXPECT_EQ(low->host()[0x1fff], 0x11);
  EXPECT_EQ(low->host()[0x2000], 0);
  EXPECT_EQ(rom->host()[0], 0x11);
  EXPECT_EQ(high->host()[0], 0);
  EXPECT_TRUE(io.take().empty());
  EXPECT_EQ(memory.discard(UINT64_MAX - 5, UINT64_MAX), 0U);
  EXPECT_EQ(memory.discard(0, UINT64_MAX), 0x5000U);
}

}  // namespace
}  // namespace kite

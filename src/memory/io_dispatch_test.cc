// How accesses reach memory and handlers through AddressSpace::read and write.
#include "memory/io_dispatch.h"

#include <gtest/gtest.h>

#include "memory/test_io.h"

namespace kite {
namespace {

using testing::make_ram;
using testing::RecordingIo;
using Log = std::vector<std::string>;

class DispatchTest : public ::testing::Test {
 protected:
  void map_io(uint64_t address, uint64_t size, AccessRule rule = {}) {
    space.root().add(address, Region::io("dev", size, io, rule), 1);
    space.commit();
  }
  uint64_t read(uint64_t address, unsigned size) {
    uint64_t value = 0x5555555555555555;
    result = space.read(address, size, value);
    return value;
  }
  void write(uint64_t address, unsigned size, uint64_t value) { result = space.write(address, size, value); }

  AddressSpace space{"memory", uint64_t{1} << 52};
  RecordingIo io;
  AccessResult result = AccessResult::kOk;
};

TEST_F(DispatchTest, UnassignedReadsAllOnesOfTheSize) {
  EXPECT_EQ(read(0x1000, 1), 0xffU);
  EXPECT_EQ(result, AccessResult::kUnassigned);
  EXPECT_EQ(read(0x1000, 2), 0xffffU);
  EXPECT_EQ(read(0x1001, 4), 0xffffffffU);
  EXPECT_EQ(read(0x1000, 8), UINT64_MAX);
}

TEST_F(DispatchTest, UnassignedWritesGoNowhere) {
  write(0x1000, 4, 1);
  EXPECT_EQ(result, AccessResult::kUnassigned);
}

TEST_F(DispatchTest, TheLastAddressDoesNotWrap) {
  EXPECT_EQ(read(UINT64_MAX, 8), UINT64_MAX);
  write(UINT64_MAX, 8, 0);
  EXPECT_EQ(result, AccessResult::kUnassigned);
}

TEST_F(DispatchTest, RamHoldsWhatWasWrittenAtAnySizeAndAlignment) {
  space.root().add(0, Region::ram("ram", make_ram(2)));
  space.commit();
  for (const unsigned size : {1U, 2U, 4U, 8U})
    for (uint64_t at = 0xff0; at < 0x1008; ++at) {
      const uint64_t value = 0x8877665544332211U * (at + size);
      write(at, size, value);
      ASSERT_EQ(read(at, size), size == 8 ? value : value & ((uint64_t{1} << (size * 8)) - 1)) << at << ' ' << size;
    }
}

TEST_F(DispatchTest, RamWritesAreNoted) {
  const auto block = make_ram(2);
  space.root().add(0x10000, Region::ram("ram", block));
  space.commit();
  const uint32_t generation = block->mark_code(kPageSize);
  write(0x10ffe, 4, 0);
  EXPECT_NE(block->code_generation(kPageSize)->load(), generation);
}

TEST_F(DispatchTest, RomDropsWritesQuietly) {
  const auto block = make_ram(1);
  block->host()[4] = 0x77;
  space.root().add(0, Region::rom("rom", block));
  space.commit();
  write(4, 1, 0x11);
  EXPECT_EQ(result, AccessResult::kOk);
  EXPECT_EQ(read(4, 1), 0x77U);
}

TEST_F(DispatchTest, FramebuffersAreMemory) {
  const auto block = make_ram(1);
  space.root().add(0, Region::ram_device("vram", block));
  space.commit();
  write(0x10, 2, 0xabcd);
  EXPECT_EQ(block->host()[0x11], 0xab);
}

TEST_F(DispatchTest, ConformingAccessesPassWhole) {
  map_io(0x1000, 0x100, {.min_size = 1, .max_size = 4});
  EXPECT_EQ(read(0x1004, 4), 0x07060504U);
  write(0x1008, 2, 0xffff1234);
  EXPECT_EQ(io.take(), (Log{"r4@4", "w2@8=1234"}));
}

TEST_F(DispatchTest, WideAccessesAreSplitLowAddressFirst) {
  map_io(0, 0x100, {.min_size = 1, .max_size = 2});
  EXPECT_EQ(read(0x10, 8), 0x1716151413121110U);
  write(0x20, 4, 0xaabbccdd);
  EXPECT_EQ(io.take(), (Log{"r2@10", "r2@12", "r2@14", "r2@16", "w2@20=ccdd", "w2@22=aabb"}));
}

TEST_F(DispatchTest, MisalignedAccessesAreSplitIntoAlignedOnes) {
  map_io(0, 0x100);
  EXPECT_EQ(read(0x11, 4), 0x14131211U);
  write(0x13, 4, 0xaabbccdd);
  EXPECT_EQ(io.take(), (Log{"r1@11", "r2@12", "r1@14", "w1@13=dd", "w2@14=bbcc", "w1@16=aa"}));
}

TEST_F(DispatchTest, UnalignedHandlersGetThemWhole) {
  map_io(0, 0x100, {.min_size = 1, .max_size = 4, .unaligned = true});
  EXPECT_EQ(read(0x11, 4), 0x14131211U);
  EXPECT_EQ(read(0x21, 8), 0x2827262524232221U);
  EXPECT_EQ(io.take(), (Log{"r4@11", "r4@21", "r4@25"}));
}

TEST_F(DispatchTest, NarrowReadsAreWidenedAndShifted) {
  map_io(0, 0x100, {.min_size = 4, .max_size = 4});
  EXPECT_EQ(read(0x12, 1), 0x12U);
  EXPECT_EQ(read(0x16, 2), 0x1716U);
  EXPECT_EQ(io.take(), (Log{"r4@10", "r4@14"}));
}

TEST_F(DispatchTest, NarrowWritesCarryZerosInTheOtherLanes) {
  map_io(0, 0x100, {.min_size = 4, .max_size = 4});
  write(0x12, 1, 0xab);
  EXPECT_EQ(io.take(), (Log{"w4@10=ab0000"}));
}

TEST_F(DispatchTest, AMisalignedAccessReadsEachWordOnce) {
  map_io(0, 0x100, {.min_size = 4, .max_size = 4});
  EXPECT_EQ(read(0x11, 4), 0x14131211U);
  EXPECT_EQ(io.take(), (Log{"r4@10", "r4@14"}));
}

TEST_F(DispatchTest, StraddlingAccessesAreAnsweredByBothSides) {
  space.root().add(0, Region::ram("ram", make_ram(1)));
  map_io(0x1000, 0x100);
  write(0xffc, 4, 0x44332211);
  EXPECT_EQ(read(0xffe, 4), 0x01004433U);
  write(0xffe, 4, 0xddccbbaa);
  EXPECT_EQ(read(0xffe, 2), 0xbbaaU);
  EXPECT_EQ(io.take(), (Log{"r2@0", "w2@0=ddcc"}));
}

TEST_F(DispatchTest, ThreeRangesAndAHoleInOneAccess) {
  map_io(0x10, 2);
  space.root().add(0x13, Region::io("second", 1, io), 1);
  space.commit();
  EXPECT_EQ(read(0x0f, 8), 0xffffff00ff0100ffU);
  EXPECT_EQ(result, AccessResult::kOk);
}

TEST_F(DispatchTest, HandlersMayChangeTheTree) {
  struct Mover final : IoHandler {
    uint64_t io_read(uint64_t, unsigned) override { return 0; }
    void io_write(uint64_t, unsigned, uint64_t value) override { region->set_offset(value); }
    std::shared_ptr<Region> region;
  } mover;
  mover.region = Region::io("mover", 0x10, mover);
  space.root().add(0, mover.region);
  space.commit();
  write(0, 4, 0x100);
  EXPECT_TRUE(space.stale());
  EXPECT_EQ(read(0, 1), 0U);
  space.commit();
  EXPECT_EQ(read(0, 1), 0xffU);
  EXPECT_EQ(read(0x100, 1), 0U);
  mover.region->set_enabled(false);
}

TEST_F(DispatchTest, CoalescedRegionsAnswerLikeTrappedOnes) {
  space.root().add(0, Region::coalesced("vga", 0x10, io));
  space.commit();
  write(2, 1, 3);
  EXPECT_EQ(read(2, 1), 2U);
  EXPECT_EQ(io.take(), (Log{"w1@2=3", "r1@2"}));
}

}  // namespace
}  // namespace kite

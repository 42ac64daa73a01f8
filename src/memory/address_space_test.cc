#include "memory/address_space.h"

#include <gtest/gtest.h>

#include <thread>

#include "memory/test_io.h"

namespace kite {
namespace {

using testing::make_ram;
using testing::RecordingIo;

struct Recorder final : MapObserver {
  void range_removed(const FlatRange& range) override { log.push_back(text('-', range)); }
  void range_added(const FlatRange& range) override { log.push_back(text('+', range)); }
  void commit_done() override { log.emplace_back("done"); }
  static std::string text(char sign, const FlatRange& range) {
    return fmt::format("{}{} {:x}-{:x} @{:x}{}", sign, range.region->name(), range.start, range.end,
                       range.region_offset, range.read_only ? " ro" : "");
  }
  std::vector<std::string> take() { return std::exchange(log, {}); }
  std::vector<std::string> log;
};

using Log = std::vector<std::string>;

class AddressSpaceTest : public ::testing::Test {
 protected:
  // The map as one line a range.
  Log map() {
    space.commit();
    const EpochGuard guard;
    Log lines;
    for (const FlatRange& range : space.view(guard).ranges()) lines.push_back(Recorder::text('=', range));
    return lines;
  }
  uint64_t read(uint64_t address, unsigned size) {
    uint64_t value = 0x5555555555555555;
    space.read(address, size, value);
    return value;
  }

  AddressSpace space{"memory", uint64_t{1} << 52};
  RecordingIo io;
};

using Render = AddressSpaceTest;

TEST_F(Render, EmptySpaceHasNoRanges) { EXPECT_EQ(map(), Log{}); }

TEST_F(Render, PlacesChildrenOfContainers) {
  const auto bus = Region::container("bus", 0x10000);
  space.root().add(0x100000, bus);
  bus->add(0x1000, Region::io("dev", 0x100, io));
  EXPECT_EQ(map(), (Log{"=dev 101000-101100 @0"}));
}

TEST_F(Render, HigherPriorityCoversLower) {
  space.root().add(0, Region::ram("ram", make_ram(4)));
  space.root().add(0x1000, Region::io("dev", 0x1000, io), 1);
  EXPECT_EQ(map(), (Log{"=ram 0-1000 @0", "=dev 1000-2000 @0", "=ram 2000-4000 @2000"}));
}

TEST_F(Render, AmongEqualsTheLaterAddedWins) {
  space.root().add(0, Region::io("first", 0x2000, io));
  space.root().add(0x1000, Region::io("second", 0x2000, io));
  EXPECT_EQ(map(), (Log{"=first 0-1000 @0", "=second 1000-3000 @0"}));
}

TEST_F(Render, PriorityComparesOnlyAmongSiblings) {
  const auto low = Region::container("low", 0x1000);
  const auto high = Region::container("high", 0x1000);
  space.root().add(0, low, 0);
  space.root().add(0, high, 1);
  low->add(0, Region::io("loud", 0x1000, io), 100);
  high->add(0, Region::io("quiet", 0x800, io), -100);
  EXPECT_EQ(map(), (Log{"=quiet 0-800 @0", "=loud 800-1000 @800"}));
}

TEST_F(Render, ChangedPriorityReorders) {
  const auto first = Region::io("first", 0x1000, io);
  space.root().add(0, first);
  space.root().add(0, Region::io("second", 0x1000, io));
  first->set_priority(1);
  EXPECT_EQ(map(), (Log{"=first 0-1000 @0"}));
  first->set_priority(0);
  EXPECT_EQ(map(), (Log{"=second 0-1000 @0"}));
}

TEST_F(Render, DisabledSubtreesAreInvisible) {
  const auto bus = Region::container("bus", 0x1000);
  bus->add(0, Region::io("dev", 0x1000, io));
  space.root().add(0, bus);
  bus->set_enabled(false);
  EXPECT_EQ(map(), Log{});
  bus->set_enabled(true);
  EXPECT_EQ(map(), (Log{"=dev 0-1000 @0"}));
}

TEST_F(Render, ChildrenAreClippedToTheirContainer) {
  const auto bus = Region::container("bus", 0x1000);
  bus->add(0x800, Region::io("dev", 0x1000, io));
  space.root().add(0x4000, bus);
  EXPECT_EQ(map(), (Log{"=dev 4800-5000 @0"}));
}

TEST_F(Render, TheSpaceClipsToo) {
  AddressSpace ports("io", 0x10000);
  ports.root().add(0xfff8, Region::io("dev", 0x10, io));
  ports.commit();
  const EpochGuard guard;
  ASSERT_EQ(ports.view(guard).ranges().size(), 1U);
  EXPECT_EQ(ports.view(guard).ranges()[0].end, 0x10000U);
}

TEST_F(Render, OffsetsNearTheEndOfTheNumbersDoNotWrap) {
  space.root().add(UINT64_MAX - 0xfff, Region::io("dev", 0x2000, io));
  EXPECT_EQ(map(), Log{});
}

TEST_F(Render, AliasShowsAWindowOfItsTarget) {
  const auto ram = Region::ram("ram", make_ram(16));
  space.root().add(0, Region::alias("low", ram, 0, 0x8000));
  space.root().add(0x100000, Region::alias("high", ram, 0x8000, 0x8000));
  EXPECT_EQ(map(), (Log{"=ram 0-8000 @0", "=ram 100000-108000 @8000"}));
}

TEST_F(Render, AliasesNest) {
  const auto ram = Region::ram("ram", make_ram(16));
  const auto inner = Region::alias("inner", ram, 0x4000, 0x8000);
  space.root().add(0x20000, Region::alias("outer", inner, 0x1000, 0x2000));
  EXPECT_EQ(map(), (Log{"=ram 20000-22000 @5000"}));
}

TEST_F(Render, AliasOfAContainerShowsWhatLiesInItsWindow) {
  const auto pci = Region::container("pci", uint64_t{1} << 32);
  pci->add(0xa0000, Region::io("vga", 0x20000, io));
  space.root().add(0xa8000, Region::alias("window", pci, 0xa8000, 0x8000));
  EXPECT_EQ(map(), (Log{"=vga a8000-b0000 @8000"}));
}

TEST_F(Render, AliasOffsetMoves) {
  const auto ram = Region::ram("ram", make_ram(16));
  const auto window = Region::alias("window", ram, 0, 0x1000);
  space.root().add(0, window);
  window->set_alias_offset(0x3000);
  EXPECT_EQ(map(), (Log{"=ram 0-1000 @3000"}));
}

TEST_F(Render, AliasBeyondItsTargetShowsNothing) {
  space.root().add(0, Region::alias("window", Region::ram("ram", make_ram(1)), 0x800, 0x10000));
  EXPECT_EQ(map(), (Log{"=ram 0-800 @800"}));
}

TEST_F(Render, AnAliasOfItsOwnContainerIsCutOff) {
  const auto bus = Region::container("bus", 0x2000);
  space.root().add(0, bus);
  const auto loop = Region::alias("loop", bus, 0, 0x2000);
  bus->add(0x1000, loop);
  bus->add(0, Region::io("dev", 0x10, io));
  const Log lines = map();
  ASSERT_FALSE(lines.empty());
  EXPECT_EQ(lines[0], "=dev 0-10 @0");
  bus->set_enabled(false);
  EXPECT_TRUE(space.stale());
  bus->remove(loop);  // the two hold each other
}

TEST_F(Render, AdjacentViewsOfOneRegionMerge) {
  const auto ram = Region::ram("ram", make_ram(16));
  for (uint64_t at = 0; at < 0x10000; at += 0x4000) space.root().add(at, Region::alias("pam", ram, at, 0x4000));
  EXPECT_EQ(map(), (Log{"=ram 0-10000 @0"}));
}

TEST_F(Render, ReadOnlyAliasSplitsTheRam) {
  const auto ram = Region::ram("ram", make_ram(16));
  space.root().add(0, ram);
  const auto pam = Region::alias("pam", ram, 0x4000, 0x4000);
  space.root().add(0x4000, pam, 1);
  pam->set_read_only(true);
  EXPECT_EQ(map(), (Log{"=ram 0-4000 @0", "=ram 4000-8000 @4000 ro", "=ram 8000-10000 @8000"}));
  pam->set_read_only(false);
  EXPECT_EQ(map(), (Log{"=ram 0-10000 @0"}));
}

TEST_F(Render, ReadOnlySaysNothingAboutTrappedRegions) {
  const auto bus = Region::container("bus", 0x1000);
  bus->add(0, Region::io("dev", 0x1000, io));
  bus->set_read_only(true);
  space.root().add(0, bus);
  EXPECT_EQ(map(), (Log{"=dev 0-1000 @0"}));
}

TEST_F(Render, RomIsReadOnlyUntilItIsOpened) {
  const auto rom = Region::rom("rom", make_ram(1));
  space.root().add(0, rom);
  EXPECT_EQ(map(), (Log{"=rom 0-1000 @0 ro"}));
  rom->set_read_only(false);
  EXPECT_EQ(map(), (Log{"=rom 0-1000 @0"}));
}

TEST_F(Render, RemovedRegionsAreGone) {
  const auto dev = Region::io("dev", 0x10, io);
  space.root().add(0, dev);
  space.root().remove(dev);
  EXPECT_EQ(map(), Log{});
  space.root().add(0x20, dev);
  EXPECT_EQ(map(), (Log{"=dev 20-30 @0"}));
}

TEST_F(AddressSpaceTest, StaleFollowsTheTree) {
  space.commit();
  EXPECT_FALSE(space.stale());
  const auto bus = Region::container("bus", 0x1000);
  space.root().add(0, bus);
  EXPECT_TRUE(space.stale());
  space.commit();
  bus->set_offset(0);
  EXPECT_FALSE(space.stale()) << "nothing changed";
  bus->set_offset(0x1000);
  EXPECT_TRUE(space.stale());
}

TEST_F(AddressSpaceTest, StaleFollowsAliasesAndNothingElse) {
  AddressSpace other("other", 0x10000);
  const auto shared = Region::container("shared", 0x1000);
  space.root().add(0, Region::alias("window", shared, 0, 0x1000));
  space.commit();
  other.commit();
  shared->add(0, Region::io("dev", 0x10, io));
  EXPECT_TRUE(space.stale());
  EXPECT_FALSE(other.stale());
}

TEST_F(AddressSpaceTest, TheViewChangesOnlyWithACommit) {
  const auto dev = Region::io("dev", 0x10, io);
  space.root().add(0, dev);
  space.commit();
  dev->set_enabled(false);
  EXPECT_EQ(read(0, 1), 0x00U);
  space.commit();
  EXPECT_EQ(read(0, 1), 0xffU);
}

TEST_F(AddressSpaceTest, AReaderKeepsTheViewItHolds) {
  const auto dev = Region::io("dev", 0x10, io);
  space.root().add(0, dev);
  space.commit();
  const EpochGuard guard;
  const FlatView& view = space.view(guard);
  space.root().remove(dev);
  space.commit();
  ASSERT_EQ(view.ranges().size(), 1U);
  EXPECT_EQ(view.find(4)->region, dev);
  EXPECT_EQ(space.view(guard).find(4), nullptr);
}

TEST_F(AddressSpaceTest, ObserversHearOfChangesOnly) {
  const auto ram = Region::ram("ram", make_ram(16));
  space.root().add(0, ram);
  space.root().add(0x20000, Region::io("far", 0x10, io));
  const auto dev = Region::io("dev", 0x1000, io);
  space.root().add(0x4000, dev, 1);
  dev->set_enabled(false);
  space.commit();
  Recorder recorder;
  space.add_observer(recorder);
  EXPECT_EQ(recorder.take(), (Log{"+ram 0-10000 @0", "+far 20000-20010 @0", "done"}));
  dev->set_enabled(true);
  space.commit();
  EXPECT_EQ(recorder.take(),
            (Log{"-ram 0-10000 @0", "+ram 0-4000 @0", "+dev 4000-5000 @0", "+ram 5000-10000 @5000", "done"}));
  space.remove_observer(recorder);
  dev->set_enabled(false);
  space.commit();
  EXPECT_EQ(recorder.take(), Log{});
}

TEST_F(AddressSpaceTest, AReadOnlyFlipIsARemovalAndAnAddition) {
  const auto ram = Region::ram("ram", make_ram(1));
  space.root().add(0, ram);
  space.commit();
  Recorder recorder;
  space.add_observer(recorder);
  recorder.take();
  ram->set_read_only(true);
  space.commit();
  EXPECT_EQ(recorder.take(), (Log{"-ram 0-1000 @0", "+ram 0-1000 @0 ro", "done"}));
  space.remove_observer(recorder);
}

TEST_F(AddressSpaceTest, DumpNamesRangesInOrder) {
  space.root().add(0, Region::ram("pc.ram", make_ram(2)));
  space.root().add(0x1000, Region::rom("bios", make_ram(1)), 1);
  space.root().add(0xfec00000, Region::io("ioapic", 0x1000, io));
  space.commit();
  EXPECT_EQ(space.dump(),
            "address space: memory\n"
            "  0000000000000000-0000000000000fff (ram): pc.ram\n"
            "  0000000000001000-0000000000001fff (rom): bios\n"
            "  00000000fec00000-00000000fec00fff (i/o): ioapic\n");
}

TEST_F(AddressSpaceTest, DenseAndSearchedViewsAgree) {
  std::vector<FlatRange> ranges;
  const std::shared_ptr<const Region> region = Region::io("dev", 0x10000, io);
  for (uint64_t at = 3; at < 0xff00; at += 0x35)
    ranges.push_back({.start = at, .end = at + 0x20, .region = region, .region_offset = at});
  const FlatView dense(ranges);
  ranges.push_back({.start = 0x20000, .end = 0x20001, .region = region, .region_offset = 0});
  const FlatView searched(ranges);
  for (uint64_t address = 0; address < 0x10000; ++address) {
    const FlatRange* const a = dense.find(address);
    const FlatRange* const b = searched.find(address);
    ASSERT_EQ(a == nullptr, b == nullptr) << address;
    if (a != nullptr) ASSERT_EQ(*a, *b) << address;
  }
  EXPECT_EQ(dense.find(0x20000), nullptr);
  EXPECT_EQ(dense.find(UINT64_MAX), nullptr);
}

TEST_F(AddressSpaceTest, LookupsRunWhileTheMapIsReplaced) {
  const auto ram = Region::ram("ram", make_ram(4));
  const auto dev = Region::io("dev", 0x1000, io);
  space.root().add(0, ram);
  space.root().add(0x1000, dev, 1);
  space.commit();
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i)
    readers.emplace_back([&] {
      while (!stop.load()) {
        const EpochGuard guard;
        const FlatRange* const range = space.view(guard).find(0x1800);
        if (range == nullptr || (range->region != ram && range->region != dev)) wrong.fetch_add(1);
      }
    });
  for (int i = 0; i < 2000; ++i) {
    dev->set_enabled(i % 2 == 0);
    space.commit();
  }
  stop.store(true);
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(wrong.load(), 0U);
}

}  // namespace
}  // namespace kite

#include "cpu/tlb.h"

#include <gtest/gtest.h>

#include <memory>

namespace kite::cpu {
namespace {

void fill(TlbTable& table, uint64_t linear, bool global, uint8_t shift = kPageShift) {
  TlbEntry& entry = table.at(linear);
  entry.linear = table.accesses[TlbTable::index(linear)].read_tag = page_of(linear);
  entry.rights = TlbEntry::kRead;
  entry.global = global;
  entry.shift = shift;
  table.note_filled(linear);
}
bool holds(TlbTable& table, uint64_t linear) { return table.access_at(linear).read_tag == page_of(linear); }

TEST(Tlb, FlushDropsEverything) {
  auto table = std::make_unique<TlbTable>();
  fill(*table, 0x1000, false);
  fill(*table, 0x2000, true);
  table->flush(false);
  EXPECT_FALSE(holds(*table, 0x1000));
  EXPECT_FALSE(holds(*table, 0x2000));
}

TEST(Tlb, FlushKeepsGlobalEntries) {
  auto table = std::make_unique<TlbTable>();
  fill(*table, 0x1000, false);
  fill(*table, 0x2000, true);
  table->flush(true);
  EXPECT_FALSE(holds(*table, 0x1000));
  EXPECT_TRUE(holds(*table, 0x2000));
}

TEST(Tlb, SlotThatChangesItsKindIsStillFlushed) {
  auto table = std::make_unique<TlbTable>();
  const uint64_t alias = 0x1000 + kTlbSize * kPageSize;
  fill(*table, 0x1000, true);
  fill(*table, alias, false);
  table->flush(true);
  EXPECT_FALSE(holds(*table, alias));
  fill(*table, 0x1000, false);
  fill(*table, alias, true);
  table->flush(true);
  EXPECT_TRUE(holds(*table, alias));
  table->flush(false);
  EXPECT_FALSE(holds(*table, alias));
}

TEST(Tlb, ListsDoNotGrowWithRefills) {
  auto table = std::make_unique<TlbTable>();
  for (int i = 0; i < 5000; ++i) fill(*table, 0x3000, (i & 1) != 0);
  EXPECT_EQ(table->local_count, 1);
  EXPECT_EQ(table->global_count, 1);
}

TEST(Tlb, FlushPageLeavesOthers) {
  auto table = std::make_unique<TlbTable>();
  fill(*table, 0x1000, false);
  fill(*table, 0x2000, false);
  table->flush_page(0x1abc);
  EXPECT_FALSE(holds(*table, 0x1000));
  EXPECT_TRUE(holds(*table, 0x2000));
}

TEST(Tlb, FlushPageFindsSlicesOfEverySize) {
  for (const uint8_t shift : {uint8_t{21}, uint8_t{22}, uint8_t{30}}) {
    auto table = std::make_unique<TlbTable>();
    const uint64_t base = uint64_t{5} << shift;
    const uint64_t last = base + (uint64_t{1} << shift) - kPageSize;
    fill(*table, base, false, shift);
    fill(*table, last, true, shift);
    fill(*table, base - kPageSize, false);
    table->flush_page(base + 0x5000);
    EXPECT_FALSE(holds(*table, last)) << int{shift};
    if (table->at(base).linear != kNoTag) EXPECT_FALSE(holds(*table, base)) << int{shift};
    table->flush_page(last);
    EXPECT_FALSE(holds(*table, base)) << int{shift};
  }
}

TEST(Tlb, FlushPageFindsA4mSliceByItsOtherHalf) {
  auto table = std::make_unique<TlbTable>();
  fill(*table, 0x800000, false, 22);
  table->flush_page(0xa00000);
  EXPECT_FALSE(holds(*table, 0x800000));
}

}  // namespace
}  // namespace kite::cpu

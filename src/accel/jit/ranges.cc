#include "accel/jit/ranges.h"

namespace kite::jit {

using cpu::AccessRange;
using cpu::RangeRecord;
using cpu::TlbEntry;
using cpu::TlbTable;
using cpu::TranslationArea;

namespace {

// A range that misses once in so many time-stamps, on average since it was filled, is filled later the next time; and
// one that does so in fewer costs more than it saves. Where misses are rare, so may be the hits.
constexpr uint64_t kFrequentMiss = 256, kFastMiss = 256, kRareMiss = 8192;
// How many pages of 4 KiB a range takes on each side, when the host has them next to each other as the guest does.
constexpr int kMostNeighbours = 256;

#define KITE_NO_VECTORS __attribute__((target("general-regs-only"), always_inline))

// What the table says of a page.
struct Slot {
  const TlbEntry* entry;
  uint64_t tag;
  uintptr_t addend;
  uint64_t state;  // the address of its state byte
};

// Functions of other targets are not inlined, not even those of std::array.
KITE_NO_VECTORS inline size_t number_of(uint64_t linear) { return (linear >> kPageShift) & (cpu::kTlbSize - 1); }

KITE_NO_VECTORS inline Slot slot(const TlbTable* table, size_t number, bool writes) {
  const cpu::TlbAccess& access = reinterpret_cast<const cpu::TlbAccess*>(&table->accesses)[number];
  return {reinterpret_cast<const TlbEntry*>(&table->entries) + number, writes ? access.write_tag : access.read_tag,
          access.addend, reinterpret_cast<uint64_t>(access.page_state)};
}

constexpr uint64_t kStateStride = RamBlock::kStateStride;

// Whether the page may be in a range, which there may be stores to if it `writes`. The mark comes before the look.
KITE_NO_VECTORS inline bool may_have(uint64_t state, bool writes) {
  if (!writes) return true;
  auto* const bytes = reinterpret_cast<uint8_t*>(state);
  __atomic_store_n(bytes + RamBlock::kToUnlooked, 1, __ATOMIC_RELAXED);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  return __atomic_load_n(bytes, __ATOMIC_RELAXED) == 0;
}

// Whether the page `step` pages after `of` is as that, on the same terms.
KITE_NO_VECTORS inline bool is_alike(const TlbTable* table, const Slot& of, bool writes, int step) {
  const size_t number = number_of(of.entry->linear) + static_cast<size_t>(step);
  if (number >= cpu::kTlbSize) return false;
  const Slot next = slot(table, number, writes);
  const uint64_t page = of.entry->linear + static_cast<uint64_t>(step) * kPageSize;
  return next.entry->linear == page && next.tag == page && next.entry->shift == kPageShift &&
         next.addend == of.addend && next.entry->global == of.entry->global &&
         next.state == of.state + static_cast<uint64_t>(step) * kStateStride && may_have(next.state, writes);
}

// The code is left soon, to be made anew.
KITE_NO_VECTORS inline bool note_moved(TranslationArea* area, const RangeRecord& record, bool doubted) {
  if (area->moved_count == TranslationArea::kMostMoved) return false;
  TranslationArea::MovedRange* const to = &area->moved[area->moved_count++];
  to->owner = record.owner;
  to->place = record.place;
  to->doubted = doubted;
  __atomic_fetch_or(reinterpret_cast<uint32_t*>(&area->alarm), TranslationArea::kRequest, __ATOMIC_RELAXED);
  return true;
}

// Whether the range has waited as long as that can be, and is of no use.
KITE_NO_VECTORS inline bool moves(TranslationArea* area, RangeRecord* record) {
  const uint32_t missed = record->missed + record->tolerance;
  record->missed = static_cast<uint16_t>(missed > UINT16_MAX ? UINT16_MAX : missed);
  if (record->shared) return false;
  const uint64_t now = __builtin_ia32_rdtsc(), since = now - record->filled_at;
  const bool first = record->filled_at == 0;
  record->filled_at = now;
  if (first || since >= record->tolerance * kFrequentMiss) {
    if (!first && !record->doubted && since >= record->tolerance * kRareMiss)
      record->doubted = note_moved(area, *record, true);
    record->tolerance = record->least;
    return false;
  }
  if (record->tolerance < RangeRecord::kMostPatience) {
    record->tolerance = static_cast<uint8_t>(record->tolerance * 2);
    return false;
  }
  return since < record->tolerance * kFastMiss && note_moved(area, *record, false);
}

KITE_NO_VECTORS inline void note(TranslationArea* area, const TranslationArea::FilledRange& filled) {
  if (filled.record->number == 0) {
    if (area->filled_count == TranslationArea::kMostFilled) {
      for (uint32_t i = 0; i < TranslationArea::kMostFilled; ++i) {
        RangeRecord* const other = area->filled[i].record;
        area->filled[i].range->limit = 0;
        area->patience[other - area->records] = other->tolerance;
        other->number = 0;
      }
      area->filled_count = 0;
    }
    filled.record->number = static_cast<uint16_t>(++area->filled_count);
  }
  TranslationArea::FilledRange* const to = &area->filled[filled.record->number - 1];
  to->range = filled.range;
  to->record = filled.record;
  to->first = filled.first;
  to->bytes = filled.bytes;
  to->global = filled.global;
}

}  // namespace

__attribute__((target("general-regs-only"))) void fill_range(const TlbTable* table, RangeRecord* record,
                                                             TranslationArea* area, uint64_t linear) {
  AccessRange* const range = area->ranges + (record - area->records);
  uint8_t* const patience = area->patience + (record - area->records);
  const bool writes = record->writes;
  if (moves(area, record)) {
    record->moves = true;
    range->limit = 0;
    *patience = 0;  // 256
    return;
  }
  *patience = record->tolerance;
  const Slot found = slot(table, number_of(linear), writes);
  const TlbEntry* const entry = found.entry;
  if (found.tag != entry->linear) return;  // a load, by one who shares it with stores
  uint64_t first = entry->linear, end = first + kPageSize, state = found.state;
  // A flush that names any part of a large page means all of it.
  const uint64_t mask = (uint64_t{1} << entry->shift) - 1, page = first & ~mask;
  if (!may_have(state, writes)) return;
  if (entry->whole) {
    while (end <= page + mask && may_have(state + ((end - first) >> kPageShift) * kStateStride, writes))
      end += kPageSize;
    for (; first > page && may_have(state - kStateStride, writes); state -= kStateStride) first -= kPageSize;
  } else if (entry->shift == kPageShift) {
    for (int i = 1; i <= kMostNeighbours && is_alike(table, found, writes, i); ++i) end += kPageSize;
    for (int i = 1; i <= kMostNeighbours && is_alike(table, found, writes, -i); ++i) {
      first -= kPageSize;
      state -= kStateStride;
    }
  }
  range->base = first;
  range->limit = end - first - record->max_bytes + 1;
  range->delta = found.addend;
  range->state = state;
  if (entry->shift == kPageShift)
    note(area, {range, record, first, end - first, entry->global});
  else
    note(area, {range, record, page, mask + 1, entry->global});
}

}  // namespace kite::jit

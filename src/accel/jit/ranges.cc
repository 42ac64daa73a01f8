#include "accel/jit/ranges.h"

namespace kite::jit {

using cpu::AccessRange;
using cpu::TlbEntry;
using cpu::TranslationArea;

namespace {

// A range moves when it is filled this often, on average within so many time-stamps. It costs then more than it saves.
constexpr uint8_t kFillsCounted = 16;
constexpr uint64_t kFastFill = 800;
// How many pages of 4 KiB a range takes on each side, when the host has them next to each other as the guest does.
constexpr int kMostNeighbours = 4;

#define KITE_NO_VECTORS __attribute__((target("general-regs-only"), always_inline))

// One page after or before `entry`, if it is as that, on the same terms.
KITE_NO_VECTORS inline const TlbEntry* neighbour(const TlbEntry* entry, bool writes, int step) {
  const uint64_t index = entry->linear >> kPageShift & (cpu::kTlbSize - 1);
  if (index == (step > 0 ? cpu::kTlbSize - 1 : 0)) return nullptr;
  const TlbEntry* const next = entry + step;
  const uint64_t page = entry->linear + static_cast<uint64_t>(step * static_cast<int64_t>(kPageSize));
  if (next->linear != page || (writes ? next->write_tag : next->read_tag) != page) return nullptr;
  const bool same = next->shift == kPageShift && next->addend == entry->addend && next->global == entry->global &&
                    reinterpret_cast<uintptr_t>(next->page_state) ==
                        reinterpret_cast<uintptr_t>(entry->page_state) + static_cast<uintptr_t>(step);
  return same ? next : nullptr;
}

KITE_NO_VECTORS inline uint8_t state_behind(uint64_t state) {
  return __atomic_load_n(reinterpret_cast<const uint8_t*>(state) + 1, __ATOMIC_RELAXED);
}

// Whether the range has moved too often of late.
KITE_NO_VECTORS inline bool moves(AccessRange* range) {
  if (range->shared || ++range->fills < kFillsCounted) return false;
  const uint64_t now = __builtin_ia32_rdtsc(), before = range->counted_since;
  range->fills = 0;
  range->counted_since = now;
  return before != 0 && now - before < kFillsCounted * kFastFill;
}

// The code is left soon, to be made anew.
KITE_NO_VECTORS inline void note_moved(TranslationArea* area, const AccessRange& range) {
  if (area->moved_count == TranslationArea::kMostMoved) return;
  TranslationArea::MovedRange* const to = &area->moved[area->moved_count++];
  to->owner = range.owner;
  to->place = range.place;
  __atomic_fetch_or(reinterpret_cast<uint32_t*>(&area->alarm), TranslationArea::kRequest, __ATOMIC_RELAXED);
}

KITE_NO_VECTORS inline void note(TranslationArea* area, const TranslationArea::FilledRange& filled) {
  if (area->filled_count == TranslationArea::kMostFilled) {
    for (uint32_t i = 0; i < TranslationArea::kMostFilled; ++i) {
      area->filled[i].range->limit = 0;
      area->filled[i].range->patience = AccessRange::kPatience;
    }
    area->filled_count = 0;
  }
  TranslationArea::FilledRange* const to = &area->filled[area->filled_count++];
  to->range = filled.range;
  to->first = filled.first;
  to->bytes = filled.bytes;
  to->global = filled.global;
}

}  // namespace

__attribute__((target("general-regs-only"))) void fill_range(const TlbEntry* entry, AccessRange* range,
                                                             TranslationArea* area) {
  const bool writes = range->writes;
  range->patience = AccessRange::kPatience;
  if (writes && entry->write_tag != entry->linear) return;  // a load, by one who shares it with stores
  if (moves(range)) {
    range->moves = true;
    range->limit = 0;
    range->patience = 0;  // 256
    note_moved(area, *range);
    return;
  }
  uint64_t first = entry->linear, end = first + kPageSize, state = reinterpret_cast<uint64_t>(entry->page_state);
  // A flush that names any part of a large page means all of it.
  const uint64_t mask = (uint64_t{1} << entry->shift) - 1, page = first & ~mask;
  if (entry->whole) {
    state -= (first - page) >> kPageShift;
    first = page;
    end = page + mask + 1;
  } else if (entry->shift == kPageShift) {
    // A store looks at the state of the page behind its own, too: one that is watched is no good neighbour.
    const TlbEntry* at = entry;
    for (int i = 0; i < kMostNeighbours && (at = neighbour(at, writes, 1)) != nullptr; ++i) {
      if (writes && state_behind(reinterpret_cast<uint64_t>(at->page_state)) != 0) break;
      end += kPageSize;
    }
    at = entry;
    for (int i = 0; i < kMostNeighbours && (at = neighbour(at, writes, -1)) != nullptr; ++i) {
      first -= kPageSize;
      --state;
    }
  }
  range->base = first;
  range->limit = end - first - range->max_bytes + 1;
  range->delta = entry->addend;
  range->state = state;
  if (entry->shift == kPageShift)
    note(area, {range, first, end - first, entry->global});
  else
    note(area, {range, page, mask + 1, entry->global});
}

}  // namespace kite::jit

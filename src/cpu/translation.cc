#include "cpu/translation.h"

namespace kite::cpu {

// What is looked for may be any 64 bits: an empty place has a tag that is looked for elsewhere, whatever the mode is.
void TranslationArea::forget_jumps() {
  for (size_t i = 0; i < jumps.size(); ++i) jumps[i] = {.tag = i ^ 1};
}

void TranslationArea::drop_ranges(bool keep_global) {
  returns_lost = 1;
  uint32_t kept = 0;
  for (uint32_t i = 0; i < filled_count; ++i) {
    if (keep_global && filled[i].global) {
      filled[kept] = filled[i];
      filled[kept].record->number = static_cast<uint16_t>(kept + 1);
      ++kept;
    } else {
      empty(filled[i]);
    }
  }
  filled_count = kept;
}

void TranslationArea::drop_ranges_at(uint64_t linear) {
  returns_lost = 1;
  // With LAM one page may be known by several addresses, which differ above bit 47 alone.
  constexpr uint64_t kUntaggedMask = (uint64_t{1} << 48) - 1;
  for (uint32_t i = 0; i < filled_count;) {
    if (((linear - filled[i].first) & kUntaggedMask) >= filled[i].bytes) {
      ++i;
      continue;
    }
    drop_range(i);
  }
}

// The last one takes its place.
void TranslationArea::drop_range(uint32_t number) {
  empty(filled[number]);
  filled[number] = filled[--filled_count];
  if (number < filled_count) filled[number].record->number = static_cast<uint16_t>(number + 1);
}

}  // namespace kite::cpu

#include "cpu/tlb.h"

namespace kite::cpu {

namespace {

constexpr unsigned k2mShift = 21, k4mShift = 22, k1gShift = 30;

constexpr uint64_t kUntaggedMask = (uint64_t{1} << 48) - 1;

constexpr uint64_t word_bit(uint64_t number) { return uint64_t{1} << (number & 63); }

}  // namespace

void TlbTable::note_filled(uint64_t linear) {
  TlbEntry& entry = at(linear);
  const auto number = static_cast<uint16_t>(index(linear));
  if (entry.global && !entry.in_global_list) {
    entry.in_global_list = true;
    global_list[global_count++] = number;
  } else if (!entry.global && !entry.in_local_list) {
    entry.in_local_list = true;
    local_list[local_count++] = number;
  }
  if (entry.shift == kPageShift) return;
  if (entry.shift >= k1gShift) {
    large_1g |= word_bit(linear >> k1gShift);
    return;
  }
  // A 4 MiB page is noted as the two 2 MiB areas that INVLPG may name it by.
  const uint64_t area = linear >> k2mShift;
  large_2m[(area >> 6) & 15] |= word_bit(area);
  if (entry.shift == k4mShift) large_2m[((area ^ 1) >> 6) & 15] |= word_bit(area ^ 1);
}

void TlbTable::flush(bool keep_global) {
  for (uint16_t i = 0; i < local_count; ++i) {
    TlbEntry& entry = entries[local_list[i]];
    entry.in_local_list = false;
    if (!keep_global || !entry.global) clear(local_list[i]);
  }
  local_count = 0;
  if (keep_global) return;
  for (uint16_t i = 0; i < global_count; ++i) {
    TlbEntry& entry = entries[global_list[i]];
    entry.in_global_list = false;
    clear(global_list[i]);
  }
  global_count = 0;
  large_2m = {};
  large_1g = 0;
}

void TlbTable::flush_page(uint64_t linear) {
  // With LAM one page may have entries under several addresses, which differ above bit 47 alone.
  const auto same = [linear](const TlbEntry& entry, unsigned shift) {
    return ((entry.linear ^ linear) & kUntaggedMask) >> shift == 0;
  };
  if (same(at(linear), kPageShift)) clear(index(linear));
  const uint64_t area = linear >> k2mShift;
  const bool maybe_large =
      (large_2m[(area >> 6) & 15] & word_bit(area)) != 0 || (large_1g & word_bit(linear >> k1gShift)) != 0;
  if (!maybe_large) return;
  const auto drop = [&](uint16_t number) {
    const TlbEntry& entry = entries[number];
    if (entry.shift > kPageShift && same(entry, entry.shift)) clear(number);
  };
  for (uint16_t i = 0; i < local_count; ++i) drop(local_list[i]);
  for (uint16_t i = 0; i < global_count; ++i) drop(global_list[i]);
}

}  // namespace kite::cpu

#include "boot/boot_map.h"

#include <algorithm>

#include "support/bits.h"

namespace kite::boot {
namespace {

uint64_t mib(uint64_t bytes) { return (bytes + (uint64_t{1} << 20) - 1) >> 20; }

}  // namespace

BootMap::BootMap(std::span<const E820Entry> e820, uint64_t ram_below_4g) : ram_below_4g_(ram_below_4g) {
  for (const E820Entry& entry : e820) {
    if (entry.type != E820Type::kRam || entry.base >= kEnd || entry.size == 0) continue;
    free_.push_back({entry.base, entry.base + std::min(entry.size, kEnd - entry.base)});
  }
  std::ranges::sort(free_, {}, &Range::start);
  std::vector<Range> merged;
  for (const Range& range : free_) {
    if (!merged.empty() && range.start <= merged.back().end)
      merged.back().end = std::max(merged.back().end, range.end);
    else
      merged.push_back(range);
  }
  free_ = std::move(merged);
  for (const E820Entry& entry : e820)  // what is anything else as well is not RAM
    if (entry.type != E820Type::kRam && entry.base < kEnd) take(entry.base, std::min(entry.size, kEnd - entry.base));
}

bool BootMap::is_free(uint64_t base, uint64_t size) const {
  if (size > kEnd || base > kEnd - size) return false;
  return size == 0 || std::ranges::any_of(
                          free_, [&](const Range& range) { return base >= range.start && base + size <= range.end; });
}

Result<> BootMap::claim(uint64_t base, uint64_t size, std::string_view what) {
  if (!is_free(base, size)) {
    const bool above = size > kEnd || base > kEnd - size || base + size > ram_below_4g_;
    if (above)
      return fail("{} needs {} MiB at {:#x}; the machine has {} MiB below 4 GiB: give more with -m", what, mib(size),
                  base, ram_below_4g_ >> 20);
    return fail("{} needs {} bytes at {:#x}, where there is no free RAM", what, size, base);
  }
  take(base, size);
  claims_.push_back({.address = base, .bytes = size});
  return {};
}

void BootMap::take(uint64_t base, uint64_t size) {
  std::vector<Range> left;
  for (const Range& range : free_) {
    if (const uint64_t end = std::min(range.end, base); range.start < end) left.push_back({range.start, end});
    if (const uint64_t start = std::max(range.start, base + size); start < range.end)
      left.push_back({start, range.end});
  }
  free_ = std::move(left);
}

std::optional<uint64_t> BootMap::find(const Want& want, bool high) const {
  std::optional<uint64_t> best;
  for (const Range& range : free_) {
    const uint64_t start = align_up(std::max(range.start, want.lowest), want.alignment);
    const uint64_t end = std::min(range.end, want.limit);
    if (start >= end || want.size > end - start) continue;
    if (!high) return start;
    best = align_down(end - want.size, want.alignment);
  }
  return best;
}

Result<uint64_t> BootMap::claim_found(const Want& want, bool high, std::string_view what) {
  const auto found = find(want, high);
  if (!found)
    return fail(
        "{} needs {} MiB below {:#x}, and there is no such room beside what is loaded already; the machine has "
        "{} MiB below 4 GiB: give more with -m",
        what, mib(want.size), want.limit, ram_below_4g_ >> 20);
  take(*found, want.size);
  claims_.push_back({.address = *found, .bytes = want.size});
  return *found;
}

Result<uint64_t> BootMap::claim_high(const Want& want, std::string_view what) { return claim_found(want, true, what); }
Result<uint64_t> BootMap::claim_low(const Want& want, std::string_view what) { return claim_found(want, false, what); }

}  // namespace kite::boot

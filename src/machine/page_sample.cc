#include "machine/page_sample.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <random>
#include <utility>

namespace kite::machine {

namespace {

uint32_t checksum(const uint8_t* page) { return static_cast<uint32_t>(::crc32_z(0, page, kPageSize)); }

// The page `index` of the blocks one behind the other.
const uint8_t* page_at(const std::vector<std::shared_ptr<RamBlock>>& blocks, uint64_t index) {
  uint64_t offset = index << kPageShift;
  for (const auto& block : blocks) {
    if (offset < block->size()) return block->host() + offset;
    offset -= block->size();
  }
  std::unreachable();
}

}  // namespace

PageSample::PageSample(std::vector<std::shared_ptr<RamBlock>> blocks, uint64_t pages_per_gib, uint64_t seed)
    : blocks_(std::move(blocks)), page_map_(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)) {
  uint64_t pages = 0;
  for (const auto& block : blocks_) pages += block->size() >> kPageShift;
  if (pages == 0) return;
  constexpr uint64_t kPagesPerGib = uint64_t{1} << (30 - kPageShift);
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<uint64_t> any(0, pages - 1);
  std::vector<uint64_t> picks((pages * pages_per_gib + kPagesPerGib - 1) / kPagesPerGib);
  std::ranges::generate(picks, [&] { return any(random); });
  std::ranges::sort(picks);
  for (const uint64_t pick : picks) pages_.push_back({.host = page_at(blocks_, pick), .checksum = 0});
}

// [Linux Documentation/admin-guide/mm/pagemap.rst] Bit 63: the page is in memory; 62: it is swapped out.
bool PageSample::is_untouched(const uint8_t* page) const {
  uint64_t entry = 0;
  const auto at = static_cast<off_t>((reinterpret_cast<uintptr_t>(page) >> kPageShift) * sizeof entry);
  if (::pread(page_map_.get(), &entry, sizeof entry, at) != static_cast<ssize_t>(sizeof entry)) return false;
  return entry >> 62 == 0;
}

// A read of what was never written would make the host map zeroes there, in the place of a huge page to come.
uint32_t PageSample::checksum_of(const uint8_t* page) const {
  static constexpr uint8_t kZeroes[kPageSize] = {};
  static const uint32_t of_zeroes = checksum(kZeroes);
  return is_untouched(page) ? of_zeroes : checksum(page);
}

bool PageSample::remember(size_t most) {
  for (const size_t end = std::min(pages_.size(), remembered_ + most); remembered_ < end; ++remembered_)
    pages_[remembered_].checksum = checksum_of(pages_[remembered_].host);
  return remembered_ < pages_.size();
}

bool PageSample::compare(size_t most) {
  for (const size_t end = std::min(remembered_, compared_ + most); compared_ < end; ++compared_)
    if (checksum_of(pages_[compared_].host) != pages_[compared_].checksum) ++changed_;
  return compared_ < remembered_;
}

}  // namespace kite::machine

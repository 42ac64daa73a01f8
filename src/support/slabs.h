// Slabs: pieces of 64 KiB out of huge pages, for pools that would each fill only a part of one. One thread uses it.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "support/huge_pages.h"

namespace kite {

class Slabs {
 public:
  static constexpr size_t kBytes = size_t{64} << 10;
  static_assert(kHugePageSize % kBytes == 0);

  // At a multiple of kBytes; throws std::bad_alloc.
  std::byte* take() {
    if (!free_.empty()) {
      std::byte* const slab = free_.back();
      free_.pop_back();
      return slab;
    }
    if (pages_.empty() || used_ == kHugePageSize) {
      pages_.emplace_back(static_cast<std::byte*>(allocate_in_huge_pages(kHugePageSize)));
      used_ = 0;
      free_.reserve(pages_.size() * (kHugePageSize / kBytes));
    }
    used_ += kBytes;
    return pages_.back().get() + used_ - kBytes;
  }
  void give_back(std::byte* slab) noexcept { free_.push_back(slab); }
  [[nodiscard]] size_t bytes() const { return pages_.size() * kHugePageSize; }

 private:
  std::vector<std::unique_ptr<std::byte, FreeHugePages>> pages_;
  size_t used_ = 0;  // of the last of them
  std::vector<std::byte*> free_;
};

}  // namespace kite

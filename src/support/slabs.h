// Slabs: pieces of 64 KiB out of huge pages, for pools that would each fill only a part of one. One thread uses it.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <vector>

#include "support/huge_pages.h"
#include "support/page_stock.h"

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
      pages_.emplace_back(PageStock::instance().take());
      used_ = 0;
      free_.reserve(pages_.size() * (kHugePageSize / kBytes));
    }
    used_ += kBytes;
    return pages_.back().get() + used_ - kBytes;
  }
  void give_back(std::byte* slab) noexcept { free_.push_back(slab); }
  // A large object that is there as long as this is. What a huge page has left is for slabs.
  template <class T>
  T* add() {
    static_assert(sizeof(T) <= kHugePageSize && std::is_trivially_destructible_v<T>);
    pages_.emplace_back(PageStock::instance().take());
    std::byte* const page = pages_.back().get();
    const size_t slabs_used = (sizeof(T) + kBytes - 1) / kBytes;
    for (size_t i = slabs_used; i < kHugePageSize / kBytes; ++i) free_.push_back(page + i * kBytes);
    used_ = kHugePageSize;
    free_.reserve(pages_.size() * (kHugePageSize / kBytes));
    return std::construct_at(reinterpret_cast<T*>(page));
  }
  [[nodiscard]] size_t bytes() const { return pages_.size() * kHugePageSize; }

 private:
  std::vector<std::unique_ptr<std::byte, FreeHugePages>> pages_;
  size_t used_ = 0;  // of the last of them
  std::vector<std::byte*> free_;
};

}  // namespace kite

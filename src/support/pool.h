// Pool: objects that stay where they are until all of them go. They are made in chunks that are kept for the next ones,
// so that adding one is a comparison and its constructor. All chunks but the first are huge pages of the host's.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/huge_pages.h"

namespace kite {

template <class T>
class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() { clear(); }

  template <class... Args>
  T& add(Args&&... args) {
    if (next_ == end_) [[unlikely]]
      next_chunk();
    T* const made = std::construct_at(next_, std::forward<Args>(args)...);
    ++next_;
    return *made;
  }
  template <class Function>
  void for_each(const Function& function) const {
    for (size_t i = 0; i < used_; ++i)
      for (const T* at = chunk(i); at != (i + 1 == used_ ? next_ : chunk(i) + capacity(i)); ++at) function(*at);
  }
  // In the order in which they were made.
  [[nodiscard]] T& operator[](size_t number) const {
    if (number < capacity(0)) return chunk(0)[number];
    const size_t behind = number - capacity(0);
    return chunk(1 + behind / capacity(1))[behind % capacity(1)];
  }
  [[nodiscard]] size_t size() const {
    if (used_ == 0) return 0;
    const size_t before = used_ == 1 ? 0 : capacity(0) + (used_ - 2) * capacity(1);
    return before + static_cast<size_t>(next_ - chunk(used_ - 1));
  }
  // Destroys all. The memory is kept.
  void clear() {
    if constexpr (!std::is_trivially_destructible_v<T>) for_each([](const T& object) { object.~T(); });
    used_ = 0;
    next_ = end_ = nullptr;
  }

 private:
  static constexpr size_t kFirstBytes = size_t{64} << 10;
  static_assert(sizeof(T) <= kFirstBytes && alignof(T) <= alignof(std::max_align_t));

  [[nodiscard]] T* chunk(size_t number) const { return reinterpret_cast<T*>(chunks_[number].get()); }
  [[nodiscard]] static size_t capacity(size_t number) {
    return (number == 0 ? kFirstBytes : kHugePageSize) / sizeof(T);
  }
  void next_chunk() {
    if (used_ == chunks_.size()) {
      void* const made = used_ == 0 ? std::malloc(kFirstBytes) : allocate_in_huge_pages(kHugePageSize);
      if (made == nullptr) throw std::bad_alloc();
      chunks_.emplace_back(static_cast<std::byte*>(made));
    }
    next_ = chunk(used_);
    end_ = next_ + capacity(used_++);
  }

  std::vector<std::unique_ptr<std::byte, FreeHugePages>> chunks_;
  size_t used_ = 0;  // of the chunks; objects are made in the last of them
  T *next_ = nullptr, *end_ = nullptr;
};

}  // namespace kite

// Pool: objects that stay where they are until all of them go. They are made in slabs that are kept for the next ones,
// so that adding one is a comparison and its constructor.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/slabs.h"

namespace kite {

template <class T>
class Pool {
 public:
  // `slabs` outlives it.
  explicit Pool(Slabs& slabs) : slabs_(slabs) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    clear();
    for (T* const chunk : chunks_) slabs_.give_back(reinterpret_cast<std::byte*>(chunk));
  }

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
      for (const T* at = chunks_[i]; at != (i + 1 == used_ ? next_ : chunks_[i] + kCapacity); ++at) function(*at);
  }
  // In the order in which they were made.
  [[nodiscard]] T& operator[](size_t number) const { return chunks_[number / kCapacity][number % kCapacity]; }
  [[nodiscard]] size_t size() const { return used_ * kCapacity - static_cast<size_t>(end_ - next_); }
  // Destroys all. The memory is kept.
  void clear() {
    if constexpr (!std::is_trivially_destructible_v<T>) for_each([](const T& object) { object.~T(); });
    used_ = 0;
    next_ = end_ = nullptr;
  }

 private:
  static constexpr size_t kCapacity = Slabs::kBytes / sizeof(T);  // of a chunk
  static_assert(kCapacity > 0 && alignof(T) <= Slabs::kBytes);

  void next_chunk() {
    if (used_ == chunks_.size()) chunks_.push_back(reinterpret_cast<T*>(slabs_.take()));
    next_ = chunks_[used_++];
    end_ = next_ + kCapacity;
  }

  Slabs& slabs_;
  std::vector<T*> chunks_;
  size_t used_ = 0;  // of the chunks; objects are made in the last of them
  T *next_ = nullptr, *end_ = nullptr;
};

}  // namespace kite

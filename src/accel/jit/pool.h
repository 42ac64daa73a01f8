// Pool: objects that stay where they are until all of them go. They are made in chunks that are kept for the next ones,
// so that adding one is a comparison and its constructor.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace kite::jit {

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
      for (const T* at = chunk(i); at != (i + 1 == used_ ? next_ : chunk(i) + kPerChunk); ++at) function(*at);
  }
  // Destroys all. The memory is kept.
  void clear() {
    if constexpr (!std::is_trivially_destructible_v<T>) for_each([](const T& object) { object.~T(); });
    used_ = 0;
    next_ = end_ = nullptr;
  }

 private:
  static constexpr size_t kChunkBytes = size_t{64} << 10;
  static constexpr size_t kPerChunk = std::max<size_t>(1, kChunkBytes / sizeof(T));
  struct Free {
    void operator()(std::byte* bytes) const { ::operator delete(bytes, std::align_val_t{alignof(T)}); }
  };

  [[nodiscard]] T* chunk(size_t number) const { return reinterpret_cast<T*>(chunks_[number].get()); }
  void next_chunk() {
    if (used_ == chunks_.size())
      chunks_.emplace_back(
          static_cast<std::byte*>(::operator new(kPerChunk * sizeof(T), std::align_val_t{alignof(T)})));
    next_ = chunk(used_++);
    end_ = next_ + kPerChunk;
  }

  std::vector<std::unique_ptr<std::byte, Free>> chunks_;
  size_t used_ = 0;  // of the chunks; objects are made in the last of them
  T *next_ = nullptr, *end_ = nullptr;
};

}  // namespace kite::jit

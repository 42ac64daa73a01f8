// DirtyChunks: which parts of a disk are still to be copied.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace kite::block {

class DirtyChunks {
 public:
  // `chunk`: bytes, a power of two.
  DirtyChunks(uint64_t length, uint64_t chunk)
      : length_(length), chunk_(chunk), dirty_(static_cast<size_t>((length + chunk - 1) / chunk)) {}

  void mark(uint64_t offset, uint64_t bytes) {
    if (bytes == 0) return;
    const uint64_t last = std::min<uint64_t>((offset + bytes - 1) / chunk_ + 1, dirty_.size());
    for (uint64_t i = offset / chunk_; i < last; ++i) set(i, true);
  }
  void clear(uint64_t offset, uint64_t bytes) {
    for (uint64_t i = offset / chunk_; i < std::min<uint64_t>((offset + bytes + chunk_ - 1) / chunk_, dirty_.size());
         ++i)
      set(i, false);
  }
  // Only chunks of which all bytes lie in the range.
  void clear_whole(uint64_t offset, uint64_t bytes) {
    const uint64_t end = offset + bytes;
    for (uint64_t i = (offset + chunk_ - 1) / chunk_; i < dirty_.size() && std::min((i + 1) * chunk_, length_) <= end;
         ++i)
      set(i, false);
  }
  struct Run {
    uint64_t offset, bytes;
  };
  // The next dirty chunks in a row from `from` on, or from the start; no more than `most` bytes.
  [[nodiscard]] std::optional<Run> next(uint64_t from, uint64_t most) const {
    if (count_ == 0) return std::nullopt;
    uint64_t i = from / chunk_ < dirty_.size() ? from / chunk_ : 0;
    while (!dirty_[i]) i = i + 1 == dirty_.size() ? 0 : i + 1;
    uint64_t end = i + 1;
    while (end < dirty_.size() && dirty_[end] && (end + 1 - i) * chunk_ <= most) ++end;
    return Run{.offset = i * chunk_, .bytes = std::min(end * chunk_, length_) - i * chunk_};
  }
  [[nodiscard]] uint64_t bytes() const { return count_ * chunk_; }
  [[nodiscard]] bool empty() const { return count_ == 0; }
  [[nodiscard]] uint64_t chunk() const { return chunk_; }

 private:
  void set(uint64_t index, bool dirty) {
    if (dirty_[index] == dirty) return;
    dirty_[index] = dirty;
    dirty ? ++count_ : --count_;
  }
  uint64_t length_, chunk_;
  std::vector<bool> dirty_;
  uint64_t count_ = 0;
};

}  // namespace kite::block

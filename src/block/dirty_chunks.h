// DirtyChunks: which parts of a disk have changed, or are still to be copied.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace kite::block {

class DirtyChunks {
 public:
  // Whether a disk of this length can be kept track of: more than this is not worth the memory (512 MiB).
  static constexpr uint64_t kMostChunks = uint64_t{1} << 32;
  static constexpr bool can_hold(uint64_t length, uint64_t chunk) { return length / chunk < kMostChunks; }

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
  // The first dirty chunks in a row that lie in [from, to), chunks as a whole.
  [[nodiscard]] std::optional<Run> first_within(uint64_t from, uint64_t to, uint64_t most) const {
    if (count_ == 0) return std::nullopt;
    const uint64_t last = std::min<uint64_t>((to + chunk_ - 1) / chunk_, dirty_.size());
    uint64_t i = from / chunk_;
    while (i < last && !dirty_[i]) ++i;
    if (i >= last) return std::nullopt;
    uint64_t end = i + 1;
    while (end < last && dirty_[end] && (end + 1 - i) * chunk_ <= most) ++end;
    return Run{.offset = i * chunk_, .bytes = std::min(end * chunk_, length_) - i * chunk_};
  }
  // visit(Run) for all dirty chunks, those in a row at once.
  template <class Visit>
  void for_each(Visit visit) const {
    for (uint64_t at = 0; const auto run = first_within(at, length_, length_); at = run->offset + run->bytes)
      visit(*run);
  }
  // What is new is clean.
  void resize(uint64_t length) {
    length_ = length;
    dirty_.resize(static_cast<size_t>((length + chunk_ - 1) / chunk_));
    count_ = static_cast<uint64_t>(std::ranges::count(dirty_, true));
  }
  [[nodiscard]] uint64_t length() const { return length_; }
  [[nodiscard]] size_t chunks() const { return dirty_.size(); }
  [[nodiscard]] bool test(size_t index) const { return dirty_[index]; }
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

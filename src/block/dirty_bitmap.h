// Dirty bitmaps of a node: which parts of it have changed since a client last looked ([QAPI] block-dirty-bitmap-add).
// In memory, on the graph's executor; formats that can keep them do so when they are closed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/dirty_chunks.h"
#include "support/result.h"

namespace kite::block {

class DirtyBitmap {
 public:
  static constexpr uint64_t kMinGranularity = 512;
  static constexpr uint64_t kMaxGranularity = uint64_t{1} << 31;
  static constexpr size_t kMaxName = 1023;

  DirtyBitmap(std::string name, uint64_t length, uint64_t granularity)
      : name_(std::move(name)), chunks_(length, granularity) {}

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] uint64_t granularity() const { return chunks_.chunk(); }
  [[nodiscard]] bool busy() const { return successor_.has_value() || exported; }
  // What it holds; while a job has it, as it was when that began.
  [[nodiscard]] const DirtyChunks& chunks() const { return chunks_; }
  void set_chunks(DirtyChunks chunks) { chunks_ = std::move(chunks); }

  // The node's content has changed there.
  void mark(uint64_t offset, uint64_t bytes);
  void resize(uint64_t length);
  // The node has become larger than bitmaps can be.
  void forsake();
  // All of the other, whose granularity may be another one; of the same length.
  void merge(const DirtyChunks& other);

  // A job takes what is there, and what changes from then on is recorded apart: until only that stays (let_go()), or
  // both (take_back()).
  void freeze() { successor_.emplace(chunks_.length(), chunks_.chunk()); }
  void let_go();
  void take_back();

  bool enabled = true;        // hears of changes
  bool persistent = false;    // is kept in the image
  bool inconsistent = false;  // what the image has is not to be trusted; it can only be removed
  bool read_only = false;     // from an image that cannot be written
  bool exported = false;      // clients of an NBD server look at it

  // What it may be used for; the errors say why not.
  enum class Need : uint8_t { kRemove, kRead, kChange };
  Result<> may(Need need) const;

 private:
  std::string name_;
  DirtyChunks chunks_;
  std::optional<DirtyChunks> successor_;
};

using BitmapPtr = std::shared_ptr<DirtyBitmap>;

// Those of one node. Names are unique.
class BitmapSet {
 public:
  // What clients may make us hold, for all bitmaps of a node together.
  static constexpr size_t kMaxBitmaps = 4096;
  static constexpr uint64_t kMaxBytes = uint64_t{512} << 20;

  // Whether one of this name and granularity could be added.
  Result<> may_add(std::string_view name, uint64_t length, uint64_t granularity) const;
  void add(BitmapPtr bitmap) { bitmaps_.push_back(std::move(bitmap)); }
  void remove(const BitmapPtr& bitmap) { std::erase(bitmaps_, bitmap); }
  void remove_all() { bitmaps_.clear(); }
  [[nodiscard]] BitmapPtr find(std::string_view name) const;
  [[nodiscard]] const std::vector<BitmapPtr>& all() const { return bitmaps_; }
  [[nodiscard]] bool empty() const { return bitmaps_.empty(); }
  // A node that is `length` bytes long now has changed.
  void mark(uint64_t offset, uint64_t bytes, uint64_t length);
  void resize(uint64_t length);

 private:
  std::vector<BitmapPtr> bitmaps_;
};

}  // namespace kite::block

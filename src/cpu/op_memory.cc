#include "cpu/op_memory.h"

#include <algorithm>
#include <new>
#include <utility>

#include "support/page_stock.h"

namespace kite::cpu {

void* OpMemory::take(size_t count) {
  if (Free* const piece = free_[count]; piece != nullptr) {
    free_[count] = piece->next;
    return piece;
  }
  const size_t bytes = count * sizeof(Op);
  if (static_cast<size_t>(end_ - next_) < bytes) return nullptr;
  next_ += bytes;
  return next_ - bytes;
}

void* OpMemory::take_of_larger(size_t count) {
  for (size_t size = count + 1; size <= kMostOps; ++size) {
    if (free_[size] == nullptr) continue;
    auto* const piece = static_cast<std::byte*>(take(size));
    give_back(piece + count * sizeof(Op), size - count);
    return piece;
  }
  return nullptr;
}

void* OpMemory::take_of_new_chunk(size_t count) {
  while (next_ != end_) {
    const size_t rest = std::min(kMostOps, static_cast<size_t>(end_ - next_) / sizeof(Op));
    give_back(std::exchange(next_, next_ + rest * sizeof(Op)), rest);
  }
  chunks_.emplace_back(PageStock::instance().take());
  next_ = chunks_.back().get();
  end_ = next_ + kHugePageSize;
  return take(count);
}

void OpMemory::give_back(void* piece, size_t count) { free_[count] = new (piece) Free{free_[count]}; }

void OpMemory::clear() {
  chunks_.clear();
  next_ = end_ = nullptr;
  free_ = {};
}

}  // namespace kite::cpu

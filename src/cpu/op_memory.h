// OpMemory: where decoded instructions are, in pieces of whole Ops. A piece that is given back serves the next that
// wants one of its size.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "cpu/op.h"
#include "support/huge_pages.h"

namespace kite::cpu {

class OpMemory {
 public:
  static constexpr size_t kMostOps = 255;  // in a piece

  // Memory for `count` Ops, 1 .. kMostOps; nothing is constructed there. Null: none of that size has been given back,
  // and the last chunk is full.
  void* take(size_t count);
  // Cuts a larger piece. Null: there is none.
  void* take_of_larger(size_t count);
  void* take_of_new_chunk(size_t count);
  void give_back(void* piece, size_t count);
  void clear();  // gives all of it to the host
  [[nodiscard]] size_t bytes() const { return chunks_.size() * kHugePageSize; }

 private:
  struct Free {
    Free* next;
  };

  std::vector<std::unique_ptr<std::byte, FreeHugePages>> chunks_;
  std::byte *next_ = nullptr, *end_ = nullptr;  // what is left of the last chunk
  std::array<Free*, kMostOps + 1> free_{};      // by the number of Ops
};

}  // namespace kite::cpu

#include "cpu/op_memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace kite::cpu {
namespace {

struct Piece {
  uint8_t* place;
  size_t count;
  uint8_t mark;

  void fill() const { std::memset(place, mark, count * sizeof(Op)); }
  [[nodiscard]] bool is_whole() const {
    for (size_t i = 0; i < count * sizeof(Op); ++i)
      if (place[i] != mark) return false;
    return true;
  }
};

TEST(OpMemory, WhatIsGivenBackIsTakenAgain) {
  OpMemory memory;
  EXPECT_EQ(memory.take(3), nullptr);
  void* const first = memory.take_of_new_chunk(3);
  void* const second = memory.take(5);
  memory.give_back(first, 3);
  EXPECT_NE(memory.take(2), first);
  EXPECT_NE(memory.take(4), second);
  EXPECT_EQ(memory.take(3), first);
}

TEST(OpMemory, ALargerPieceIsCut) {
  OpMemory memory;
  auto* const large = static_cast<uint8_t*>(memory.take_of_new_chunk(100));
  EXPECT_EQ(memory.take_of_larger(30), nullptr);
  memory.give_back(large, 100);
  EXPECT_EQ(memory.take_of_larger(30), large);
  EXPECT_EQ(memory.take(70), large + 30 * sizeof(Op));
}

// What the last chunk had left is used before there is another.
TEST(OpMemory, PiecesNeverOverlapAndNothingIsLost) {
  OpMemory memory;
  std::mt19937 random(1);
  std::vector<Piece> pieces;
  size_t taken = 0, most = 0;
  for (int i = 0; i < 200'000; ++i) {
    if (!pieces.empty() && random() % 100 < (taken > size_t{100'000} ? 60u : 40u)) {
      std::swap(pieces[random() % pieces.size()], pieces.back());
      const Piece piece = pieces.back();
      pieces.pop_back();
      ASSERT_TRUE(piece.is_whole());
      taken -= piece.count;
      memory.give_back(piece.place, piece.count);
      continue;
    }
    const size_t count = random() % 4 != 0 ? 1 + random() % 20 : 1 + random() % OpMemory::kMostOps;
    void* place = memory.take(count);
    if (place == nullptr) place = memory.take_of_larger(count);
    if (place == nullptr) place = memory.take_of_new_chunk(count);
    pieces.push_back({static_cast<uint8_t*>(place), count, static_cast<uint8_t>(random())});
    pieces.back().fill();
    taken += count;
    most = std::max(most, taken);
  }
  for (const Piece& piece : pieces) ASSERT_TRUE(piece.is_whole());
  EXPECT_LT(memory.bytes(), 4 * most * sizeof(Op));  // cut into what few want
  memory.clear();
  EXPECT_EQ(memory.bytes(), 0u);
}

}  // namespace
}  // namespace kite::cpu

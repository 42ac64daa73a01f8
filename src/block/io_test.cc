#include "block/io.h"

#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <vector>

namespace kite::block {
namespace {

TEST(IoSlice, SlicesAcrossParts) {
  std::array<uint8_t, 10> memory{};
  std::iota(memory.begin(), memory.end(), uint8_t{0});
  const std::array<iovec, 3> parts{{{memory.data(), 3}, {memory.data() + 3, 0}, {memory.data() + 3, 7}}};
  const IoSlice slice = IoSlice(std::span<const iovec>(parts)).slice(2, 4);
  std::array<uint8_t, 4> out{};
  slice.copy_to(out.data());
  EXPECT_EQ(out, (std::array<uint8_t, 4>{2, 3, 4, 5}));
}

TEST(IoSlice, IsContiguousInsideOnePart) {
  std::array<uint8_t, 8> memory{};
  const std::array<iovec, 2> parts{{{memory.data(), 4}, {memory.data() + 4, 4}}};
  const IoSlice whole{std::span<const iovec>(parts)};
  EXPECT_EQ(whole.contiguous(), nullptr);
  EXPECT_EQ(whole.slice(5, 2).contiguous(), memory.data() + 5);
}

TEST(IoSlice, CountsPartsWithBytes) {
  std::array<uint8_t, 8> memory{};
  const std::array<iovec, 3> parts{{{memory.data(), 4}, {memory.data(), 0}, {memory.data() + 4, 4}}};
  EXPECT_EQ(IoSlice(std::span<const iovec>(parts)).part_count(), 2u);
}

TEST(IsZero, SeesTheLastByte) {
  std::vector<uint8_t> memory(4097);
  EXPECT_TRUE(is_zero(memory.data(), memory.size()));
  memory.back() = 1;
  EXPECT_FALSE(is_zero(memory.data(), memory.size()));
  EXPECT_TRUE(is_zero(memory.data(), memory.size() - 1));
}

TEST(IsZero, HoldsForNothing) { EXPECT_TRUE(is_zero(nullptr, 0)); }

}  // namespace
}  // namespace kite::block

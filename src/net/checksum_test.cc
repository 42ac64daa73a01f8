#include "net/checksum.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "support/bytes.h"

namespace kite::net {
namespace {

// [RFC 1071] 3: the example's bytes add up to ddf2.
constexpr std::array<uint8_t, 8> kExample{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};

TEST(ChecksumTest, SumsAsTheStandardDoes) {
  std::array<uint8_t, 2> sum{};
  store(sum.data(), internet_sum(kExample));
  EXPECT_EQ(load_be16(sum.data()), 0xddf2);
}

TEST(ChecksumTest, AnOddByteIsPaddedWithZero) {
  const std::vector<uint8_t> odd{0x12, 0x34, 0x56}, even{0x12, 0x34, 0x56, 0};
  EXPECT_EQ(internet_sum(odd), internet_sum(even));
}

TEST(ChecksumTest, PartsAddUp) {
  const std::span all(kExample);
  EXPECT_EQ(internet_sum(all.subspan(2), internet_sum(all.first(2))), internet_sum(all));
}

}  // namespace
}  // namespace kite::net

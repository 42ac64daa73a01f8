#include "support/bits.h"

#include <gtest/gtest.h>

#include "support/bytes.h"

namespace kite {
namespace {

TEST(Bits, BitHasTheAskedWidth) {
  EXPECT_EQ(bit(63), uint64_t{1} << 63);
  EXPECT_EQ(bit<uint8_t>(7), 0x80);
}

TEST(Bits, LowMaskCoversTheWholeWord) {
  EXPECT_EQ(low_mask(0), 0u);
  EXPECT_EQ(low_mask(12), 0xfffu);
  EXPECT_EQ(low_mask(64), ~uint64_t{0});
}

TEST(Bits, FieldIsInclusive) {
  EXPECT_EQ(field(0xabcd, 11, 4), 0xbcu);
  EXPECT_EQ(field(~uint64_t{0}, 63, 0), ~uint64_t{0});
}

TEST(Bits, AlignmentRounds) {
  EXPECT_EQ(align_down(0x1fff, 0x1000), 0x1000u);
  EXPECT_EQ(align_up(0x1001, 0x1000), 0x2000u);
  EXPECT_EQ(align_up(0x1000, 0x1000), 0x1000u);
  EXPECT_TRUE(is_aligned(0x1000, 0x1000));
  EXPECT_FALSE(is_aligned(0x1004, 8));
}

TEST(Bits, SignExtends) {
  EXPECT_EQ(sign_extend(0x80, 8), -128);
  EXPECT_EQ(sign_extend(0x7f, 8), 127);
  EXPECT_EQ(sign_extend(~uint64_t{0}, 64), -1);
}

TEST(Bytes, LittleEndianPartsAreZeroExtended) {
  const uint8_t bytes[] = {0x11, 0x22, 0x33, 0x44, 0x55};

  EXPECT_EQ(load_le(bytes, 3), 0x332211u);
  EXPECT_EQ(load<uint32_t>(bytes + 1), 0x55443322u);
}

TEST(Bytes, StoreWritesOnlyItsSize) {
  uint8_t bytes[] = {0, 0, 0, 0xff};

  store_le(bytes, 3, 0x99aabbcc);

  EXPECT_EQ(load<uint32_t>(bytes), 0xffaabbccu);
}

TEST(Bytes, BigEndianRoundTrips) {
  uint8_t bytes[8] = {};

  store_be64(bytes, 0x0102030405060708);

  EXPECT_EQ(bytes[0], 1);
  EXPECT_EQ(load_be16(bytes), 0x0102);
  EXPECT_EQ(load_be32(bytes), 0x01020304u);
  EXPECT_EQ(load_be64(bytes), 0x0102030405060708u);
}

}  // namespace
}  // namespace kite

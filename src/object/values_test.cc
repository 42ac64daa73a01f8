#include <gtest/gtest.h>

#include <random>

#include "object/object_type.h"

namespace kite {
namespace {

uint64_t size_of(std::string_view text, uint64_t unit = 1) {
  const auto size = parse_size(text, unit);
  EXPECT_TRUE(size) << text;
  return size.value_or(0);
}

TEST(ParseSize, TakesUnitsInEitherCase) {
  EXPECT_EQ(size_of("64k"), 64u << 10);
  EXPECT_EQ(size_of("3M"), 3u << 20);
  EXPECT_EQ(size_of("2G"), uint64_t{2} << 30);
  EXPECT_EQ(size_of("1T"), uint64_t{1} << 40);
  EXPECT_EQ(size_of("1P"), uint64_t{1} << 50);
  EXPECT_EQ(size_of("15E"), uint64_t{15} << 60);
  EXPECT_EQ(size_of("512B"), 512u);
}

TEST(ParseSize, PlainNumbersTakeTheDefaultUnit) {
  EXPECT_EQ(size_of("128", 1u << 20), 128u << 20);
  EXPECT_EQ(size_of("128B", 1u << 20), 128u);
}

TEST(ParseSize, TakesHex) {
  EXPECT_EQ(size_of("0x1000"), 0x1000u);
  EXPECT_EQ(size_of("0x10k"), 0x4000u);
}

TEST(ParseSize, TakesFractionsOfUnits) {
  EXPECT_EQ(size_of("1.5M"), 3u << 19);
  EXPECT_EQ(size_of("0.0009765625M"), 1024u);
  EXPECT_EQ(size_of("1.1k"), 1126u);
  EXPECT_EQ(size_of("0.99999999999999999999999999999G"), (uint64_t{1} << 30) - 1);
}

TEST(ParseSize, RefusesWhatIsNoSize) {
  for (const std::string_view text :
       {"", "k", "-1", "+1", " 1", "1 ", "1.k", "1.5", "1.5B", "1kk", "1kB", "0x", "0x1.5M", "1e3", "1z", "١"}) {
    EXPECT_FALSE(parse_size(text)) << text;
  }
}

TEST(ParseSize, RefusesOverflowByName) {
  EXPECT_EQ(size_of("18446744073709551615"), ~uint64_t{0});
  for (const std::string_view text :
       {"18446744073709551616", "16E", "15.9999999999999999999E1", "99999999999999999999k"}) {
    EXPECT_FALSE(parse_size(text)) << text;
  }
  EXPECT_EQ(parse_size("16E").error().message, "'16E' is too large for a size of 64 bits");
}

TEST(ParseUnsigned, TakesTheBasesOfC) {
  EXPECT_EQ(parse_unsigned("0"), 0u);
  EXPECT_EQ(parse_unsigned("42"), 42u);
  EXPECT_EQ(parse_unsigned("0x3F8"), 0x3f8u);
  EXPECT_EQ(parse_unsigned("017"), 15u);
  EXPECT_EQ(parse_unsigned("0xffffffffffffffff"), ~uint64_t{0});
}

TEST(ParseUnsigned, RefusesTheRest) {
  for (const std::string_view text : {"", "-1", "08", "0x", "12a", "0x1g", "1.0", " 1", "18446744073709551616"}) {
    EXPECT_FALSE(parse_unsigned(text)) << text;
  }
}

TEST(ParseSigned, TakesTheWholeRange) {
  EXPECT_EQ(parse_signed("-5"), -5);
  EXPECT_EQ(parse_signed("0x10"), 16);
  EXPECT_EQ(parse_signed("9223372036854775807"), INT64_MAX);
  EXPECT_EQ(parse_signed("-9223372036854775808"), INT64_MIN);
  EXPECT_FALSE(parse_signed("9223372036854775808"));
  EXPECT_FALSE(parse_signed("-9223372036854775809"));
  EXPECT_FALSE(parse_signed("--1"));
  EXPECT_FALSE(parse_signed("-"));
}

TEST(ParseBool, TakesTheUsualWords) {
  for (const std::string_view text : {"on", "yes", "true", "y"}) EXPECT_EQ(parse_bool(text), true) << text;
  for (const std::string_view text : {"off", "no", "false", "n"}) EXPECT_EQ(parse_bool(text), false) << text;
  for (const std::string_view text : {"", "1", "ON", "onn"}) EXPECT_FALSE(parse_bool(text)) << text;
}

TEST(ValidId, IsALetterAndThenSomeMore) {
  EXPECT_TRUE(valid_id("char0"));
  EXPECT_TRUE(valid_id("a-b.c_D9"));
  EXPECT_FALSE(valid_id(""));
  EXPECT_FALSE(valid_id("0char"));
  EXPECT_FALSE(valid_id("a b"));
  EXPECT_FALSE(valid_id("a/b"));
}

TEST(Numbers, RandomTextIsRefusedOrSmallerThanItsOwnDigits) {
  std::mt19937 random(7);
  constexpr std::string_view kAlphabet = "0123456789abxXkKmMGTPE.-+ ,";
  int accepted = 0;

  for (int round = 0; round < 200'000; ++round) {
    std::string text;
    for (size_t length = random() % 24; length > 0; --length) text += kAlphabet[random() % kAlphabet.size()];
    accepted += parse_size(text).has_value();
    accepted += parse_unsigned(text).has_value();
    accepted += parse_signed(text).has_value();
  }

  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace kite

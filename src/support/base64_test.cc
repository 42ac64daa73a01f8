#include "support/base64.h"

#include <gtest/gtest.h>

namespace kite {
namespace {

std::string encoded(std::string_view text) {
  return to_base64({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

// [RFC 4648] 10: the test vectors.
TEST(Base64, IsThatOfTheRfc) {
  EXPECT_EQ(encoded(""), "");
  EXPECT_EQ(encoded("f"), "Zg==");
  EXPECT_EQ(encoded("fo"), "Zm8=");
  EXPECT_EQ(encoded("foobar"), "Zm9vYmFy");
  const auto back = from_base64("Zm9vYmE=");
  ASSERT_TRUE(back);
  EXPECT_EQ(std::string(back->begin(), back->end()), "fooba");
}

TEST(Base64, RefusesOtherLetters) { EXPECT_FALSE(from_base64("Zm9v!")); }

}  // namespace
}  // namespace kite

#include "devices/storage/sg_buffer.h"

#include <gtest/gtest.h>

#include <array>

#include "memory/address_space.h"
#include "memory/region.h"

namespace kite::devices {
namespace {

class SgBufferTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto block = RamBlock::create("ram", 1 << 20);
    ASSERT_TRUE(block);
    space_.root().add(0, Region::ram("ram", *block));
    space_.commit();
  }
  AddressSpace space_{"memory", uint64_t{1} << 40};
  GuestMemory memory_{space_};
};

TEST_F(SgBufferTest, TheEntriesFollowOneAnother) {
  const std::array<SgEntry, 3> list{{{0x1000, 4}, {0x5000, 0}, {0x3000, 3}}};
  auto buffer = SgBuffer::pin(memory_, list, DmaDirection::kToGuest);
  ASSERT_TRUE(buffer);
  ASSERT_EQ(buffer->bytes(), 7u);

  buffer->slice().copy_from("abcdefg");
  buffer->complete(7);

  std::array<uint8_t, 4> first;
  std::array<uint8_t, 3> second;
  ASSERT_TRUE(memory_.read(0x1000, first));
  ASSERT_TRUE(memory_.read(0x3000, second));
  EXPECT_EQ(std::string(first.begin(), first.end()), "abcd");
  EXPECT_EQ(std::string(second.begin(), second.end()), "efg");
}

TEST_F(SgBufferTest, AnEntryOutsideOfMemoryIsAnError) {
  const std::array<SgEntry, 2> list{{{0x1000, 512}, {0xfe000000, 512}}};
  EXPECT_FALSE(SgBuffer::pin(memory_, list, DmaDirection::kFromGuest));
}

}  // namespace
}  // namespace kite::devices

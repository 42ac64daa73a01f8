#include "devices/i8237/i8237.h"

#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace i8237_regs;

class I8237Test : public ::testing::Test, public DmaClient {
 protected:
  I8237Test() {
    auto block = RamBlock::create("ram", 1 << 20);
    EXPECT_TRUE(block);
    space_.map(0, Region::ram("ram", *block));
    ports_.map(0x00, dma_.byte_ports());
    ports_.map(0xc0, dma_.word_ports());
    ports_.map(0x80, dma_.page_ports());
    space_.commit();
    dma_.reset();
  }
  void dma_ready() override { ++ready_; }

  // Channel 2, as a floppy driver sets it up.
  void program(uint8_t mode, uint32_t address, uint16_t count) {
    ports_.out(0x0a, 4 | 2);
    ports_.out(0x0c, 0);
    ports_.out(0x0b, mode | 2);
    ports_.out(0x04, address & 0xff);
    ports_.out(0x04, address >> 8 & 0xff);
    ports_.out(0x81, address >> 16);
    ports_.out(0x05, count & 0xffu);
    ports_.out(0x05, count >> 8);
    ports_.out(0x0a, 2);
  }
  std::vector<uint8_t> memory(Gpa address, size_t bytes) {
    std::vector<uint8_t> data(bytes);
    EXPECT_TRUE(memory_.read(address, data));
    return data;
  }

  TestSpace space_{uint64_t{1} << 32}, ports_;
  GuestMemory memory_{space_.space()};
  I8237 dma_{"dma", memory_};
  int ready_ = 0;
};

constexpr uint8_t kToMemory = 0x44, kFromMemory = 0x48, kVerifyMode = 0x40;

TEST_F(I8237Test, DataGoesWhereTheChannelPoints) {
  program(kToMemory, 0x12340, 3);
  const std::vector<uint8_t> data{1, 2, 3, 4};
  const auto done = dma_.to_memory(2, data);
  EXPECT_EQ(done.bytes, 4u);
  EXPECT_TRUE(done.terminal_count);
  EXPECT_EQ(memory(0x12340, 4), data);
}

TEST_F(I8237Test, MaskedChannelTakesNothing) {
  program(kToMemory, 0x1000, 3);
  ports_.out(0x0a, 4 | 2);
  EXPECT_EQ(dma_.to_memory(2, std::vector<uint8_t>(4)).bytes, 0u);
}

TEST_F(I8237Test, ChannelTakesNoMoreThanItsCount) {
  program(kToMemory, 0x1000, 1);
  const auto done = dma_.to_memory(2, std::vector<uint8_t>{7, 8, 9});
  EXPECT_EQ(done.bytes, 2u);
  EXPECT_EQ(memory(0x1000, 3), (std::vector<uint8_t>{7, 8, 0}));
}

TEST_F(I8237Test, TheEndMasksTheChannelAndIsShownOnce) {
  program(kToMemory, 0x1000, 0);
  dma_.to_memory(2, std::vector<uint8_t>(1));
  EXPECT_EQ(ports_.in(0x0f) & 0xf, 0xfu);
  EXPECT_EQ(ports_.in(0x08) & 0xf, 4u);
  EXPECT_EQ(ports_.in(0x08) & 0xf, 0u);
}

TEST_F(I8237Test, AutoInitBeginsAnew) {
  program(kToMemory | kModeAutoInit, 0x1000, 1);
  EXPECT_TRUE(dma_.to_memory(2, std::vector<uint8_t>{1, 2}).terminal_count);
  EXPECT_EQ(dma_.to_memory(2, std::vector<uint8_t>{3}).bytes, 1u);
  EXPECT_EQ(memory(0x1000, 2), (std::vector<uint8_t>{3, 2}));
}

TEST_F(I8237Test, AddressesWrapInsideOfTheirPage) {
  program(kToMemory, 0x1ffff, 1);
  dma_.to_memory(2, std::vector<uint8_t>{5, 6});
  EXPECT_EQ(memory(0x1ffff, 1)[0], 5);
  EXPECT_EQ(memory(0x10000, 1)[0], 6);
}

TEST_F(I8237Test, DecrementGoesDown) {
  program(kToMemory | kModeDecrement, 0x1001, 1);
  dma_.to_memory(2, std::vector<uint8_t>{5, 6});
  EXPECT_EQ(memory(0x1000, 2), (std::vector<uint8_t>{6, 5}));
}

TEST_F(I8237Test, DeviceReadsMemory) {
  program(kFromMemory, 0x2000, 1);
  ASSERT_TRUE(memory_.write(0x2000, std::vector<uint8_t>{0xaa, 0xbb}));
  std::vector<uint8_t> data(2);
  EXPECT_EQ(dma_.from_memory(2, data).bytes, 2u);
  EXPECT_EQ(data, (std::vector<uint8_t>{0xaa, 0xbb}));
}

TEST_F(I8237Test, VerifyCountsAndMovesNothing) {
  program(kVerifyMode, 0x2000, 1);
  EXPECT_TRUE(dma_.to_memory(2, std::vector<uint8_t>{1, 2}).terminal_count);
  EXPECT_EQ(memory(0x2000, 2), (std::vector<uint8_t>{0, 0}));
}

TEST_F(I8237Test, WrongDirectionMovesNothing) {
  program(kFromMemory, 0x2000, 1);
  EXPECT_EQ(dma_.to_memory(2, std::vector<uint8_t>{1, 2}).bytes, 0u);
}

TEST_F(I8237Test, WordChannelsCountWords) {
  ports_.out(0xd8, 0);
  ports_.out(0xd6, 0x44 | 1);  // channel 5
  ports_.out(0xc4, 0x00);
  ports_.out(0xc4, 0x10);
  ports_.out(0xc6, 1);
  ports_.out(0xc6, 0);
  ports_.out(0x8b, 0x02);
  ports_.out(0xd4, 1);
  const std::vector<uint8_t> data{1, 2, 3, 4};
  EXPECT_TRUE(dma_.to_memory(5, data).terminal_count);
  EXPECT_EQ(memory(0x22000, 4), data);
}

TEST_F(I8237Test, UnmaskingTellsADeviceThatAsks) {
  dma_.set_client(2, this);
  dma_.set_request(2, true);
  program(kToMemory, 0x1000, 3);
  EXPECT_EQ(ready_, 1);
}

TEST_F(I8237Test, FlipFlopTakesLowThenHigh) {
  program(kToMemory, 0x3456, 0x789a);
  ports_.out(0x0c, 0);
  EXPECT_EQ(ports_.in(0x04), 0x56u);
  EXPECT_EQ(ports_.in(0x04), 0x34u);
  EXPECT_EQ(ports_.in(0x05), 0x9au);
  EXPECT_EQ(ports_.in(0x05), 0x78u);
}

TEST_F(I8237Test, StateTravels) {
  program(kToMemory, 0x12340, 3);
  dma_.to_memory(2, std::vector<uint8_t>{1});
  I8237 other("dma", memory_);
  ASSERT_TRUE(restore_state(other, saved_state(dma_)));
  EXPECT_EQ(other.to_memory(2, std::vector<uint8_t>{9, 9, 9, 9}).bytes, 3u);
  EXPECT_EQ(memory(0x12340, 4), (std::vector<uint8_t>{1, 9, 9, 9}));
}

TEST_F(I8237Test, RefusesBitsThatDoNotExist) {
  EXPECT_FALSE(restore_state(dma_, with_patched_field(saved_state(dma_), 3, 1, 0xff, 1)));
}

}  // namespace
}  // namespace kite::devices

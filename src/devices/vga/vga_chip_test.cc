#include "devices/vga/vga_chip.h"

#include "devices/vga/test_modes.h"
#include "support/bytes.h"

namespace kite::devices {
namespace {

using testing::kMode12;
using testing::kMode13;
using testing::kTextMode;

using VgaChipTest = testing::VgaTest;

TEST_F(VgaChipTest, RegistersReadBackWithTheBitsThatExist) {
  out(0x3c2, 0xff);
  EXPECT_EQ(in(0x3cc), 0xef);
  indexed(0x3c4, 2, 0xff);
  EXPECT_EQ(in(0x3c5), 0x0f);
  indexed(0x3ce, 5, 0xff);
  EXPECT_EQ(in(0x3cf), 0x7b);
  indexed(0x3d4, 0x0e, 0xa5);
  EXPECT_EQ(in(0x3d5), 0xa5);
  attribute(0x10, 0xff);
  EXPECT_EQ(in(0x3c1), 0xef);
}

TEST_F(VgaChipTest, CrtcFollowsTheAddressSelect) {
  out(0x3c2, 0);
  indexed(0x3b4, 0x0f, 0x12);
  EXPECT_EQ(in(0x3b5), 0x12);
  EXPECT_EQ(in(0x3d5), 0xff);
  out(0x3c2, 1);
  EXPECT_EQ(in(0x3d5), 0x12);
  EXPECT_EQ(in(0x3b5), 0xff);
}

TEST_F(VgaChipTest, ProtectedCrtcTakesLineCompareAlone) {
  out(0x3c2, 1);
  indexed(0x3d4, 1, 0x4f);
  indexed(0x3d4, 0x11, 0x80);
  indexed(0x3d4, 1, 0x11);
  indexed(0x3d4, 7, 0xff);
  EXPECT_EQ(chip_->state().crtc[1], 0x4f);
  EXPECT_EQ(chip_->state().crtc[7], 0x10);
}

TEST_F(VgaChipTest, AttributeIndexAndDataTakeTurns) {
  out(0x3c2, 1);
  in(0x3da);
  out(0x3c0, 3);
  out(0x3c0, 0x2a);
  EXPECT_EQ(chip_->state().attribute[3], 0x2a);
  out(0x3c0, 0x23);  // the palette is closed while it is in use
  out(0x3c0, 0x11);
  EXPECT_EQ(chip_->state().attribute[3], 0x2a);
}

TEST_F(VgaChipTest, StatusShowsRetraceEverySecondTime) {
  out(0x3c2, 1);
  EXPECT_NE(in(0x3da) & 8, in(0x3da) & 8);
}

TEST_F(VgaChipTest, DacTakesSixBitsAndCountsOn) {
  dac(7, 0xff, 2, 3);
  out(0x3c7, 7);
  EXPECT_EQ(in(0x3c7), 3);
  EXPECT_EQ(in(0x3c9), 0x3f);
  EXPECT_EQ(in(0x3c9), 2);
  EXPECT_EQ(in(0x3c9), 3);
  EXPECT_EQ(in(0x3c9), 0);  // of the next
}

// --- the window

class VgaPlanarTest : public VgaChipTest {
 protected:
  VgaPlanarTest() { set(kMode12); }
  void graphics(uint8_t index, uint8_t value) { indexed(0x3ce, index, value); }
  uint32_t planes(uint64_t group) { return load<uint32_t>(memory() + group * 4); }
  void latch(uint32_t value) {
    store(memory() + 400, value);
    chip_->read_window(100);
  }
};

TEST_F(VgaPlanarTest, MapMaskSelectsPlanes) {
  indexed(0x3c4, 2, 0b0101);
  chip_->write_window(9, 0xa5);
  EXPECT_EQ(planes(9), 0x00a500a5U);
}

TEST_F(VgaPlanarTest, WriteMode0RotatesSetsAndMasks) {
  latch(0x11111111);
  graphics(3, 4);       // turned by four
  graphics(0, 0b0010);  // plane 1 set,
  graphics(1, 0b0011);  // plane 0 reset
  graphics(8, 0xf0);    // upper half; the rest from the latch
  chip_->write_window(9, 0x2a);
  EXPECT_EQ(planes(9), 0xa1a1f101U);
}

TEST_F(VgaPlanarTest, WriteMode0Combines) {
  const struct {
    uint8_t function;
    uint32_t result;
  } cases[] = {{0x08, 0x0c0c0c0c & 0x05060708}, {0x10, 0x0c0c0c0c | 0x05060708}, {0x18, 0x0c0c0c0c ^ 0x05060708}};
  for (const auto& one : cases) {
    latch(0x05060708);
    graphics(3, one.function);
    chip_->write_window(9, 0x0c);
    EXPECT_EQ(planes(9), one.result) << int{one.function};
  }
}

TEST_F(VgaPlanarTest, WriteMode1CopiesTheLatch) {
  latch(0x01020304);
  graphics(5, 1);
  chip_->write_window(9, 0xff);
  EXPECT_EQ(planes(9), 0x01020304U);
}

TEST_F(VgaPlanarTest, WriteMode2SpreadsAColor) {
  latch(0x11111111);
  graphics(5, 2);
  graphics(8, 0x0f);
  chip_->write_window(9, 0b1001);
  EXPECT_EQ(planes(9), 0x1f10101fU);
}

TEST_F(VgaPlanarTest, WriteMode3MasksWithTheData) {
  latch(0);
  graphics(5, 3);
  graphics(0, 0b1000);
  graphics(8, 0x3c);
  chip_->write_window(9, 0x0f);
  EXPECT_EQ(planes(9), 0x0c000000U);
}

TEST_F(VgaPlanarTest, ReadModesAnswerAPlaneOrACompare) {
  store(memory() + 36, uint32_t{0x0ff033aa});
  graphics(4, 2);
  EXPECT_EQ(chip_->read_window(9), 0xf0);
  graphics(5, 8);
  graphics(2, 0b0100);
  graphics(7, 0b1100);  // planes 0 and 1 do not count
  EXPECT_EQ(chip_->read_window(9), 0xf0);
}

TEST_F(VgaPlanarTest, OutsideOfTheMapThereIsNothing) {
  chip_->write_window(0x10000, 0xff);
  EXPECT_EQ(chip_->read_window(0x10000), 0xff);
  EXPECT_EQ(planes(0), 0U);
  out(0x3c2, 1);  // memory disabled
  chip_->write_window(0, 0x55);
  EXPECT_EQ(planes(0), 0U);
}

TEST_F(VgaChipTest, TextGoesToTheFirstTwoPlanes) {
  set(kTextMode);
  chip_->write_window(0x18000 + 6, 'K');
  chip_->write_window(0x18000 + 7, 0x1f);
  EXPECT_EQ(load<uint32_t>(memory() + 12), 0x1f4bU);
  EXPECT_EQ(chip_->read_window(0x18000 + 6), 'K');
  EXPECT_EQ(chip_->read_window(0x18000 + 7), 0x1f);
}

TEST_F(VgaChipTest, Chain4IsARowOfBytes) {
  set(kMode13);
  for (uint64_t at = 0; at < 8; ++at) chip_->write_window(at, static_cast<uint8_t>(at + 1));
  EXPECT_EQ(load<uint64_t>(memory()), 0x0807060504030201U);
  EXPECT_EQ(chip_->read_window(6), 7);
}

// --- [DISPI]

TEST_F(VgaChipTest, DispiTellsItsVersionMemoryAndBounds) {
  EXPECT_EQ(chip_->read_dispi(0), 0xb0c5);
  dispi(0, 0xb0c2);
  EXPECT_EQ(chip_->read_dispi(0), 0xb0c2);
  dispi(0, 0x1234);
  EXPECT_EQ(chip_->read_dispi(0), 0xb0c2);
  EXPECT_EQ(chip_->read_dispi(0xa), kMemory >> 16);
  dispi(4, 2);
  EXPECT_EQ(chip_->read_dispi(3), 32);
}

TEST_F(VgaChipTest, DispiModeStandsStillWhileItIsShown) {
  set_dispi(640, 480, 32);
  dispi(1, 320);
  EXPECT_EQ(chip_->read_dispi(1), 640);
  EXPECT_EQ(chip_->read_dispi(6), 640);
  EXPECT_EQ(chip_->read_dispi(7), kMemory / (640 * 4));
}

TEST_F(VgaChipTest, DispiClearsUnlessToldNotTo) {
  memory()[5] = 9;
  set_dispi(640, 480, 8, 0xc1);
  EXPECT_EQ(memory()[5], 9);
  set_dispi(640, 480, 8);
  EXPECT_EQ(memory()[5], 0);
}

TEST_F(VgaChipTest, DispiBanksMoveTheWindow) {
  set_dispi(640, 480, 8);
  dispi(5, 3);
  chip_->write_window(0x10, 0x77);
  EXPECT_EQ(memory()[0x30010], 0x77);
  EXPECT_EQ(chip_->read_window(0x10), 0x77);
  dispi(5, kMemory >> 16);  // past the last
  EXPECT_EQ(chip_->read_dispi(5), 3);
}

TEST_F(VgaChipTest, HostileDispiValuesAreFitted) {
  constexpr uint16_t kValues[] = {0, 1, 7, 8, 639, 0x7fff, 0x8000, 0xfff8, 0xffff};
  for (const uint16_t width : kValues)
    for (const uint16_t height : kValues)
      for (const uint16_t bpp : {uint16_t{0}, uint16_t{4}, uint16_t{8}, uint16_t{24}, uint16_t{32}, uint16_t{0xffff}}) {
        set_dispi(width, height, bpp, 0xc1);
        for (const uint16_t offset : kValues) {
          dispi(6, offset);
          dispi(8, static_cast<uint16_t>(~offset));
          dispi(9, offset);
          const auto& d = chip_->state().dispi;
          const uint64_t bits = d[3] == 15 ? 16 : d[3];
          EXPECT_LE((uint64_t{d[9]} + d[2]) * d[6] * bits / 8, kMemory);
          EXPECT_LE(d[8] + d[1], d[6]);
          EXPECT_TRUE(VgaChip::possible(chip_->state(), kMemory));
        }
      }
}

}  // namespace
}  // namespace kite::devices

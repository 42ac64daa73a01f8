#include "devices/vga/vga_picture.h"

#include <random>

#include "devices/vga/test_modes.h"
#include "support/bytes.h"

namespace kite::devices {
namespace {

using display::Mode;
using testing::kMode12;
using testing::kMode13;
using testing::kMode4;
using testing::kTextMode;

class VgaPictureTest : public testing::VgaTest {
 protected:
  VgaPictureTest() {
    for (uint8_t i = 0; i < 16; ++i) dac(i, i, 0, 0);
  }
  // The pixel of a DAC entry that the constructor set.
  static uint32_t red(uint32_t entry) { return (entry << 2 | entry >> 4) << 16; }
  Mode draw(VgaPicture::Phases phases = {.cursor = false, .text = true}) {
    return picture_.draw(chip_->state(), phases, nullptr, surface_);
  }
  void put_cell(uint32_t cell, uint8_t character, uint8_t attribute) {
    chip_->write_window(0x18000 + cell * 2, character);
    chip_->write_window(0x18000 + cell * 2 + 1, attribute);
  }
  void put_glyph(uint8_t character, uint32_t row, uint8_t dots, uint32_t map = 0) {
    memory()[(map * 0x2000 + character * 32u + row) * 4 + 2] = dots;
  }
  uint32_t at(uint32_t x, uint32_t y) { return surface_.row(y)[x]; }

  display::Surface surface_;
  VgaPicture picture_{chip_->memory()};
};

TEST_F(VgaPictureTest, NothingShowsBeforeTheScreenIsOn) { EXPECT_EQ(draw(), Mode::kBlank); }

TEST_F(VgaPictureTest, TextHasItsSizeColorsAndNineDots) {
  set(kTextMode);
  put_glyph('K', 3, 0x81);
  put_cell(81, 'K', 0x17);
  EXPECT_EQ(draw(), Mode::kText);
  EXPECT_EQ(surface_.width(), 720U);
  EXPECT_EQ(surface_.height(), 400U);
  EXPECT_EQ(at(9, 16 + 3), red(7));
  EXPECT_EQ(at(10, 16 + 3), red(1));
  EXPECT_EQ(at(16, 16 + 3), red(7));
  EXPECT_EQ(at(17, 16 + 3), red(1));  // the ninth
}

TEST_F(VgaPictureTest, LineGraphicsReachTheNinthDot) {
  set(kTextMode);
  put_glyph(0xc4, 3, 0x01);
  put_cell(0, 0xc4, 0x07);
  draw();
  EXPECT_EQ(at(8, 3), red(7));
}

TEST_F(VgaPictureTest, TheSecondFontIsForBrightCharacters) {
  set(kTextMode);
  indexed(0x3c4, 3, 0x04);  // the second map is number 2
  put_glyph('K', 0, 0x80, 2);
  put_cell(0, 'K', 0x07);
  put_cell(1, 'K', 0x0f);
  draw();
  EXPECT_EQ(at(0, 0), red(0));
  EXPECT_EQ(at(9, 0), red(15));
}

TEST_F(VgaPictureTest, TextBlinksAndTheCursorToo) {
  set(kTextMode);
  put_glyph('K', 0, 0x80);
  put_cell(0, 'K', 0x87);
  draw({.cursor = false, .text = true});
  EXPECT_EQ(at(0, 0), red(7));
  EXPECT_EQ(at(1, 0), red(0));  // bit 7 is no background
  draw({.cursor = false, .text = false});
  EXPECT_EQ(at(0, 0), red(0));
  indexed(0x3d4, 0x0f, 2);
  put_cell(2, ' ', 0x03);
  draw({.cursor = true, .text = true});
  EXPECT_EQ(at(18, 0x0d), red(3));
  EXPECT_EQ(at(26, 0x0e), red(3));
  EXPECT_EQ(at(18, 0x0c), red(0));
  indexed(0x3d4, 0x0a, 0x2d);
  draw({.cursor = true, .text = true});
  EXPECT_EQ(at(18, 0x0d), red(0));
}

TEST_F(VgaPictureTest, StartAddressAndLineCompareSplitTheScreen) {
  set(kTextMode);
  put_glyph('a', 0, 0x80);
  put_cell(0, 'a', 0x01);
  put_cell(160, 'a', 0x02);
  indexed(0x3d4, 0x0d, 160);
  indexed(0x3d4, 0x18, 31);
  indexed(0x3d4, 0x11, 0);
  indexed(0x3d4, 0x07, 0x0f);
  indexed(0x3d4, 0x09, 0x0f);
  draw();
  EXPECT_EQ(at(0, 0), red(2));
  EXPECT_EQ(at(0, 32), red(1));
}

TEST_F(VgaPictureTest, PlanarPixelsTakeABitOfEachPlane) {
  set(kMode12);
  store(memory() + (80 * 3 + 2) * 4, uint32_t{0x80008080});
  EXPECT_EQ(draw(), Mode::kGraphics);
  EXPECT_EQ(surface_.width(), 640U);
  EXPECT_EQ(surface_.height(), 480U);
  EXPECT_EQ(at(16, 3), red(0b1011));
  EXPECT_EQ(at(17, 3), red(0));
  attribute(0x12, 0b0011);
  out(0x3c0, 0x20);
  in(0x3da);
  out(0x3c0, 0x20);
  draw();
  EXPECT_EQ(at(16, 3), red(0b0011));
}

TEST_F(VgaPictureTest, PixelPanningMovesToTheLeft) {
  set(kMode12);
  store(memory(), uint32_t{0x08});
  attribute(0x13, 3);
  in(0x3da);
  out(0x3c0, 0x20);
  draw();
  EXPECT_EQ(at(1, 0), red(1));
}

TEST_F(VgaPictureTest, Mode13IsAByteAPixelEachFourTimes) {
  set(kMode13);
  dac(200, 0x3f, 0x3f, 0);
  chip_->write_window(320 * 2 + 5, 200);
  draw();
  EXPECT_EQ(surface_.width(), 640U);
  EXPECT_EQ(surface_.height(), 400U);
  for (const uint32_t x : {10u, 11u})
    for (const uint32_t y : {4u, 5u}) EXPECT_EQ(at(x, y), 0xffff00U);
  EXPECT_EQ(at(12, 4), 0U);
  EXPECT_EQ(at(10, 6), 0U);
}

TEST_F(VgaPictureTest, DacMaskAppliesToPackedPixels) {
  set(kMode13);
  chip_->write_window(0, 0x15);
  out(0x3c6, 0x0f);
  draw();
  EXPECT_EQ(at(0, 0), red(5));
}

TEST_F(VgaPictureTest, Mode4HasTwoBitsAPixelAndOddLinesApart) {
  set(kMode4);
  chip_->write_window(0x18000 + 1, 0x1b);            // line 0, pixels 4 to 7
  chip_->write_window(0x18000 + 0x2000, 0x80);       // line 1, pixel 0
  chip_->write_window(0x18000 + 0x2000 + 80, 0x40);  // line 3
  draw();
  EXPECT_EQ(surface_.width(), 640U);
  EXPECT_EQ(at(8, 0), red(0));
  EXPECT_EQ(at(10, 0), red(1));
  EXPECT_EQ(at(12, 0), red(2));
  EXPECT_EQ(at(14, 1), red(3));
  EXPECT_EQ(at(0, 2), red(2));
  EXPECT_EQ(at(0, 6), red(1));
}

TEST_F(VgaPictureTest, DispiDepths) {
  const struct {
    uint16_t bpp;
    uint32_t pixel, shown;
  } cases[] = {{8, 5, red(5)},
               {15, 0x7c00, 0xff0000},
               {16, 0xf81f, 0xff00ff},
               {24, 0x123456, 0x123456},
               {32, 0xff123456, 0x123456}};
  for (const auto& one : cases) {
    set_dispi(640, 480, one.bpp);
    const size_t bytes = (one.bpp + 7u) / 8;
    store_le(memory() + (640 * 2 + 3) * bytes, bytes, one.pixel);
    EXPECT_EQ(draw(), Mode::kGraphics);
    EXPECT_EQ(surface_.width(), 640U);
    EXPECT_EQ(at(3, 2), one.shown) << one.bpp;
    EXPECT_EQ(at(4, 2), 0U) << one.bpp;
  }
}

TEST_F(VgaPictureTest, DispiOffsetsScroll) {
  set_dispi(320, 200, 32);
  dispi(6, 640);
  dispi(8, 16);
  dispi(9, 7);
  store(memory() + (640 * 7 + 16) * 4, uint32_t{0xabcdef});
  draw();
  EXPECT_EQ(at(0, 0), 0xabcdefU);
}

TEST_F(VgaPictureTest, DispiWithFourBitsIsPlanar) {
  set(kMode12);
  set_dispi(800, 600, 4);
  store(memory() + 100 * 4, uint32_t{0x00008000});  // line 1
  draw();
  EXPECT_EQ(surface_.width(), 800U);
  EXPECT_EQ(surface_.height(), 600U);
  EXPECT_EQ(at(0, 1), red(2));
}

TEST_F(VgaPictureTest, BigEndianPixels) {
  set_dispi(320, 200, 32);
  chip_->set_big_endian(true);
  store(memory(), uint32_t{0x56341200});
  draw();
  EXPECT_EQ(at(0, 0), 0x123456U);
}

TEST_F(VgaPictureTest, OnlyDirtyRowsAreDrawn) {
  set_dispi(1024, 4, 32);
  draw();
  (void)surface_.take_damage();
  for (const uint32_t row : {1u, 2u}) store(memory() + row * 4096, uint32_t{0x10});
  const std::vector<uint64_t> dirty{1u << 2};
  picture_.draw(chip_->state(), {.cursor = false, .text = true}, &dirty, surface_);
  EXPECT_EQ(surface_.take_damage(), (std::vector<display::Rect>{{0, 2, 1, 1}}));
}

TEST_F(VgaPictureTest, RegistersThatDoNotShowLeaveThePictureAlone) {
  set_dispi(1024, 4, 32);
  draw();
  store(memory(), uint32_t{0x10});
  indexed(0x3ce, 8, 0x12);
  const std::vector<uint64_t> dirty{0};
  picture_.draw(chip_->state(), {.cursor = false, .text = true}, &dirty, surface_);
  EXPECT_EQ(at(0, 0), 0U);
}

// Whatever is in the registers, nothing outside of the memory is read: for the sanitizers.
TEST_F(VgaPictureTest, RandomRegistersAreSafe) {
  std::mt19937 random(4711);  // NOLINT
  const auto any = [&] { return static_cast<uint8_t>(random()); };
  for (int round = 0; round < 150; ++round) {
    set(kTextMode);
    for (uint8_t i = 1; i < 5; ++i) indexed(0x3c4, i, any() & 0xdf);
    indexed(0x3d4, 0x11, 0);
    for (uint8_t i = 0; i < 25; ++i) indexed(0x3d4, i, any());
    for (uint8_t i = 0; i < 9; ++i) indexed(0x3ce, i, any());
    for (uint8_t i = 0x10; i < 0x15; ++i) attribute(i, any());
    in(0x3da);
    out(0x3c0, 0x20);
    if (round % 3 == 0)
      set_dispi(static_cast<uint16_t>(random() % 1200), static_cast<uint16_t>(random() % 900), any(), 0xc1);
    for (int i = 0; i < 50; ++i) {
      chip_->write_window(random() % 0x20000, any());
      chip_->read_window(random() % 0x20000);
    }
    draw();
  }
}

}  // namespace
}  // namespace kite::devices

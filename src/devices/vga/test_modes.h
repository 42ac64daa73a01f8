// A VGA in the modes that its BIOS sets, for tests.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <initializer_list>

#include "devices/vga/vga_chip.h"

namespace kite::testing {

struct VgaMode {
  uint8_t misc;
  std::array<uint8_t, 5> sequencer;
  std::array<uint8_t, 25> crtc;
  std::array<uint8_t, 9> graphics;
  uint8_t attribute_mode;
};

// Registers as [VGA] 2-27 has them for the modes 3 (80x25 text), 12h (640x480, 16 colors), 13h (320x200, 256 colors)
// and 4 (320x200, 4 colors).
inline constexpr VgaMode kTextMode = {0x67,
                                      {3, 0, 3, 0, 2},
                                      {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0,    0x4f, 0x0d, 0x0e, 0,
                                       0,    0,    0,    0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff},
                                      {0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff},
                                      0x0c};
inline constexpr VgaMode kMode12 = {0xe3,
                                    {3, 1, 0x0f, 0, 6},
                                    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0,    0x40, 0,    0,   0,
                                     0,    0,    0,    0xea, 0x8c, 0xdf, 0x28, 0,    0xe7, 4,    0xe3, 0xff},
                                    {0, 0, 0, 0, 0, 0, 5, 0x0f, 0xff},
                                    0x01};
inline constexpr VgaMode kMode13 = {0x63,
                                    {3, 1, 0x0f, 0, 0x0e},
                                    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0,    0x41, 0,    0,   0,
                                     0,    0,    0,    0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff},
                                    {0, 0, 0, 0, 0, 0x40, 5, 0x0f, 0xff},
                                    0x41};
inline constexpr VgaMode kMode4 = {0x63,
                                   {3, 9, 3, 0, 2},
                                   {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0,    0xc1, 0,    0,   0,
                                    0,    0,    0,    0x9c, 0x8e, 0x8f, 0x14, 0,    0x96, 0xb9, 0xa2, 0xff},
                                   {0, 0, 0, 0, 0, 0x30, 0x0f, 0, 0xff},
                                   0x01};

class VgaTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kMemory = 2 << 20;
  VgaTest() {
    auto made = RamBlock::create("vram", kMemory);
    EXPECT_TRUE(made);
    chip_ = std::make_unique<devices::VgaChip>(*made);
  }

  void out(uint16_t port, uint8_t value) { chip_->write_port(port, value); }
  uint8_t in(uint16_t port) { return chip_->read_port(port); }
  void indexed(uint16_t port, uint8_t index, uint8_t value) {
    out(port, index);
    out(static_cast<uint16_t>(port + 1), value);
  }
  void attribute(uint8_t index, uint8_t value) {
    in(0x3da);
    out(0x3c0, index);
    out(0x3c0, value);
  }
  void dac(uint8_t index, uint8_t red, uint8_t green, uint8_t blue) {
    out(0x3c8, index);
    for (const uint8_t part : {red, green, blue}) out(0x3c9, part);
  }
  // The palette maps each of the 16 colors to the DAC entry of its number.
  void set(const VgaMode& mode) {
    out(0x3c2, mode.misc);
    for (uint8_t i = 0; i < mode.sequencer.size(); ++i) indexed(0x3c4, i, mode.sequencer[i]);
    indexed(0x3d4, 0x11, 0);
    for (uint8_t i = 0; i < mode.crtc.size(); ++i) indexed(0x3d4, i, mode.crtc[i]);
    for (uint8_t i = 0; i < mode.graphics.size(); ++i) indexed(0x3ce, i, mode.graphics[i]);
    for (uint8_t i = 0; i < 16; ++i) attribute(i, i);
    attribute(0x10, mode.attribute_mode);
    attribute(0x12, 0x0f);
    attribute(0x13, mode.attribute_mode == 0x0c ? 8 : 0);
    attribute(0x14, 0);
    in(0x3da);
    out(0x3c0, 0x20);
  }
  void dispi(uint16_t index, uint16_t value) { chip_->write_dispi(index, value); }
  void set_dispi(uint16_t width, uint16_t height, uint16_t bpp, uint16_t flags = 0x41) {
    dispi(4, 0);
    dispi(1, width);
    dispi(2, height);
    dispi(3, bpp);
    dispi(4, flags);
  }
  uint8_t* memory() { return chip_->memory()->host(); }

  std::unique_ptr<devices::VgaChip> chip_;
};

}  // namespace kite::testing

#include "devices/vga/edid.h"

#include <algorithm>
#include <string_view>

#include "support/bytes.h"

namespace kite::devices {

namespace {

constexpr uint32_t kLeastSide = 64, kMostSide = 4095;  // 12 bits in a detailed timing
constexpr uint32_t kRefresh = 60, kMostClock = 65535;  // in 10 kHz
constexpr uint32_t kDotsPerInch = 100;

uint8_t low(uint32_t value) { return static_cast<uint8_t>(value & 0xff); }
uint32_t millimetres(uint32_t dots) { return dots * 254 / (kDotsPerInch * 10); }

// [EDID] 3.10.2, with short blanking intervals as flat panels take.
void put_timing(uint8_t* to, uint32_t width, uint32_t height) {
  constexpr uint32_t kBlankX = 160, kFrontX = 48, kSyncX = 32, kFrontY = 3, kSyncY = 6;
  const uint32_t blank_y = std::max<uint32_t>(kFrontY + kSyncY + 6, height / 33);
  const uint64_t clock = uint64_t{width + kBlankX} * (height + blank_y) * kRefresh / 10000;
  store(to, static_cast<uint16_t>(std::min<uint64_t>(clock, kMostClock)));
  to[2] = low(width);
  to[3] = low(kBlankX);
  to[4] = low(width >> 8 << 4 | kBlankX >> 8);
  to[5] = low(height);
  to[6] = low(blank_y);
  to[7] = low(height >> 8 << 4 | blank_y >> 8);
  to[8] = low(kFrontX);
  to[9] = low(kSyncX);
  to[10] = low(kFrontY << 4 | kSyncY);
  const uint32_t x = millimetres(width), y = millimetres(height);
  to[12] = low(x);
  to[13] = low(y);
  to[14] = low(x >> 8 << 4 | y >> 8);
  to[17] = 0x1e;  // digital, separate, both syncs positive
}

// [EDID] 3.10.3: a descriptor of text.
void put_text(uint8_t* to, uint8_t tag, std::string_view text) {
  to[3] = tag;
  std::fill_n(to + 5, 13, uint8_t{' '});
  std::ranges::copy(text, to + 5);
  if (text.size() < 13) to[5 + text.size()] = '\n';
}

}  // namespace

std::array<uint8_t, 128> make_edid(uint32_t width, uint32_t height) {
  width = std::clamp(width, kLeastSide, kMostSide);
  height = std::clamp(height, kLeastSide, kMostSide);
  constexpr uint8_t kHeader[] = {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
  constexpr uint16_t kMaker = ('K' - '@') << 10 | ('I' - '@') << 5 | ('T' - '@');
  // sRGB. [EDID] 3.7.
  constexpr uint8_t kColors[] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
  // 640x480, 800x600 and 1024x768 at 60 Hz.
  constexpr uint8_t kEstablished[] = {0x21, 0x08, 0x00};
  // 1920x1200, 1920x1080, 1680x1050, 1600x1200, 1440x900, 1280x1024, 1280x960, 1280x800 at 60 Hz. [EDID] 3.9.
  constexpr uint8_t kStandard[] = {0xd1, 0x00, 0xd1, 0xc0, 0xb3, 0x00, 0xa9, 0x40,
                                   0x95, 0x00, 0x81, 0x80, 0x81, 0x40, 0x81, 0x00};
  std::array<uint8_t, 128> edid{};
  std::ranges::copy(kHeader, edid.begin());
  store_be16(&edid[8], kMaker);
  edid[10] = 1;   // product
  edid[17] = 30;  // 2020
  edid[18] = 1;   // structure 1.4
  edid[19] = 4;
  edid[20] = 0xa5;  // digital, 8 bits a color, DisplayPort
  edid[21] = low(std::min<uint32_t>(millimetres(width) / 10, 255));
  edid[22] = low(std::min<uint32_t>(millimetres(height) / 10, 255));
  edid[23] = 120;   // gamma 2.2
  edid[24] = 0x06;  // sRGB; the first timing is the panel's own
  std::ranges::copy(kColors, edid.begin() + 25);
  std::ranges::copy(kEstablished, edid.begin() + 35);
  std::ranges::copy(kStandard, edid.begin() + 38);
  put_timing(&edid[54], width, height);
  put_text(&edid[72], 0xfc, "Kite display");
  put_text(&edid[90], 0xff, "1");
  constexpr uint8_t kRange[] = {0, 0, 0, 0xfd, 0, 50, 125, 30, 160, 66, 1, '\n', ' ', ' ', ' ', ' ', ' ', ' '};
  std::ranges::copy(kRange, edid.begin() + 108);
  unsigned sum = 0;
  for (const uint8_t byte : edid) sum += byte;
  edid[127] = low(0x100 - sum % 0x100);
  return edid;
}

}  // namespace kite::devices

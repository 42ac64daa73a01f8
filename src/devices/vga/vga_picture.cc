#include "devices/vga/vga_picture.h"

#include <algorithm>
#include <cstring>

#include "support/bytes.h"

namespace kite::devices {

using namespace vga_regs;
using display::Mode;
using display::Surface;

namespace {

constexpr uint32_t kGroups = 0x10000;  // what the VGA's own modes can address
constexpr uint32_t kDots = 8;          // a group is that many, in every graphics mode

bool any_dirty(const std::vector<uint64_t>& dirty, uint64_t offset, uint64_t bytes) {
  for (uint64_t page = offset >> kPageShift; page <= (offset + bytes - 1) >> kPageShift; ++page)
    if (page / 64 < dirty.size() && (dirty[page / 64] >> (page % 64) & 1u) != 0) return true;
  return false;
}

// Registers that the guest goes through without the picture being another.
VgaState shown(VgaState state) {
  state.sequencer_index = state.crtc_index = state.graphics_index = 0;
  state.attribute_index &= kPaletteSource;
  state.attribute_data = false;
  state.status1 = state.dac_state = state.dac_read = state.dac_write = state.dac_component = 0;
  state.dac_latch = {};
  state.latch = 0;
  state.dispi_index = state.dispi[kBank] = 0;
  state.sequencer[kMapMask] = 0;
  for (const auto index : {kSetReset, kEnableSetReset, kColorCompare, kRotate, kReadMap, kColorDontCare, kBitMask})
    state.graphics[index] = 0;
  state.graphics[kMode] &= kInterleave | k256Colors;
  return state;
}

bool is_blank(const VgaState& state) {
  return (state.attribute_index & kPaletteSource) == 0 || (state.sequencer[kClocking] & kScreenOff) != 0;
}

uint32_t from_565(uint32_t value) {
  const uint32_t r = value >> 11 & 31, g = value >> 5 & 63, b = value & 31;
  return (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | (b << 3 | b >> 2);
}
uint32_t from_555(uint32_t value) {
  const uint32_t r = value >> 10 & 31, g = value >> 5 & 31, b = value & 31;
  return (r << 3 | r >> 2) << 16 | (g << 3 | g >> 2) << 8 | (b << 3 | b >> 2);
}

}  // namespace

Mode VgaPicture::draw(const VgaState& state, Phases phases, const std::vector<uint64_t>* dirty, Surface& surface) {
  const VgaState now = shown(state);
  const bool same = drawn_ && now == state_;
  const bool blinked = !(phases == phases_);
  state_ = now;
  phases_ = phases;
  drawn_ = true;
  if (!same) load_palette();
  const bool all = !same || dirty == nullptr;
  if (!state_.dispi_on() && is_blank(state_)) {
    line_.assign(surface.width(), 0);
    for (uint32_t y = 0; all && y < surface.height(); ++y) surface.put_row(y, line_);
    return Mode::kBlank;
  }
  if (state_.dispi_linear()) {
    draw_linear(all, dirty, surface);
    return Mode::kGraphics;
  }
  const auto raster = raster_of(state_);
  if (!raster) return Mode::kBlank;
  // Text, fonts and pictures of these modes are small: one page written, and all is drawn again.
  const uint64_t bytes = state_.dispi_on() ? memory_->size() : std::min<uint64_t>(memory_->size(), kGroups * 4);
  if (all || (raster->text && blinked) || any_dirty(*dirty, 0, bytes)) draw_raster(*raster, surface);
  return raster->text ? Mode::kText : Mode::kGraphics;
}

// --- colors

void VgaPicture::load_palette() {
  const bool eight = (state_.dispi[kDispiEnable] & k8BitDac) != 0;
  for (unsigned index = 0; index < dac_.size(); ++index) {
    uint32_t rgb = 0;
    for (unsigned part = 0; part < 3; ++part) {
      const uint32_t value = state_.dac[index * 3 + part];
      rgb = rgb << 8 | (eight ? value : (value & 0x3f) << 2 | (value >> 4 & 3));
    }
    dac_[index] = rgb;
  }
  // [VGA] 2-99, 2-105: color select gives bits 7:6, and 5:4 where the palette's do not count.
  const auto& attribute = state_.attribute;
  const unsigned select = attribute[kColorSelect];
  for (unsigned index = 0; index < palette_.size(); ++index) {
    unsigned value = attribute[index] & 0x3fu;
    if ((attribute[kAttributeMode] & kPalette54) != 0) value = (value & 0x0f) | (select & 3) << 4;
    palette_[index] = color(value | (select & 0x0c) << 4);
  }
}

uint32_t VgaPicture::color(unsigned index) const { return dac_[index & state_.dac_mask]; }

// --- the VGA's own modes

std::optional<VgaPicture::Raster> VgaPicture::raster_of(const VgaState& state) {
  const auto& crtc = state.crtc;
  const uint8_t clocking = state.sequencer[kClocking];
  const uint32_t overflow = crtc[kOverflow], max_scan = crtc[kMaxScan];
  Raster raster{};
  raster.text = (state.graphics[kMisc] & kGraphicsMode) == 0 && !state.dispi_on();
  raster.packed = (state.graphics[kMode] & k256Colors) != 0;
  raster.interleaved = (state.graphics[kMode] & kInterleave) != 0;
  raster.columns = crtc[kDisplayEnd] + 1u;
  raster.cell_width = raster.text && (clocking & kEightDots) == 0 ? 9 : 8;
  raster.wide = (clocking & kHalfClock) != 0;
  raster.height = (crtc[kVerticalEnd] | (overflow & kVerticalEnd8) << 7 | (overflow & kVerticalEnd9) << 3) + 1u;
  raster.max_scan = max_scan & kScanLines;
  raster.double_scan = (max_scan & kDoubleScan) != 0;
  raster.start = crtc[kStartHigh] * 256u + crtc[kStartLow] + (crtc[kPresetRow] >> 5 & 3u);
  raster.pitch = crtc[kOffset] * 2u;
  raster.line_compare = crtc[kLineCompare] | (overflow & kLineCompare8) << 4 | (max_scan & kLineCompare9) << 3;
  const unsigned shift = (crtc[kUnderline] & kDoubleword) != 0 ? 2 : (crtc[kModeControl] & kByte) == 0 ? 1 : 0;
  raster.row_bits = static_cast<uint8_t>(~crtc[kModeControl] & (kRow13 | kRow14));
  raster.row_shift = static_cast<uint8_t>(13 - shift);
  raster.preset_scan = std::min<uint32_t>(crtc[kPresetRow] & 0x1f, raster.max_scan);
  const uint32_t pan = state.attribute[kPan];
  raster.pan = raster.cell_width == 9 ? (pan >= 8 ? 0 : pan + 1) : raster.packed ? (pan & 7) / 2 * 2 : pan & 7;
  if (state.dispi_on()) {  // [DISPI] 4 bits a pixel: planes, but with sizes of its own
    raster.packed = raster.interleaved = raster.wide = raster.double_scan = false;
    raster.columns = state.dispi[kXres] / kDots;
    raster.height = state.dispi[kYres];
    raster.max_scan = raster.preset_scan = raster.pan = raster.row_bits = 0;
    raster.pitch = state.dispi[kVirtualWidth] / kDots;
    raster.start = state.dispi[kYOffset] * raster.pitch + state.dispi[kXOffset] / kDots;
    raster.line_compare = raster.height;
  }
  raster.width = raster.columns * raster.cell_width * (raster.wide ? 2 : 1);
  return raster;
}

uint32_t VgaPicture::group(uint32_t address) const {
  if (!state_.dispi_on()) address %= kGroups;
  return address < memory_->size() / 4 ? load<uint32_t>(memory_->host() + size_t{address} * 4) : 0;
}

void VgaPicture::draw_raster(const Raster& raster, Surface& surface) {
  if (surface.width() != raster.width || surface.height() != raster.height) surface.resize(raster.width, raster.height);
  Line line{.address = raster.start, .scan = raster.preset_scan, .pan = raster.pan}, last{~0u, 0, 0};
  bool second = false;  // of the two lines that double scan makes of one
  for (uint32_t y = 0; y < raster.height; ++y) {
    if (!(line == last)) draw_line(raster, line);
    last = line;
    surface.put_row(y, line_);
    if (y == raster.line_compare) {  // [VGA] 2-76: what follows is from address 0
      line = {.address = 0, .scan = 0, .pan = (state_.attribute[kAttributeMode] & kPanSplit) != 0 ? 0 : line.pan};
      second = false;
      continue;
    }
    if (raster.double_scan && !second) {
      second = true;
      continue;
    }
    second = false;
    if (line.scan++ < raster.max_scan) continue;
    line.scan = 0;
    line.address += raster.pitch;
  }
}

void VgaPicture::draw_line(const Raster& raster, const Line& line) {
  const uint32_t dots = raster.columns * raster.cell_width;
  // A column more than is seen, for panning.
  line_.resize(size_t{2} * (dots + raster.cell_width));
  uint32_t* to = line_.data();
  uint32_t set = 0, clear = 0;
  if (!raster.text) {
    if ((raster.row_bits & kRow13) != 0) (line.scan & 1 ? set : clear) |= 1u << raster.row_shift;
    if ((raster.row_bits & kRow14) != 0) (line.scan & 2 ? set : clear) |= 2u << raster.row_shift;
  }
  for (uint32_t column = 0; column <= raster.columns; ++column, to += raster.cell_width) {
    const uint32_t address = line.address + column;
    if (raster.text)
      draw_cell(raster, address, line.scan, to);
    else
      draw_dots(raster, group((address & ~clear) | set), to);
  }
  if (line.pan != 0) std::copy_n(line_.begin() + line.pan, dots, line_.begin());
  line_.resize(raster.width);
  if (!raster.wide) return;
  for (uint32_t x = dots; x-- > 0;) line_[2 * x] = line_[2 * x + 1] = line_[x];
}

// Character in plane 0, attribute in plane 1, the fonts of 256 glyphs by 32 bytes in plane 2. [VGA] 2-36.
void VgaPicture::draw_cell(const Raster& raster, uint32_t address, uint32_t scan, uint32_t* to) const {
  const uint32_t cell = group(address);
  const uint32_t character = cell & 0xff, attribute = cell >> 8 & 0xff;
  const uint8_t maps = state_.sequencer[kCharacterMap], mode = state_.attribute[kAttributeMode];
  // [VGA] 2-50: attribute bit 3 selects between the two maps; each one's number has its high bit apart.
  const uint32_t map =
      (attribute & 8) != 0 ? (maps >> 2 & 3u) * 2 + (maps >> 5 & 1u) : (maps & 3u) * 2 + (maps >> 4 & 1u);
  uint32_t dots = group(map * 0x2000 + character * 32 + scan) >> 16 & 0xff;

  uint32_t front = attribute & 0x0f, back = attribute >> 4;
  if ((mode & kBlink) != 0) {
    back &= 7;
    if ((attribute & 0x80) != 0 && !phases_.text) dots = 0;
  }
  bool bar = (mode & kMono) != 0 && (attribute & 7) == 1 && scan == (state_.crtc[kUnderline] & kScanLines);
  const auto& crtc = state_.crtc;
  const uint32_t cursor = crtc[kCursorHigh] * 256u + crtc[kCursorLow];
  if (phases_.cursor && (crtc[kCursorStart] & kCursorOff) == 0 && address % kGroups == cursor &&
      scan >= (crtc[kCursorStart] & kScanLines) && scan <= (crtc[kCursorEnd] & kScanLines))
    bar = true;

  const uint8_t planes = state_.attribute[kPlanes] & 0x0f;
  const uint32_t on = palette_[front & planes], off = palette_[back & planes];
  if (bar) {
    std::fill_n(to, raster.cell_width, on);
    return;
  }
  for (uint32_t x = 0; x < 8; ++x) to[x] = (dots >> (7 - x) & 1) != 0 ? on : off;
  // [VGA] 2-100: line graphics, C0 to DF, go on into the ninth dot.
  if (raster.cell_width == 9) to[8] = (mode & kLineGraphics) != 0 && (character & 0xe0) == 0xc0 ? to[7] : off;
}

void VgaPicture::draw_dots(const Raster& raster, uint32_t group, uint32_t* to) const {
  if (raster.packed) {  // four pixels, two dots each
    for (uint32_t x = 0; x < kDots; ++x) to[x] = color(group >> (8 * (x / 2)) & 0xff);
    return;
  }
  const uint32_t planes = state_.attribute[kPlanes];
  for (uint32_t x = 0; x < kDots; ++x) {
    uint32_t index = 0;
    if (raster.interleaved) {  // two bits a pixel: of planes 0 and 2, then of 1 and 3
      const uint32_t odd = x / 4, shift = 6 - 2 * (x % 4);
      index = (group >> (8 * odd + shift) & 3) | (group >> (8 * (odd + 2) + shift) & 3) << 2;
    } else {
      for (uint32_t plane = 0; plane < 4; ++plane) index |= (group >> (8 * plane + 7 - x) & 1) << plane;
    }
    to[x] = palette_[index & planes & 0x0f];
  }
}

// --- [DISPI] 8 bits a pixel and more

void VgaPicture::draw_linear(bool all, const std::vector<uint64_t>* dirty, Surface& surface) {
  const auto& dispi = state_.dispi;
  const uint32_t width = dispi[kXres], height = dispi[kYres], bytes = (dispi[kBpp] + 7u) / 8;
  const uint64_t pitch = uint64_t{dispi[kVirtualWidth]} * bytes;
  if (surface.width() != width || surface.height() != height) {
    surface.resize(width, height);
    all = true;
  }
  uint64_t at = dispi[kYOffset] * pitch + uint64_t{dispi[kXOffset]} * bytes;
  for (uint32_t y = 0; y < height; ++y, at += pitch) {
    const uint64_t length = uint64_t{width} * bytes;
    if (!all && !any_dirty(*dirty, at, length)) continue;
    if (at + length <= memory_->size())
      draw_linear_row({memory_->host() + at, length}, width);
    else
      line_.assign(width, 0);
    surface.put_row(y, line_);
  }
}

void VgaPicture::draw_linear_row(std::span<const uint8_t> from, uint32_t width) {
  line_.resize(width);
  const bool swap = state_.big_endian;
  const auto pixel16 = [&](uint32_t x) {
    const auto value = load<uint16_t>(&from[size_t{x} * 2]);
    return swap ? __builtin_bswap16(value) : value;
  };
  switch (state_.dispi[kBpp]) {
    case 8:
      for (uint32_t x = 0; x < width; ++x) line_[x] = color(from[x]);
      break;
    case 15:
      for (uint32_t x = 0; x < width; ++x) line_[x] = from_555(pixel16(x));
      break;
    case 16:
      for (uint32_t x = 0; x < width; ++x) line_[x] = from_565(pixel16(x));
      break;
    case 24:
      for (uint32_t x = 0; x < width; ++x) {
        const uint8_t* const rgb = &from[size_t{x} * 3];
        const uint32_t first = rgb[0], last = rgb[2];
        line_[x] = (swap ? first : last) << 16 | uint32_t{rgb[1]} << 8 | (swap ? last : first);
      }
      break;
    default:
      for (uint32_t x = 0; x < width; ++x) {
        const auto value = load<uint32_t>(&from[size_t{x} * 4]);
        line_[x] = (swap ? __builtin_bswap32(value) : value) & 0xffffff;
      }
  }
}

}  // namespace kite::devices

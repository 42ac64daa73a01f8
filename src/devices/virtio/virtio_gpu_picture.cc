// What virtio-gpu shows: pixels of its formats, what of them has changed, and the cursor on them. Those who look have
// no cursor of their own.
#include <algorithm>
#include <utility>

#include "devices/virtio/virtio_gpu_2d.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace virtio_gpu;  // NOLINT: the protocol

namespace {

constexpr uint32_t kOpaque = 0xff000000;

// One pixel as the host reads it, as ARGB.
uint32_t to_argb(uint32_t format, uint32_t pixel) {
  // Red and blue change places.
  const auto swapped = [](uint32_t abgr) { return (abgr & 0xff00ff00) | (abgr & 0xff) << 16 | (abgr >> 16 & 0xff); };
  switch (format) {
    case kB8G8R8A8: return pixel;
    case kB8G8R8X8: return pixel | kOpaque;
    case kA8R8G8B8: return __builtin_bswap32(pixel);
    case kX8R8G8B8: return __builtin_bswap32(pixel) | kOpaque;
    case kR8G8B8A8: return swapped(pixel);
    case kR8G8B8X8: return swapped(pixel) | kOpaque;
    case kA8B8G8R8: return swapped(__builtin_bswap32(pixel));
    default: return swapped(__builtin_bswap32(pixel)) | kOpaque;  // kX8B8G8R8
  }
}

template <uint32_t kFormat>
void convert(const uint8_t* from, std::span<uint32_t> to) {
  for (uint32_t& pixel : to) {
    pixel = to_argb(kFormat, load<uint32_t>(from));
    from += kPixelBytes;
  }
}

// A color that its alpha is in already over one that has none.
uint32_t blend(uint32_t over, uint32_t under) {
  const uint32_t rest = 0xff - (over >> 24);
  uint32_t mixed = 0;
  for (unsigned shift = 0; shift < 24; shift += 8) {
    const uint32_t part = (over >> shift & 0xff) + ((under >> shift & 0xff) * rest + 0x7f) / 0xff;
    mixed |= std::min(part, uint32_t{0xff}) << shift;
  }
  return mixed;
}

}  // namespace

void Gpu2d::pixels_of(const Resource& resource, uint32_t x, uint32_t y, std::span<uint32_t> to) {
  const uint8_t* const from = resource.pixels.get() + y * resource.pitch() + uint64_t{x} * kPixelBytes;
  switch (resource.format) {
    case kB8G8R8A8: return convert<kB8G8R8A8>(from, to);
    case kB8G8R8X8: return convert<kB8G8R8X8>(from, to);
    case kA8R8G8B8: return convert<kA8R8G8B8>(from, to);
    case kX8R8G8B8: return convert<kX8R8G8B8>(from, to);
    case kR8G8B8A8: return convert<kR8G8B8A8>(from, to);
    case kR8G8B8X8: return convert<kR8G8B8X8>(from, to);
    case kA8B8G8R8: return convert<kA8B8G8R8>(from, to);
    default: return convert<kX8B8G8R8>(from, to);
  }
}

// --- what has changed

void Gpu2d::watched(bool on) {
  watched_ = on;
  damage_.clear();
}

void Gpu2d::damage(const display::Rect& rect) {
  if (!watched_ || rect.width == 0) return;
  damage_.push_back(rect);
  if (damage_.size() <= kMostRects) return;
  display::Rect all;
  for (const display::Rect& one : damage_) all = join(all, one);
  damage_ = {all};
}

display::Rect Gpu2d::cursor_rect() const {
  if (screen_.cursor.empty()) return {};
  const auto cut = [](int64_t at, uint32_t end) { return static_cast<uint32_t>(std::clamp<int64_t>(at, 0, end)); };
  const int64_t left = screen_.cursor_x, top = screen_.cursor_y;
  const uint32_t x = cut(left, screen_.rect.width), y = cut(top, screen_.rect.height);
  const uint32_t width = cut(left + kCursorSide, screen_.rect.width) - x;
  const uint32_t height = cut(top + kCursorSide, screen_.rect.height) - y;
  return width == 0 || height == 0 ? display::Rect{} : display::Rect{x, y, width, height};
}

// --- drawing

display::Mode Gpu2d::draw(display::Surface& surface, bool all) {
  const Resource* const resource = find(screen_.resource);
  const std::vector<display::Rect> changed = std::exchange(damage_, {});
  all = std::exchange(stale_, false) || all || !watched_;
  if (resource == nullptr) {
    line_.assign(surface.width(), 0);
    for (uint32_t y = 0; all && y < surface.height(); ++y) surface.put_row(y, line_);
    return display::Mode::kBlank;
  }
  const uint32_t width = screen_.rect.width, height = screen_.rect.height;
  if (surface.width() != width || surface.height() != height) {
    surface.resize(width, height);
    all = true;
  }
  if (all)
    draw_rect(*resource, {0, 0, width, height}, surface);
  else
    for (const display::Rect& rect : changed) draw_rect(*resource, rect, surface);
  return display::Mode::kGraphics;
}

// Damage lies within the screen: with another screen all is drawn.
void Gpu2d::draw_rect(const Resource& resource, const display::Rect& rect, display::Surface& surface) {
  const display::Rect cursor = cursor_rect();
  line_.resize(rect.width);
  for (uint32_t y = rect.y; y < rect.y + rect.height; ++y) {
    pixels_of(resource, screen_.rect.x + rect.x, screen_.rect.y + y, line_);
    for (uint32_t& pixel : line_) pixel &= ~kOpaque;
    if (y - cursor.y < cursor.height) blend_cursor(cursor, rect.x, y);
    surface.put_row(y, line_, rect.x);
  }
}

// Puts a row of the cursor on line_, which starts at `x`.
void Gpu2d::blend_cursor(const display::Rect& cursor, uint32_t x, uint32_t y) {
  const auto end = static_cast<uint32_t>(x + line_.size());
  const auto row = static_cast<uint32_t>(int64_t{y} - screen_.cursor_y);
  for (uint32_t at = std::max(x, cursor.x); at < std::min(end, cursor.x + cursor.width); ++at) {
    const auto column = static_cast<uint32_t>(int64_t{at} - screen_.cursor_x);
    line_[at - x] = blend(screen_.cursor[row * kCursorSide + column], line_[at - x]);
  }
}

}  // namespace kite::devices

#include "display/surface.h"

#include <algorithm>
#include <new>
#include <utility>

namespace kite::display {

Rect join(const Rect& a, const Rect& b) {
  if (a.width == 0 || a.height == 0) return b;
  if (b.width == 0 || b.height == 0) return a;
  const uint32_t x = std::min(a.x, b.x), y = std::min(a.y, b.y);
  return {x, y, std::max(a.x + a.width, b.x + b.width) - x, std::max(a.y + a.height, b.y + b.height) - y};
}

void Surface::resize(uint32_t width, uint32_t height) {
  width_ = std::clamp(width, 1u, kMostSide);
  height_ = std::clamp(height, 1u, kMostSide);
  pixels_.reset(static_cast<uint32_t*>(std::calloc(size_t{width_} * height_, sizeof(uint32_t))));
  if (pixels_ == nullptr) throw std::bad_alloc();
  damage_ = {{0, 0, width_, height_}};
}

void Surface::put_row(uint32_t y, std::span<const uint32_t> pixels, uint32_t x) {
  if (y >= height_ || x >= width_) return;
  const std::span<uint32_t> to(&pixels_[size_t{y} * width_ + x], std::min<size_t>(width_ - x, pixels.size()));
  const auto [first, same] = std::mismatch(to.begin(), to.end(), pixels.begin());
  if (first == to.end()) return;
  auto last = to.end();
  for (auto from = pixels.begin() + static_cast<ptrdiff_t>(to.size()); *--last == *--from;) {
  }
  const auto start = first - to.begin(), count = last + 1 - first;
  std::copy_n(pixels.begin() + start, count, first);
  damage({x + static_cast<uint32_t>(start), y, static_cast<uint32_t>(count), 1});
}

void Surface::damage(Rect rect) {
  if (rect.x >= width_ || rect.y >= height_) return;
  rect.width = std::min(rect.width, width_ - rect.x);
  rect.height = std::min(rect.height, height_ - rect.y);
  if (rect.width == 0 || rect.height == 0) return;
  // Rows come from top to bottom: the next one makes the last rectangle higher.
  if (!damage_.empty() && damage_.back().y + damage_.back().height == rect.y) {
    damage_.back() = join(damage_.back(), rect);
    return;
  }
  damage_.push_back(rect);
  if (damage_.size() <= kMostRects) return;
  Rect all;
  for (const Rect& one : damage_) all = join(all, one);
  damage_ = {all};
}

std::vector<Rect> Surface::take_damage() { return std::exchange(damage_, {}); }

}  // namespace kite::display

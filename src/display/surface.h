// Surface: a picture as sinks take it, and what of it has changed. Pixels are xRGB8888 of the host: 0x00RRGGBB.
// Belongs to one thread at a time; no lock.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

namespace kite::display {

struct Rect {
  uint32_t x = 0, y = 0, width = 0, height = 0;
  bool operator==(const Rect&) const = default;
};

// Pixels that are somebody else's.
struct PictureView {
  uint32_t width = 0, height = 0;
  const uint32_t* pixels = nullptr;
  [[nodiscard]] std::span<const uint32_t> row(uint32_t y) const { return {pixels + size_t{y} * width, width}; }
};

class Surface {
 public:
  static constexpr uint32_t kMostSide = 16384;
  static constexpr size_t kMostRects = 64;  // of damage; more become one that holds them all

  // Black, and all of it changed. Sides are cut to 1..kMostSide.
  void resize(uint32_t width, uint32_t height);
  [[nodiscard]] uint32_t width() const { return width_; }
  [[nodiscard]] uint32_t height() const { return height_; }
  [[nodiscard]] std::span<const uint32_t> row(uint32_t y) const { return {&pixels_[size_t{y} * width_], width_}; }
  [[nodiscard]] std::span<const uint32_t> pixels() const { return {pixels_.get(), size_t{width_} * height_}; }
  [[nodiscard]] PictureView view() const { return {width_, height_, pixels_.get()}; }
  // Replaces a row from `x` on, as far as both reach; what differs from before counts as changed.
  void put_row(uint32_t y, std::span<const uint32_t> pixels, uint32_t x = 0);
  void damage(Rect rect);  // cut to the surface
  // What has changed since it was last taken; the rectangles may overlap.
  [[nodiscard]] std::vector<Rect> take_damage();

 private:
  uint32_t width_ = 0, height_ = 0;
  struct Free {
    void operator()(uint32_t* pixels) const { std::free(pixels); }
  };
  std::unique_ptr<uint32_t[], Free> pixels_;  // those that stay black cost no memory
  std::vector<Rect> damage_;
};

// The smallest rectangle that holds both; one without area counts for nothing.
Rect join(const Rect& a, const Rect& b);

}  // namespace kite::display

// Dirty rectangles as drawing commands: each a copy of a bitmap, in the structures that a QXL card would have in its
// memory. [SPICE] "Spice protocol", "QXL device"; spice/qxl_dev.h.
#pragma once

#include <spice.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "display/frame_relay.h"

namespace kite::display {

// A part of a picture with its own pixels, row after row.
struct Piece {
  Rect rect;
  std::vector<uint32_t> pixels;
};

// Takes the next piece from what has changed: a rectangle, or so many of its rows that it has kMostPiece pixels at
// most (one row at least). Nothing when nothing has changed.
inline constexpr size_t kMostPiece = size_t{256} << 10;
std::optional<Piece> take_piece(FrameRelay::Frame& frame);

// The command; stays in its place until the library has released it.
class SpiceDraw {
 public:
  SpiceDraw(uint64_t id, Piece piece, uint32_t milliseconds);
  SpiceDraw(const SpiceDraw&) = delete;
  SpiceDraw& operator=(const SpiceDraw&) = delete;

  [[nodiscard]] QXLCommandExt command();
  [[nodiscard]] size_t bytes() const { return pixels_.size() * sizeof(uint32_t); }
  [[nodiscard]] const QXLDrawable& drawable() const { return drawable_; }
  [[nodiscard]] const QXLImage& image() const { return image_; }

 private:
  std::vector<uint32_t> pixels_;
  QXLDrawable drawable_{};
  QXLImage image_{};
};

}  // namespace kite::display

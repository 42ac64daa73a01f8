#include "display/spice/spice_draw.h"

#include <algorithm>

namespace kite::display {

std::optional<Piece> take_piece(FrameRelay::Frame& frame) {
  if (frame.rects.empty()) return {};
  Rect& rest = frame.rects.back();
  Piece piece{.rect = rest, .pixels = {}};
  piece.rect.height = static_cast<uint32_t>(std::clamp<size_t>(kMostPiece / rest.width, 1, rest.height));
  piece.pixels.reserve(size_t{piece.rect.width} * piece.rect.height);
  for (uint32_t y = piece.rect.y; y < piece.rect.y + piece.rect.height; ++y) {
    const uint32_t* const row = &frame.pixels[size_t{y} * frame.width + rest.x];
    piece.pixels.insert(piece.pixels.end(), row, row + rest.width);
  }
  rest.y += piece.rect.height;
  rest.height -= piece.rect.height;
  if (rest.height == 0) frame.rects.pop_back();
  return piece;
}

SpiceDraw::SpiceDraw(uint64_t id, Piece piece, uint32_t milliseconds) : pixels_(std::move(piece.pixels)) {
  const auto width = static_cast<int32_t>(piece.rect.width), height = static_cast<int32_t>(piece.rect.height);
  const auto left = static_cast<int32_t>(piece.rect.x), top = static_cast<int32_t>(piece.rect.y);
  drawable_.release_info.id = id;
  drawable_.surface_id = 0;
  drawable_.effect = QXL_EFFECT_OPAQUE;
  drawable_.type = QXL_DRAW_COPY;
  drawable_.bbox = {.top = top, .left = left, .bottom = top + height, .right = left + width};
  drawable_.clip.type = SPICE_CLIP_TYPE_NONE;
  drawable_.mm_time = milliseconds;
  // No other surfaces. The structure is packed: no reference may be bound to its parts.
  for (size_t index = 0; index < sizeof drawable_.surfaces_dest / sizeof(int32_t); ++index)
    drawable_.surfaces_dest[index] = -1;
  drawable_.u.copy.src_bitmap = reinterpret_cast<uintptr_t>(&image_);
  drawable_.u.copy.src_area = {.top = 0, .left = 0, .bottom = height, .right = width};
  drawable_.u.copy.rop_descriptor = SPICE_ROPD_OP_PUT;
  QXL_SET_IMAGE_ID((&image_), QXL_IMAGE_GROUP_DEVICE, static_cast<uint32_t>(id));
  image_.descriptor.type = SPICE_IMAGE_TYPE_BITMAP;
  image_.descriptor.width = piece.rect.width;
  image_.descriptor.height = piece.rect.height;
  image_.bitmap.format = SPICE_BITMAP_FMT_32BIT;
  image_.bitmap.flags = QXL_BITMAP_DIRECT | QXL_BITMAP_TOP_DOWN;
  image_.bitmap.x = piece.rect.width;
  image_.bitmap.y = piece.rect.height;
  image_.bitmap.stride = piece.rect.width * 4;
  image_.bitmap.palette = 0;
  image_.bitmap.data = reinterpret_cast<uintptr_t>(pixels_.data());
}

QXLCommandExt SpiceDraw::command() {
  return {.cmd = {.data = reinterpret_cast<uintptr_t>(&drawable_), .type = QXL_CMD_DRAW, .padding = 0},
          .group_id = 0,
          .flags = 0};
}

}  // namespace kite::display

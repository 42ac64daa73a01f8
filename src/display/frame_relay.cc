#include "display/frame_relay.h"

#include <algorithm>
#include <utility>

namespace kite::display {

bool FrameRelay::put_all(const PictureView& picture) {
  const std::lock_guard lock(mutex_);
  frame_.width = picture.width;
  frame_.height = picture.height;
  frame_.pixels.assign(picture.pixels, picture.pixels + size_t{picture.width} * picture.height);
  frame_.rects = {{0, 0, frame_.width, frame_.height}};
  frame_.resized = true;
  return !std::exchange(told_, true);
}

bool FrameRelay::put(const PictureView& picture, std::span<const Rect> rects) {
  const std::lock_guard lock(mutex_);
  for (const Rect& rect : rects) {
    for (uint32_t y = rect.y; y < rect.y + rect.height; ++y)
      std::ranges::copy(picture.row(y).subspan(rect.x, rect.width),
                        frame_.pixels.begin() + static_cast<ptrdiff_t>(size_t{y} * frame_.width + rect.x));
    frame_.rects.push_back(rect);
  }
  if (frame_.rects.size() > kMostRects) {
    Rect all;
    for (const Rect& one : frame_.rects) all = join(all, one);
    frame_.rects = {all};
  }
  return !std::exchange(told_, true);
}

}  // namespace kite::display

// FrameRelay: the picture between the thread that gets it and those of a display server's library. It holds what they
// have not taken yet, under a lock that is kept for a copy of pixels at most.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "display/surface.h"

namespace kite::display {

class FrameRelay {
 public:
  static constexpr size_t kMostRects = 256;  // that wait; more become one
  struct Frame {
    uint32_t width = 0, height = 0;
    std::vector<uint32_t> pixels;  // all of them, as in a Surface
    std::vector<Rect> rects;       // what has changed; may overlap
    bool resized = false;          // and then `rects` is all of it
  };

  // They answer whether the other thread is to be told: once, until it has begun to take. put() is for a picture of
  // the size that the last put_all() had, and rectangles inside of it.
  [[nodiscard]] bool put_all(const PictureView& picture);
  [[nodiscard]] bool put(const PictureView& picture, std::span<const Rect> rects);
  // The thread that was told: `taker` gets the frame under the lock, and clears what it has taken.
  template <class Taker>
  auto take(Taker taker) {
    const std::lock_guard lock(mutex_);
    told_ = false;
    return taker(frame_);
  }
  // Any thread, without having been told.
  template <class User>
  auto use(User user) {
    const std::lock_guard lock(mutex_);
    return user(frame_);
  }

 private:
  std::mutex mutex_;
  Frame frame_;
  bool told_ = false;
};

}  // namespace kite::display

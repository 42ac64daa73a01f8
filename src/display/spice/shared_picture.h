// SharedPicture: pixels in memory that two processes have.
#pragma once

#include <cstdint>

#include "display/surface.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite::display {

class SharedPicture {
 public:
  SharedPicture() = default;
  static Result<SharedPicture> create(uint32_t width, uint32_t height);
  // Of one that the other process has created; it cannot be written, and has to be as large as it says.
  static Result<SharedPicture> open(uint32_t width, uint32_t height, const Fd& memory);
  SharedPicture(SharedPicture&& other) noexcept { *this = std::move(other); }
  SharedPicture& operator=(SharedPicture&& other) noexcept;
  ~SharedPicture();

  [[nodiscard]] PictureView view() const { return {width_, height_, pixels_}; }
  // Only of the process that has created it: copies from a picture of the same size.
  void copy(const PictureView& from, const Rect& rect);
  [[nodiscard]] Result<Fd> duplicate() const;

 private:
  [[nodiscard]] size_t bytes() const { return size_t{width_} * height_ * sizeof(uint32_t); }
  Result<> map(int protection);

  uint32_t width_ = 0, height_ = 0;
  uint32_t* pixels_ = nullptr;
  Fd memory_;
};

}  // namespace kite::display

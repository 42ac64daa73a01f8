#include "display/spice/shared_picture.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

namespace kite::display {

Result<SharedPicture> SharedPicture::create(uint32_t width, uint32_t height) {
  SharedPicture made;
  made.width_ = width;
  made.height_ = height;
  made.memory_ = Fd(::memfd_create("kite-screen", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!made.memory_.valid() || ::ftruncate(made.memory_.get(), static_cast<off_t>(made.bytes())) != 0 ||
      ::fcntl(made.memory_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
    return fail("no memory for a screen of {} by {}: {}", width, height, errno_text(errno));
  KITE_TRY(made.map(PROT_READ | PROT_WRITE));
  return made;
}

Result<SharedPicture> SharedPicture::open(uint32_t width, uint32_t height, const Fd& memory) {
  SharedPicture made;
  made.width_ = width;
  made.height_ = height;
  struct stat status{};
  if (width == 0 || height == 0 || width > Surface::kMostSide || height > Surface::kMostSide ||
      ::fstat(memory.get(), &status) != 0 || static_cast<size_t>(status.st_size) < made.bytes())
    return fail("a screen of {} by {} without its memory", width, height);
  made.memory_ = Fd(::fcntl(memory.get(), F_DUPFD_CLOEXEC, 0));
  KITE_TRY(made.map(PROT_READ));
  return made;
}

Result<> SharedPicture::map(int protection) {
  void* const at = ::mmap(nullptr, bytes(), protection, MAP_SHARED, memory_.get(), 0);
  if (at == MAP_FAILED) return fail("cannot map a screen of {} by {}: {}", width_, height_, errno_text(errno));
  pixels_ = static_cast<uint32_t*>(at);
  return {};
}

SharedPicture& SharedPicture::operator=(SharedPicture&& other) noexcept {
  std::swap(width_, other.width_);
  std::swap(height_, other.height_);
  std::swap(pixels_, other.pixels_);
  std::swap(memory_, other.memory_);
  return *this;
}

SharedPicture::~SharedPicture() {
  if (pixels_ != nullptr) ::munmap(pixels_, bytes());
}

void SharedPicture::copy(const PictureView& from, const Rect& rect) {
  for (uint32_t y = rect.y; y < rect.y + rect.height; ++y)
    std::ranges::copy(from.row(y).subspan(rect.x, rect.width), pixels_ + size_t{y} * width_ + rect.x);
}

Result<Fd> SharedPicture::duplicate() const {
  Fd copy(::fcntl(memory_.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return fail("cannot share the screen: {}", errno_text(errno));
  return copy;
}

}  // namespace kite::display

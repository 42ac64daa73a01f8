#include "devices/pflash/flash_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "support/log.h"

namespace kite::devices {

namespace {

// A lock of the open file, as image formats use it: writers exclude everybody, readers exclude writers.
bool set_lock(int fd, short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

}  // namespace

Result<std::unique_ptr<FlashFile>> FlashFile::open(const std::string& path, bool read_only, uint64_t granularity,
                                                   uint64_t most) {
  KITE_ASSIGN(auto file, open_unclaimed(path, read_only, granularity, most));
  KITE_TRY(file->claim());
  return file;
}

Result<std::unique_ptr<FlashFile>> FlashFile::open_unclaimed(const std::string& path, bool read_only,
                                                             uint64_t granularity, uint64_t most) {
  Fd fd(::open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
  if (!fd.valid() && (errno == EACCES || errno == EROFS) && !read_only)
    return fail("cannot write the flash file '{}': {}; copy it, or add readonly=on", path, errno_text(errno));
  if (!fd.valid()) return fail("cannot open the flash file '{}': {}", path, errno_text(errno));
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail("cannot read the flash file '{}': {}", path, errno_text(errno));
  if (!S_ISREG(status.st_mode)) return fail("the flash file '{}' is not a regular file", path);
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size == 0 || size % granularity != 0)
    return fail("the flash file '{}' has {} bytes; a flash chip has a multiple of {}", path, size, granularity);
  if (size > most)
    return fail("the flash file '{}' has {} bytes; there is room for {} KiB of flash", path, size, most >> 10);
  return std::unique_ptr<FlashFile>(new FlashFile(path, std::move(fd), size, read_only));
}

Result<> FlashFile::claim() {
  if (set_lock(fd_.get(), read_only_ ? F_RDLCK : F_WRLCK)) return {};
  if (errno == EAGAIN || errno == EACCES)
    return fail("the flash file '{}' is in use by another process; give each machine its own copy", path_);
  return {};  // a file system without locks
}

void FlashFile::release() {
  sync();
  (void)set_lock(fd_.get(), F_UNLCK);
}

Result<> FlashFile::read(uint64_t offset, std::span<uint8_t> to) const {
  while (!to.empty()) {
    const ssize_t got = ::pread(fd_.get(), to.data(), to.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail("cannot read the flash file '{}': {}", path_, errno_text(errno));
    if (got == 0) return fail("the flash file '{}' ends before byte {}", path_, offset);
    to = to.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  return {};
}

Result<> FlashFile::write(uint64_t offset, std::span<const uint8_t> from) {
  if (offset > size_ || from.size() > size_ - offset)
    return fail("a write at byte {} is beyond the flash file '{}'", offset, path_);
  while (!from.empty()) {
    const ssize_t put = ::pwrite(fd_.get(), from.data(), from.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail("cannot write the flash file '{}': {}", path_, errno_text(errno));
    dirty_ = true;
    from = from.subspan(static_cast<size_t>(put));
    offset += static_cast<uint64_t>(put);
  }
  return {};
}

void FlashFile::sync() {
  if (!std::exchange(dirty_, false)) return;
  if (::fdatasync(fd_.get()) != 0)
    log::error("the flash file '{}' did not reach the disk: {}", path_, errno_text(errno));
}

}  // namespace kite::devices

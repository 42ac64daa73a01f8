#include "block/file_lock.h"

#include <fcntl.h>

#include <cerrno>

#include "block/node.h"

namespace kite::block {
namespace {

constexpr off_t kNeedBase = 100;
constexpr off_t kUnsharedBase = 200;
constexpr unsigned kBits = 4;

constexpr const char* kNames[kBits] = {"consistent read", "write", "write unchanged", "resize"};

int set_lock(int fd, off_t at, short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

// True when another open file holds a lock there.
bool is_locked(int fd, off_t at) {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

Failure conflict(const char* kind, unsigned bit, const std::string& filename) {
  return fail("Failed to get {}\"{}\" lock\nIs another process using the image [{}]?", kind, kNames[bit], filename);
}

}  // namespace

Result<> FileLock::change(int fd, const std::string& filename, uint32_t need, uint32_t shared) {
  if (unsupported_) return {};
  const uint32_t unshared = ~shared & Permissions::kAll;
  Result<> result;
  uint32_t added_need = 0;
  uint32_t added_unshared = 0;
  const auto add = [&](uint32_t wanted, uint32_t held, uint32_t& added, off_t base) {
    for (unsigned i = 0; i < kBits && result; ++i) {
      if ((wanted & ~held & 1u << i) == 0) continue;
      const int error = set_lock(fd, base + i, F_RDLCK);
      if (error == ENOLCK || error == EINVAL || error == ENOTSUP || error == ENOSYS) {
        unsupported_ = true;
        return;
      }
      if (error != 0) {
        result = conflict(base == kUnsharedBase ? "shared " : "", i, filename);
      } else {
        added |= 1u << i;
      }
    }
  };
  add(need, need_, added_need, kNeedBase);
  add(unshared, unshared_, added_unshared, kUnsharedBase);
  if (unsupported_) return {};
  for (unsigned i = 0; i < kBits && result; ++i) {
    if ((need & 1u << i) != 0 && is_locked(fd, kUnsharedBase + static_cast<off_t>(i))) {
      result = conflict("", i, filename);
    } else if ((unshared & 1u << i) != 0 && is_locked(fd, kNeedBase + static_cast<off_t>(i))) {
      result = conflict("shared ", i, filename);
    }
  }
  const uint32_t drop_need = result ? need_ & ~need : added_need;
  const uint32_t drop_unshared = result ? unshared_ & ~unshared : added_unshared;
  for (unsigned i = 0; i < kBits; ++i) {
    if ((drop_need & 1u << i) != 0) set_lock(fd, kNeedBase + static_cast<off_t>(i), F_UNLCK);
    if ((drop_unshared & 1u << i) != 0) set_lock(fd, kUnsharedBase + static_cast<off_t>(i), F_UNLCK);
  }
  if (result) {
    need_ = need;
    unshared_ = unshared;
  }
  return result;
}

}  // namespace kite::block

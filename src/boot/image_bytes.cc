#include "boot/image_bytes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "support/fd.h"
#include "support/huge_pages.h"

namespace kite::boot {

FileBytes::FileBytes(size_t capacity) {
  const bool large = capacity >= kHugePageSize;
  bytes_.reset(static_cast<uint8_t*>(large ? allocate_in_huge_pages(capacity) : std::malloc(capacity)));
  if (bytes_ == nullptr) throw std::bad_alloc();
}

Result<FileBytes> read_image(const std::string& path, std::string_view what, uint64_t limit) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return fail("cannot open the {} '{}': {}", what, path, errno_text(errno));
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail("cannot read the {} '{}': {}", what, path, errno_text(errno));

  constexpr size_t kLeast = size_t{1} << 16;  // what is not a regular file has no size
  const uint64_t expected = S_ISREG(status.st_mode) && status.st_size > 0 ? static_cast<uint64_t>(status.st_size) : 0;
  size_t capacity = expected == 0 ? kLeast : std::min(expected, limit) + 1;  // one more, to find the end at once
  FileBytes bytes(capacity);
  size_t used = 0;
  while (true) {
    if (used == capacity) {
      FileBytes larger(capacity *= 2);
      std::memcpy(larger.data(), bytes.data(), used);
      bytes = std::move(larger);
    }
    const ssize_t got = ::read(fd.get(), bytes.data() + used, capacity - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail("cannot read the {} '{}': {}", what, path, errno_text(errno));
    if (got == 0) break;
    used += static_cast<size_t>(got);
    if (used > limit) return fail("the {} '{}' is larger than {} MiB", what, path, limit >> 20);
  }
  bytes.set_size(used);
  return bytes;
}

Result<std::vector<uint8_t>> read_file(const std::string& path, std::string_view what, uint64_t limit) {
  KITE_ASSIGN(const FileBytes bytes, read_image(path, what, limit));
  return std::vector<uint8_t>(bytes.begin(), bytes.end());
}

}  // namespace kite::boot

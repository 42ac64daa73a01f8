#include "boot/image_bytes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "support/fd.h"

namespace kite::boot {

Result<std::vector<uint8_t>> read_file(const std::string& path, std::string_view what, uint64_t limit) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return fail("cannot open the {} '{}': {}", what, path, errno_text(errno));
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail("cannot read the {} '{}': {}", what, path, errno_text(errno));

  constexpr size_t kChunk = size_t{1} << 20;
  const uint64_t expected = S_ISREG(status.st_mode) && status.st_size > 0 ? static_cast<uint64_t>(status.st_size) : 0;
  std::vector<uint8_t> bytes(std::min(expected, limit) + 1);  // one more, to find the end without growing
  size_t used = 0;
  while (true) {
    if (used == bytes.size()) bytes.resize(used + kChunk);
    const ssize_t got = ::read(fd.get(), bytes.data() + used, bytes.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail("cannot read the {} '{}': {}", what, path, errno_text(errno));
    if (got == 0) break;
    used += static_cast<size_t>(got);
    if (used > limit) return fail("the {} '{}' is larger than {} MiB", what, path, limit >> 20);
  }
  bytes.resize(used);
  return bytes;
}

}  // namespace kite::boot

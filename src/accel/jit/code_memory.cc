#include "accel/jit/code_memory.h"

#include <sys/mman.h>

#include <cerrno>

namespace kite::jit {

CodeMemory::~CodeMemory() {
  if (write_ != nullptr) ::munmap(write_, size_);
  if (run_ != nullptr) ::munmap(run_, size_ + data_size_);
}

// Shared memory without a file of its own to be seen in /proc/PID/maps: only there does perf look up what PerfMap has.
Result<> CodeMemory::map(size_t bytes, size_t data_bytes) {
  const auto map_as = [](size_t size, int flags) -> uint8_t* {
    void* const place = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return place == MAP_FAILED ? nullptr : static_cast<uint8_t*>(place);
  };
  size_ = bytes;
  data_size_ = data_bytes;
  write_ = map_as(bytes, MAP_SHARED);
  run_ = map_as(bytes + data_bytes, MAP_PRIVATE);
  // An old size of 0 maps the same once more.
  if (write_ == nullptr || run_ == nullptr ||
      ::mremap(write_, 0, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, run_) == MAP_FAILED ||
      ::mprotect(run_, bytes, PROT_READ | PROT_EXEC) != 0)
    return fail("cannot map {} MiB for translated code: {}", bytes >> 20, errno_text(errno));
  data_ = run_ + bytes;
  return {};
}

}  // namespace kite::jit

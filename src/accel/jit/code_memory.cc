#include "accel/jit/code_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "support/fd.h"

namespace kite::jit {

CodeMemory::~CodeMemory() {
  if (write_ != nullptr) ::munmap(write_, size_);
  if (run_ != nullptr) ::munmap(run_, size_ + data_size_);
}

Result<> CodeMemory::map(size_t bytes, size_t data_bytes) {
  const Fd fd(::memfd_create("kite-code", MFD_CLOEXEC));
  if (fd.get() < 0 || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0)
    return fail("cannot make {} MiB of memory for translated code: {}", bytes >> 20, errno_text(errno));
  const auto map_as = [](void* at, size_t size, int protection, int flags, int file) -> uint8_t* {
    void* const place = ::mmap(at, size, protection, flags, file, 0);
    return place == MAP_FAILED ? nullptr : static_cast<uint8_t*>(place);
  };
  size_ = bytes;
  data_size_ = data_bytes;
  write_ = map_as(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
  run_ = map_as(nullptr, bytes + data_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
  if (write_ == nullptr || run_ == nullptr ||
      map_as(run_, bytes, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd.get()) == nullptr)
    return fail("cannot map {} MiB of translated code: {}", bytes >> 20, errno_text(errno));
  data_ = run_ + bytes;
  return {};
}

}  // namespace kite::jit

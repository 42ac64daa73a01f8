#include "accel/jit/code_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "support/fd.h"

namespace kite::jit {

CodeMemory::~CodeMemory() {
  if (write_ != nullptr) ::munmap(write_, size_);
  if (run_ != nullptr) ::munmap(run_, size_);
}

Result<> CodeMemory::map(size_t bytes) {
  const Fd fd(::memfd_create("kite-code", MFD_CLOEXEC));
  if (fd.get() < 0 || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0)
    return fail("cannot make {} MiB of memory for translated code: {}", bytes >> 20, errno_text(errno));
  const auto map_as = [&](int protection) -> uint8_t* {
    void* const place = ::mmap(nullptr, bytes, protection, MAP_SHARED, fd.get(), 0);
    return place == MAP_FAILED ? nullptr : static_cast<uint8_t*>(place);
  };
  size_ = bytes;
  write_ = map_as(PROT_READ | PROT_WRITE);
  if (write_ != nullptr) run_ = map_as(PROT_READ | PROT_EXEC);
  if (run_ == nullptr) return fail("cannot map {} MiB of translated code: {}", bytes >> 20, errno_text(errno));
  return {};
}

}  // namespace kite::jit

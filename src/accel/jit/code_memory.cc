#include "accel/jit/code_memory.h"

#include <sys/mman.h>

#include <cerrno>

#include "support/huge_pages.h"
#include "support/low_memory.h"
#include "support/page_stock.h"

namespace kite::jit {
namespace {

// What has to be there of a huge page before it is asked for: less is not worth clearing the rest.
constexpr size_t kWorthwhile = size_t{128} << 10;
// And how much, before the next is asked for, too.
constexpr size_t kNextIsNear = kHugePageSize / 4 * 3;

}  // namespace

CodeMemory::~CodeMemory() {
  PageStock::instance().forget(reinterpret_cast<const std::byte*>(run_), size_);
  if (write_ != nullptr) ::munmap(write_, size_);
  if (run_ != nullptr) ::munmap(run_, size_ + data_size_);
}

// Shared memory without a file of its own to be seen in /proc/PID/maps: only there does perf look up what PerfMap has.
Result<> CodeMemory::map(size_t bytes, size_t data_bytes, std::span<const std::byte> near) {
  size_ = bytes;
  data_size_ = data_bytes;
  run_ = static_cast<uint8_t*>(map_near(bytes + data_bytes, near.data(), near.size()));
  void* const shared =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (shared != MAP_FAILED) write_ = static_cast<uint8_t*>(shared);
  // An old size of 0 maps the same once more.
  if (write_ == nullptr || run_ == nullptr ||
      ::mremap(write_, 0, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, run_) == MAP_FAILED ||
      ::mprotect(run_, bytes, PROT_READ | PROT_EXEC) != 0)
    return fail("cannot map {} MiB for translated code: {}", bytes >> 20, errno_text(errno));
  // Not in huge pages: most guests use a small part of each array, and clearing the rest takes time.
  data_ = run_ + bytes;
  huge_pages_.assign(bytes / kHugePageSize, false);
  return {};
}

// Linux gives huge pages to shared memory in its own time, if at all; this asks for one at once.
void CodeMemory::written_to(const uint8_t* place) {
  const auto offset = static_cast<size_t>(place - write_);
  if (offset % kHugePageSize < kWorthwhile) return;
  ask_for(offset / kHugePageSize);
  if (offset % kHugePageSize >= kNextIsNear) ask_for(offset / kHugePageSize + 1);
}

void CodeMemory::ask_for(size_t number) {
  if (number >= huge_pages_.size() || huge_pages_[number]) return;
  huge_pages_[number] = true;
  const size_t offset = number * kHugePageSize;
  PageStock::instance().collapse(reinterpret_cast<std::byte*>(write_ + offset),
                                 reinterpret_cast<const std::byte*>(run_ + offset));
}

}  // namespace kite::jit

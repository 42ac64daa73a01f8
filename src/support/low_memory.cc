#include "support/low_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#include "support/huge_pages.h"
#include "support/page_stock.h"

namespace kite {
namespace {

size_t rounded(size_t bytes) { return (bytes + kHugePageSize - 1) & ~(kHugePageSize - 1); }

}  // namespace

void* map_low(size_t bytes) {
  for (const int where : {MAP_32BIT, 0}) {
    void* const memory = map_at_huge_page(rounded(bytes), where);
    if (memory == nullptr) continue;
    prefer_huge_pages(memory, rounded(bytes));
    return memory;
  }
  return nullptr;
}

void* allocate_low(size_t bytes) {
  if (void* const ready = PageStock::instance().take_low(bytes)) return ready;
  if (void* const memory = map_low(bytes)) return memory;
  throw std::bad_alloc();
}

// First behind 2 GiB, then below 1 GiB: between them is what MAP_32BIT takes.
void* map_near(size_t bytes, const void* place, size_t bytes_there) {
  constexpr uintptr_t kGib = uintptr_t{1} << 30, kReach = 2 * kGib, kStep = uintptr_t{16} << 20, kLowest = kGib / 4;
  const auto first = reinterpret_cast<uintptr_t>(place);
  const auto try_at = [bytes](uintptr_t from, uintptr_t end) -> void* {
    for (uintptr_t at = from; at + bytes <= end; at += kStep) {
      void* const wanted = reinterpret_cast<void*>(at);
      void* const got = ::mmap(wanted, bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
      if (got == wanted) return got;
      if (got != MAP_FAILED) ::munmap(got, bytes);  // a Linux that does not know the flag
    }
    return nullptr;
  };
  if (first + bytes_there <= 2 * kGib) {
    if (void* const above = try_at(2 * kGib, first + kReach)) return above;
    if (void* const below = try_at(kLowest, kGib)) return below;
  }
  return map_at_huge_page(bytes, 0);
}

void free_low(void* memory, size_t bytes) { ::munmap(memory, rounded(bytes)); }

}  // namespace kite

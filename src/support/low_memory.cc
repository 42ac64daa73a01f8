#include "support/low_memory.h"

#include <sys/mman.h>

#include <new>

#include "support/huge_pages.h"

namespace kite {
namespace {

size_t rounded(size_t bytes) { return (bytes + kHugePageSize - 1) & ~(kHugePageSize - 1); }

}  // namespace

void* allocate_low(size_t bytes) {
  const size_t wanted = rounded(bytes), mapped = wanted + kHugePageSize;
  for (const int where : {MAP_32BIT, 0}) {
    void* const memory =
        ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | where, -1, 0);
    if (memory == MAP_FAILED) continue;
    auto* const start = static_cast<std::byte*>(memory);
    const size_t before = rounded(reinterpret_cast<uintptr_t>(start)) - reinterpret_cast<uintptr_t>(start);
    if (before != 0) ::munmap(start, before);
    ::munmap(start + before + wanted, kHugePageSize - before);
    prefer_huge_pages(start + before, wanted);
    return start + before;
  }
  throw std::bad_alloc();
}

void free_low(void* memory, size_t bytes) { ::munmap(memory, rounded(bytes)); }

}  // namespace kite

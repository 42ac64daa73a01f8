#include "support/huge_pages.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#ifndef MADV_COLLAPSE  // Debian 12's C library does not know it
#define MADV_COLLAPSE 25
#endif

namespace kite {

void* allocate_in_huge_pages(size_t bytes) {
  const size_t rounded = (bytes + kHugePageSize - 1) & ~(kHugePageSize - 1);
  void* const memory = rounded < bytes ? nullptr : std::aligned_alloc(kHugePageSize, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  prefer_huge_pages(memory, rounded);
  return memory;
}

void* map_at_huge_page(size_t bytes, int flags) {
  void* const memory = ::mmap(nullptr, bytes + kHugePageSize, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* const start = static_cast<std::byte*>(memory);
  const size_t before = -reinterpret_cast<uintptr_t>(start) & (kHugePageSize - 1);
  if (before != 0) ::munmap(start, before);
  ::munmap(start + before + bytes, kHugePageSize - before);
  return start + before;
}

void prefer_huge_pages(void* address, size_t bytes) { ::madvise(address, bytes, MADV_HUGEPAGE); }

void collapse_to_huge_page(const void* address) { ::madvise(const_cast<void*>(address), kHugePageSize, MADV_COLLAPSE); }

}  // namespace kite

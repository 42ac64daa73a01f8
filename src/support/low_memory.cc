#include "support/low_memory.h"

#include <sys/mman.h>

#include <new>

#include "support/huge_pages.h"

namespace kite {
namespace {

size_t rounded(size_t bytes) { return (bytes + kHugePageSize - 1) & ~(kHugePageSize - 1); }

}  // namespace

void* allocate_low(size_t bytes) {
  for (const int where : {MAP_32BIT, 0}) {
    void* const memory = map_at_huge_page(rounded(bytes), where);
    if (memory == nullptr) continue;
    prefer_huge_pages(memory, rounded(bytes));
    return memory;
  }
  throw std::bad_alloc();
}

void free_low(void* memory, size_t bytes) { ::munmap(memory, rounded(bytes)); }

}  // namespace kite

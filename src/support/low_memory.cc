#include "support/low_memory.h"

#include <sys/mman.h>

#include <new>

namespace kite {

void* allocate_low(size_t bytes) {
  for (const int where : {MAP_32BIT, 0}) {
    void* const memory =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | where, -1, 0);
    if (memory != MAP_FAILED) return memory;
  }
  throw std::bad_alloc();
}

void free_low(void* memory, size_t bytes) { ::munmap(memory, bytes); }

}  // namespace kite

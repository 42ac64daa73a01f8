// Memory in huge pages, where the host has them to give. For what is large and used all over: faults are fewer, and so
// are misses of the host's TLB.
#pragma once

#include <cstddef>
#include <cstdlib>

namespace kite {

inline constexpr size_t kHugePageSize = size_t{2} << 20;

// `bytes` at a multiple of kHugePageSize, to be freed by std::free(); throws std::bad_alloc.
void* allocate_in_huge_pages(size_t bytes);
// Maps `bytes`, a multiple of 4096, of private zeroes at a multiple of kHugePageSize, with further flags of mmap();
// null if there is no room. To be unmapped by munmap().
void* map_at_huge_page(size_t bytes, int flags);
// Asks for huge pages at [address, address + bytes). A wish: hosts without them refuse it.
void prefer_huge_pages(void* address, size_t bytes);
// Makes what is mapped at `address`, a multiple of kHugePageSize, a huge page now. A wish: Linux before 6.1 does not.
void collapse_to_huge_page(const void* address);

// Deleter of std::unique_ptr.
struct FreeHugePages {
  void operator()(void* memory) const { std::free(memory); }
};

}  // namespace kite

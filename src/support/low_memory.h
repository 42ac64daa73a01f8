// Memory below 2 GiB, whose addresses instructions hold in 32 bits.
#pragma once

#include <cstddef>

namespace kite {

// `bytes` of zeroes at a multiple of kHugePageSize, in huge pages where the host has them; elsewhere when nothing is
// left below 2 GiB; throws std::bad_alloc.
void* allocate_low(size_t bytes);
void free_low(void* memory, size_t bytes);

}  // namespace kite

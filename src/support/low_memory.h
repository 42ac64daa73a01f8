// Memory below 2 GiB, whose addresses instructions hold in 32 bits.
#pragma once

#include <cstddef>

namespace kite {

// `bytes` of zeroes at a multiple of kHugePageSize, in huge pages where the host has them; elsewhere when nothing is
// left below 2 GiB; throws std::bad_alloc.
void* allocate_low(size_t bytes);
void free_low(void* memory, size_t bytes);
// As allocate_low(), which takes what PageStock::prepare_low() has prepared, too; null if there is no room at all.
void* map_low(size_t bytes);

// Maps `bytes` of private zeroes at a multiple of kHugePageSize, so that all of them are within 2 GiB of `bytes_there`
// bytes at `place`, which is below 2 GiB; where that does not do, elsewhere; null if there is no room at all. To be
// unmapped by munmap().
void* map_near(size_t bytes, const void* place, size_t bytes_there);

}  // namespace kite

// One access to one range of the flat map: memory directly, trapped regions through their handler as AccessRule says.
#pragma once

#include <cstdint>

#include "memory/address_space.h"

namespace kite {

// `bytes` is 1..8 and [address, address+bytes) lies within the range. Reads answer zero-extended.
uint64_t read_range(const FlatRange& range, uint64_t address, unsigned bytes);
void write_range(const FlatRange& range, uint64_t address, unsigned bytes, uint64_t value);

}  // namespace kite

// One access to one range of the flat map: memory directly, trapped regions through their handler as AccessRule says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "memory/address_space.h"

namespace kite {

// `bytes` is 1..8 and [address, address+bytes) lies within the range. Reads answer zero-extended.
uint64_t read_range(const FlatRange& range, uint64_t address, unsigned bytes);
void write_range(const FlatRange& range, uint64_t address, unsigned bytes, uint64_t value);
// The same again and again at `address`, as far as the handler does several at once; answers the bytes moved.
size_t read_range_many(const FlatRange& range, uint64_t address, unsigned bytes, std::span<uint8_t> to);
size_t write_range_many(const FlatRange& range, uint64_t address, unsigned bytes, std::span<const uint8_t> from);

}  // namespace kite

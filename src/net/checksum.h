// The Internet checksum. [RFC 1071].
#pragma once

#include <cstdint>
#include <span>

namespace kite::net {

// The 16-bit one's complement sum of `bytes`, an odd last one padded with zero, on top of `before`. It is in the byte
// order of the bytes: store() it, or its complement, as it is.
uint16_t internet_sum(std::span<const uint8_t> bytes, uint64_t before = 0);

}  // namespace kite::net

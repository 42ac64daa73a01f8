// Words shared by everything that touches guest-physical addresses.
#pragma once

#include <cstdint>

namespace kite {

using Gpa = uint64_t;  // guest-physical address, bytes

inline constexpr uint64_t kPageSize = 4096;
inline constexpr unsigned kPageShift = 12;

}  // namespace kite

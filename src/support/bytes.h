// Byte-order-safe loads and stores on unaligned memory. Host and guest are little-endian x86-64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace kite {

template <class T>
  requires std::is_trivially_copyable_v<T>
T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
  requires std::is_trivially_copyable_v<T>
void store(void* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

// The little-endian value of the first `size` bytes (1..8) at `from`, zero-extended.
inline uint64_t load_le(const void* from, size_t size) {
  uint64_t value = 0;
  std::memcpy(&value, from, size);
  return value;
}

// Stores the low `size` bytes (1..8) of `value`.
inline void store_le(void* to, size_t size, uint64_t value) { std::memcpy(to, &value, size); }

inline uint16_t load_be16(const void* from) { return __builtin_bswap16(load<uint16_t>(from)); }
inline uint32_t load_be32(const void* from) { return __builtin_bswap32(load<uint32_t>(from)); }
inline uint64_t load_be64(const void* from) { return __builtin_bswap64(load<uint64_t>(from)); }
inline void store_be16(void* to, uint16_t value) { store(to, __builtin_bswap16(value)); }
inline void store_be32(void* to, uint32_t value) { store(to, __builtin_bswap32(value)); }
inline void store_be64(void* to, uint64_t value) { store(to, __builtin_bswap64(value)); }

}  // namespace kite

// A bounded queue of bytes as the devices behind a keyboard controller have them. Plain state: saved as it is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>

namespace kite::devices {

template <size_t N>
struct ByteQueue {
  static_assert(N <= 255);
  std::array<uint8_t, N> bytes{};  // oldest first
  uint8_t count = 0;

  [[nodiscard]] bool possible() const { return count <= N; }
  [[nodiscard]] bool empty() const { return count == 0; }
  [[nodiscard]] size_t space() const { return N - count; }
  // All of `values` or, when they do not fit, none.
  bool push(std::span<const uint8_t> values) {
    if (values.size() > space()) return false;
    for (const uint8_t value : values) bytes[count++] = value;
    return true;
  }
  bool push(std::initializer_list<uint8_t> values) { return push(std::span(values.begin(), values.size())); }
  uint8_t pop() {
    const uint8_t value = bytes[0];
    --count;
    for (size_t i = 0; i < count; ++i) bytes[i] = bytes[i + 1];
    bytes[count] = 0;
    return value;
  }
  void clear() { *this = ByteQueue{}; }
};

}  // namespace kite::devices

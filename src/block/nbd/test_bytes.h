// Messages of the protocol, put together byte by byte.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace kite::block::nbd {

class Bytes {
 public:
  Bytes& be16(uint16_t value) { return number(value, 2); }
  Bytes& be32(uint32_t value) { return number(value, 4); }
  Bytes& be64(uint64_t value) { return number(value, 8); }
  Bytes& text(std::string_view text) {
    bytes.insert(bytes.end(), text.begin(), text.end());
    return *this;
  }
  Bytes& fill(size_t count, uint8_t value) {
    bytes.insert(bytes.end(), count, value);
    return *this;
  }
  Bytes& add(const Bytes& other) {
    bytes.insert(bytes.end(), other.bytes.begin(), other.bytes.end());
    return *this;
  }
  std::vector<uint8_t> bytes;

 private:
  Bytes& number(uint64_t value, unsigned size) {
    for (unsigned i = size; i-- > 0;) bytes.push_back(static_cast<uint8_t>(value >> (i * 8)));
    return *this;
  }
};

}  // namespace kite::block::nbd

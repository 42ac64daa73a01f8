// Takes a fuzzer's input apart, bit by bit; zeros when it runs dry.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>

namespace kite::fuzz {

class ByteSource {
 public:
  ByteSource(const uint8_t* data, size_t size) : left_(data, size) {}
  template <class T>
  T take() {
    T value{};
    const size_t count = left_.size() < sizeof value ? left_.size() : sizeof value;
    std::memcpy(&value, left_.data(), count);
    left_ = left_.subspan(count);
    return value;
  }
  // 0..bound-1; bound up to 65536.
  uint32_t below(uint32_t bound) { return take<uint16_t>() % bound; }
  [[nodiscard]] std::span<const uint8_t> rest() const { return left_; }
  [[nodiscard]] bool empty() const { return left_.empty(); }

 private:
  std::span<const uint8_t> left_;
};

}  // namespace kite::fuzz

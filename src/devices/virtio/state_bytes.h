// Lists of numbers as bytes, for fields of saved state that hold several of a kind.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "devices/storage/sg_buffer.h"
#include "support/bytes.h"

namespace kite::devices {

class StateBytes {
 public:
  template <class... T>
  void put(const T&... values) {
    (append(&values, sizeof values), ...);
  }
  void put_list(std::span<const SgEntry> list) {
    for (const SgEntry& entry : list) put(entry.address, static_cast<uint32_t>(entry.bytes));
  }
  void append(const void* from, size_t size) {
    const auto* const at = static_cast<const uint8_t*>(from);
    bytes.insert(bytes.end(), at, at + size);
  }
  std::vector<uint8_t> bytes;
};

// Short input answers zeroes and is remembered.
class StateCut {
 public:
  explicit StateCut(std::span<const uint8_t> bytes) : rest_(bytes) {}
  template <class... T>
  void get(T&... values) {
    (take(values), ...);
  }
  // `count` parts of memory, none of them empty or past the end of addresses; their bytes are added to `total`.
  bool get_list(size_t count, std::vector<SgEntry>& list, uint64_t& total) {
    for (size_t i = 0; i < count && good_; ++i) {
      SgEntry entry;
      uint32_t bytes = 0;
      get(entry.address, bytes);
      entry.bytes = bytes;
      if (bytes == 0 || bytes > UINT64_MAX - entry.address) return false;
      list.push_back(entry);
      total += bytes;
    }
    return good_;
  }
  // The next `size` bytes; none when there are fewer.
  std::span<const uint8_t> take_bytes(size_t size) {
    good_ = good_ && rest_.size() >= size;
    if (!good_) return {};
    const auto front = rest_.first(size);
    rest_ = rest_.subspan(size);
    return front;
  }
  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] bool empty() const { return rest_.empty(); }

 private:
  template <class T>
  void take(T& value) {
    const auto bytes = take_bytes(sizeof(T));
    value = good_ ? load<T>(bytes.data()) : T{};
  }
  std::span<const uint8_t> rest_;
  bool good_ = true;
};

}  // namespace kite::devices

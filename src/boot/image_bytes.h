// The bytes of a file that came from outside: every look is checked against its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/bytes.h"
#include "support/huge_pages.h"
#include "support/result.h"

namespace kite::boot {

// The bytes of a large file. Unlike those of a std::vector they are not zeroed before they are read, and they are in
// huge pages where the host has them.
class FileBytes {
 public:
  FileBytes() = default;
  explicit FileBytes(size_t capacity);  // at least 1

  [[nodiscard]] uint8_t* data() { return bytes_.get(); }
  [[nodiscard]] const uint8_t* data() const { return bytes_.get(); }
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] const uint8_t* begin() const { return data(); }
  [[nodiscard]] const uint8_t* end() const { return data() + size_; }
  void set_size(size_t size) { size_ = size; }  // no more than the capacity

 private:
  std::unique_ptr<uint8_t, FreeHugePages> bytes_;
  size_t size_ = 0;
};

// Reads the whole of `path`. `what` names it in errors ("kernel", "initrd"); more than `limit` bytes are an error.
Result<FileBytes> read_image(const std::string& path, std::string_view what, uint64_t limit);
Result<std::vector<uint8_t>> read_file(const std::string& path, std::string_view what, uint64_t limit);

class ImageBytes {
 public:
  explicit ImageBytes(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  [[nodiscard]] uint64_t size() const { return bytes_.size(); }
  // [offset, offset+bytes), or nothing when the file ends before.
  [[nodiscard]] std::optional<std::span<const uint8_t>> slice(uint64_t offset, uint64_t bytes) const {
    if (offset > bytes_.size() || bytes > bytes_.size() - offset) return std::nullopt;
    return bytes_.subspan(offset, bytes);
  }
  template <class T>
  [[nodiscard]] std::optional<T> get(uint64_t offset) const {
    const auto bytes = slice(offset, sizeof(T));
    if (!bytes) return std::nullopt;
    return load<T>(bytes->data());
  }
  // The little-endian value, or 0 beyond the end: for fields that are 0 where they do not exist.
  template <class T>
  [[nodiscard]] T value(uint64_t offset) const {
    return get<T>(offset).value_or(T{});
  }

 private:
  std::span<const uint8_t> bytes_;
};

}  // namespace kite::boot

#include "block/io.h"

#include <cstring>

namespace kite::block {

IoSlice::IoSlice(std::span<const iovec> parts) {
  if (parts.empty()) return;
  first_ = parts.front();
  rest_ = parts.data() + 1;
  for (const iovec& part : parts) bytes_ += part.iov_len;
}

IoSlice IoSlice::of_const(const void* memory, size_t bytes) {
  IoSlice slice;
  std::memcpy(&slice.first_.iov_base, &memory, sizeof memory);
  slice.first_.iov_len = bytes;
  slice.bytes_ = bytes;
  return slice;
}

IoSlice IoSlice::slice(uint64_t offset, uint64_t bytes) const {
  IoSlice part = *this;
  if (bytes != 0) {
    while (offset >= part.first_.iov_len) {
      offset -= part.first_.iov_len;
      part.first_ = *part.rest_++;
    }
    part.first_.iov_base = static_cast<uint8_t*>(part.first_.iov_base) + offset;
    part.first_.iov_len -= offset;
  }
  part.bytes_ = bytes;
  return part;
}

size_t IoSlice::part_count() const {
  size_t count = 0;
  for_parts([&](std::span<uint8_t>) {
    ++count;
    return true;
  });
  return count;
}

bool IoSlice::aligned_to(uint64_t alignment) const {
  return for_parts([&](std::span<uint8_t> part) {
    return (reinterpret_cast<uintptr_t>(part.data()) & (alignment - 1)) == 0 && (part.size() & (alignment - 1)) == 0;
  });
}

void IoSlice::copy_to(void* to) const {
  auto* at = static_cast<uint8_t*>(to);
  for_parts([&](std::span<uint8_t> part) {
    std::memcpy(at, part.data(), part.size());
    at += part.size();
    return true;
  });
}

void IoSlice::copy_from(const void* from) const {
  const auto* at = static_cast<const uint8_t*>(from);
  for_parts([&](std::span<uint8_t> part) {
    std::memcpy(part.data(), at, part.size());
    at += part.size();
    return true;
  });
}

void IoSlice::fill(uint8_t value) const {
  for_parts([&](std::span<uint8_t> part) {
    std::memset(part.data(), value, part.size());
    return true;
  });
}

bool IoSlice::all_zero() const {
  return for_parts([](std::span<uint8_t> part) { return is_zero(part.data(), part.size()); });
}

bool is_zero(const void* memory, size_t bytes) {
  constexpr size_t kHead = 16;
  const auto* at = static_cast<const uint8_t*>(memory);
  for (size_t i = 0; i < kHead; ++i) {
    if (i == bytes) return true;
    if (at[i] != 0) return false;
  }
  // The head is zero: the rest is when it equals itself shifted by that much.
  return std::memcmp(at, at + kHead, bytes - kHead) == 0;
}

}  // namespace kite::block

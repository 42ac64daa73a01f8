// CodeMemory: memory that is written through one mapping and executed through another, so that no page is ever both;
// behind it data that code reaches by its distance.
// One vCPU's; used by its thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "support/result.h"

namespace kite::jit {

class CodeMemory {
 public:
  CodeMemory() = default;
  ~CodeMemory();
  CodeMemory(const CodeMemory&) = delete;
  CodeMemory& operator=(const CodeMemory&) = delete;

  // Both are multiples of 4096, together below 2 GiB. Pages are committed when they are first written. If possible, all
  // is within 2 GiB of `near`.
  Result<> map(size_t bytes, size_t data_bytes, std::span<const std::byte> near);
  // Code has been written as far as `place`, in the mapping for writing: what has filled up becomes huge pages.
  void written_to(const uint8_t* place);
  [[nodiscard]] uint8_t* write() const { return write_; }
  [[nodiscard]] const uint8_t* run() const { return run_; }
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] uint8_t* data() const { return data_; }
  [[nodiscard]] size_t data_size() const { return data_size_; }
  // From a place to write at to where it is executed.
  [[nodiscard]] ptrdiff_t delta() const { return run_ - write_; }

 private:
  void ask_for(size_t number);

  uint8_t* write_ = nullptr;
  uint8_t* run_ = nullptr;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  size_t data_size_ = 0;
  std::vector<bool> huge_pages_;  // which have been asked for
};

}  // namespace kite::jit

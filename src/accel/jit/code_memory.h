// CodeMemory: memory that is written through one mapping and executed through another, so that no page is ever both.
// One vCPU's; used by its thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "support/result.h"

namespace kite::jit {

class CodeMemory {
 public:
  CodeMemory() = default;
  ~CodeMemory();
  CodeMemory(const CodeMemory&) = delete;
  CodeMemory& operator=(const CodeMemory&) = delete;

  // `bytes` is a multiple of 4096, below 2 GiB. Pages are committed when they are first written.
  Result<> map(size_t bytes);
  [[nodiscard]] uint8_t* write() const { return write_; }
  [[nodiscard]] const uint8_t* run() const { return run_; }
  [[nodiscard]] size_t size() const { return size_; }
  // From a place to write at to where it is executed.
  [[nodiscard]] ptrdiff_t delta() const { return run_ - write_; }

 private:
  uint8_t* write_ = nullptr;
  uint8_t* run_ = nullptr;
  size_t size_ = 0;
};

}  // namespace kite::jit

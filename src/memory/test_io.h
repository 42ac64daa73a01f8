// What the tests of this room share: a handler that records, and RAM without ceremony.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "memory/region.h"

namespace kite::testing {

// Reads answer the low bytes of successive addresses (offset, offset+1, ...), so that every byte tells where it is
// from.
class RecordingIo final : public IoHandler {
 public:
  uint64_t io_read(uint64_t offset, unsigned size) override {
    log_.push_back(fmt::format("r{}@{:x}", size, offset));
    uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= ((offset + i) & 0xff) << (i * 8);
    return value;
  }
  void io_write(uint64_t offset, unsigned size, uint64_t value) override {
    log_.push_back(fmt::format("w{}@{:x}={:x}", size, offset, value));
  }
  std::vector<std::string> take() { return std::exchange(log_, {}); }

 private:
  std::vector<std::string> log_;
};

inline std::shared_ptr<RamBlock> make_ram(uint64_t pages) {
  auto block = RamBlock::create("test", pages * kPageSize);
  EXPECT_TRUE(block) << block.error().message;
  return *block;
}

}  // namespace kite::testing

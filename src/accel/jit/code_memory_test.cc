#include "accel/jit/code_memory.h"

#include <gtest/gtest.h>

#include <cstring>

namespace kite::jit {
namespace {

TEST(CodeMemory, WhatIsWrittenIsWhatIsExecuted) {
  CodeMemory memory;
  ASSERT_TRUE(memory.map(size_t{4} << 20, size_t{1} << 20, {}));
  std::memset(memory.write(), 0x90, memory.size());
  for (size_t place = 4096; place <= memory.size(); place += 4096) memory.written_to(memory.write() + place);
  EXPECT_EQ(memory.run()[0], 0x90);
  EXPECT_EQ(memory.run()[memory.size() - 1], 0x90);
  memory.data()[memory.data_size() - 1] = 1;
}

TEST(CodeMemory, MoreThanThereIsIsRefused) {
  CodeMemory memory;
  EXPECT_FALSE(memory.map(size_t{1} << 47, 0, {}));
}

}  // namespace
}  // namespace kite::jit

// What is written can be read again: a stream in memory, for tests.
#pragma once

#include <algorithm>
#include <vector>

#include "snapshot/stream.h"

namespace kite::snapshot {

struct Pipe final : ByteSink, ByteSource {
  Result<> write(std::span<const uint8_t> more) override {
    bytes.insert(bytes.end(), more.begin(), more.end());
    return {};
  }
  Result<> read(std::span<uint8_t> to) override {
    if (bytes.size() - at < to.size()) return fail("the end");
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), to.size(), to.begin());
    at += to.size();
    return {};
  }
  std::vector<uint8_t> bytes;
  size_t at = 0;
};

}  // namespace kite::snapshot

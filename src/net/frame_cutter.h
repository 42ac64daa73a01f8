// FrameCutter: frames out of a stream of bytes in which each stands behind its length, 32 bits, big-endian. That is how
// QEMU's -netdev socket and stream write them. Bytes come as they come; the other end is not trusted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "net/net_backend.h"
#include "support/bytes.h"

namespace kite::net {

class FrameCutter {
 public:
  static constexpr size_t kLengthBytes = 4;

  // Hands `whole` each frame that is complete, also one that is too short for a frame. False for a length that no frame
  // has: where the next one begins is not known then.
  bool cut(std::span<const uint8_t> bytes, auto whole) {
    while (!bytes.empty()) {
      const bool in_place = part_.empty() && bytes.size() >= kLengthBytes;
      if (!in_place && part_.size() < kLengthBytes) collect(bytes, kLengthBytes);
      if (!in_place && part_.size() < kLengthBytes) return true;
      const size_t length = load_be32(in_place ? bytes.data() : part_.data());
      if (length > kMostFrameBytes) return false;
      if (in_place && bytes.size() - kLengthBytes >= length) {
        whole(bytes.subspan(kLengthBytes, length));
        bytes = bytes.subspan(kLengthBytes + length);
        continue;
      }
      collect(bytes, kLengthBytes + length);
      if (part_.size() < kLengthBytes + length) return true;
      whole(Frame(part_).subspan(kLengthBytes));
      part_.clear();
    }
    return true;
  }
  // The next byte is the first of another stream.
  void clear() { part_.clear(); }

 private:
  // Moves bytes until `part_` has this many.
  void collect(std::span<const uint8_t>& bytes, size_t wanted) {
    const size_t count = std::min(wanted - part_.size(), bytes.size());
    part_.insert(part_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
    bytes = bytes.subspan(count);
  }

  std::vector<uint8_t> part_;  // of a frame that is not complete, its length included
};

}  // namespace kite::net

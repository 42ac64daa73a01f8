#include "devices/storage/sg_buffer.h"

#include <algorithm>

namespace kite::devices {

Result<SgBuffer> SgBuffer::pin(const GuestMemory& memory, std::span<const SgEntry> list, DmaDirection direction) {
  SgBuffer buffer;
  buffer.spans_.reserve(list.size());
  for (const SgEntry& entry : list) {
    if (entry.bytes == 0) continue;
    KITE_TRY(memory.pin(entry.address, entry.bytes, direction, buffer.spans_));
  }
  buffer.parts_.reserve(buffer.spans_.size());
  for (const DmaSpan& span : buffer.spans_) {
    buffer.parts_.push_back({.iov_base = span.bytes().data(), .iov_len = span.bytes().size()});
    buffer.bytes_ += span.size();
  }
  return buffer;
}

void SgBuffer::complete(uint64_t written) {
  parts_.clear();
  bytes_ = 0;
  for (DmaSpan& span : spans_) {
    const uint64_t here = std::min(span.size(), written);
    span.complete(here);
    written -= here;
  }
  spans_.clear();
}

}  // namespace kite::devices

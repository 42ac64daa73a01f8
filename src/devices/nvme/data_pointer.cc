#include "devices/nvme/data_pointer.h"

#include <algorithm>
#include <array>

#include "support/bits.h"
#include "support/bytes.h"

namespace kite::devices::nvme {
namespace {

using Outcome = std::expected<DataPointer, Status>;

// Appends, joining what is contiguous.
void append(std::vector<SgEntry>& entries, Gpa address, uint64_t bytes) {
  if (bytes == 0) return;
  if (!entries.empty() && entries.back().address + entries.back().bytes == address) {
    entries.back().bytes += bytes;
  } else {
    entries.push_back({.address = address, .bytes = bytes});
  }
}

// [NVMe 1.4] 4.3
class PrpReader {
 public:
  PrpReader(DmaReader& memory, uint64_t page_bytes) : memory_(memory), page_bytes_(page_bytes) {}

  Status read(uint64_t prp1, uint64_t prp2, uint64_t bytes) {
    left_ = bytes;
    if (left_ == 0) return kSuccess;
    if (!is_aligned(prp1, 4)) return kPrpOffsetInvalid;
    take(prp1, page_bytes_ - prp1 % page_bytes_);
    if (left_ == 0) return kSuccess;
    if (left_ > page_bytes_) return read_list(prp2);
    if (!is_aligned(prp2, page_bytes_)) return kPrpOffsetInvalid;
    take(prp2, page_bytes_);
    return kSuccess;
  }
  std::vector<SgEntry> entries;

 private:
  void take(Gpa address, uint64_t most) {
    const uint64_t here = std::min(left_, most);
    append(entries, address, here);
    left_ -= here;
  }
  // The last entry of a page of the list points to the next page while more than one entry is left.
  Status read_list(Gpa list) {
    if (!is_aligned(list, 8)) return kPrpOffsetInvalid;
    std::vector<uint64_t> page;
    while (left_ != 0) {
      const uint64_t room = (page_bytes_ - list % page_bytes_) / sizeof(uint64_t);
      const uint64_t needed = (left_ + page_bytes_ - 1) / page_bytes_;
      page.resize(std::min(room, needed));
      if (!memory_.dma_read(list, {reinterpret_cast<uint8_t*>(page.data()), page.size() * sizeof(uint64_t)}))
        return kDataTransferError;
      const bool chained = needed > room;
      for (size_t at = 0; at < page.size() - (chained ? 1 : 0); ++at) {
        if (!is_aligned(page[at], page_bytes_)) return kPrpOffsetInvalid;
        take(page[at], page_bytes_);
      }
      if (!chained) break;
      list = page.back();
      // A page that holds only a pointer onward would let a list go on for ever.
      if (!is_aligned(list, page_bytes_)) return kPrpOffsetInvalid;
    }
    return kSuccess;
  }

  DmaReader& memory_;
  const uint64_t page_bytes_;
  uint64_t left_ = 0;
};

// [NVMe 1.4] 4.4
class SglReader {
 public:
  SglReader(DmaReader& memory, bool to_guest) : memory_(memory), to_guest_(to_guest) {}

  Status read(const SglDescriptor& first, uint64_t bytes) {
    left_ = bytes;
    SglDescriptor segment = first;
    if (!is_segment(segment)) return finish(take(segment));
    for (unsigned segments = 0; segments < kMostSegments; ++segments) {
      bool more = false;
      if (const Status status = read_segment(segment, more); status != kSuccess) return status;
      if (!more) return finish(kSuccess);
    }
    return kSglInvalidCount;
  }
  DataPointer result;

 private:
  static constexpr unsigned kMostSegments = 64;
  static constexpr uint32_t kMostInSegment = 4096;  // descriptors

  static uint8_t type_of(const SglDescriptor& descriptor) { return descriptor.type >> 4; }
  static bool is_segment(const SglDescriptor& descriptor) {
    return type_of(descriptor) == kSglSegment || type_of(descriptor) == kSglLastSegment;
  }
  // An SGL that ends before the data does is too short; one that goes on says nothing.
  [[nodiscard]] Status finish(Status status) const {
    if (status != kSuccess) return status;
    return left_ == 0 ? kSuccess : kSglLengthInvalid;
  }
  // `segment` becomes the next one when there is more.
  Status read_segment(SglDescriptor& segment, bool& more) {
    const bool last = type_of(segment) == kSglLastSegment;
    if (segment.bytes == 0 || segment.bytes % sizeof(SglDescriptor) != 0 || (segment.type & 0xf) != 0)
      return kSglInvalidSegment;
    const uint32_t count = segment.bytes / static_cast<uint32_t>(sizeof(SglDescriptor));
    if (count > kMostInSegment) return kSglInvalidCount;
    std::vector<SglDescriptor> list(count);
    if (!memory_.dma_read(segment.address, {reinterpret_cast<uint8_t*>(list.data()), segment.bytes}))
      return kDataTransferError;
    for (uint32_t at = 0; at < count; ++at) {
      if (!is_segment(list[at])) {
        if (const Status status = take(list[at]); status != kSuccess) return status;
        continue;
      }
      // Only the last descriptor of a segment that is not the last may point onward.
      if (last || at + 1 != count) return kSglInvalidSegment;
      segment = list[at];
      more = true;
    }
    return kSuccess;
  }
  Status take(const SglDescriptor& descriptor) {
    if ((descriptor.type & 0xf) != 0) return kSglTypeInvalid;  // an offset, for controllers elsewhere
    const uint64_t here = std::min<uint64_t>(left_, descriptor.bytes);
    switch (type_of(descriptor)) {
      case kSglBitBucket:
        if (to_guest_) discard(here);  // 4.4: on a source buffer it counts as empty
        return kSuccess;
      case kSglData:
        if (here == 0) return kSuccess;
        result.entries.push_back({.address = descriptor.address, .bytes = here});
        if (!result.discarded.empty()) result.discarded.push_back(false);
        left_ -= here;
        return kSuccess;
      default: return kSglTypeInvalid;
    }
  }
  void discard(uint64_t bytes) {
    if (bytes == 0) return;
    result.discarded.resize(result.entries.size(), false);
    result.entries.push_back({.address = 0, .bytes = bytes});
    result.discarded.push_back(true);
    left_ -= bytes;
  }

  DmaReader& memory_;
  const bool to_guest_;
  uint64_t left_ = 0;
};

}  // namespace

Outcome read_data_pointer(DmaReader& memory, const Command& command, uint64_t bytes, uint64_t page_bytes, bool sgl,
                          bool to_guest) {
  const unsigned psdt = command.flags >> kFlagsPsdt;
  if (psdt == 0) {
    PrpReader reader(memory, page_bytes);
    if (const Status status = reader.read(command.prp1, command.prp2, bytes); status != kSuccess)
      return std::unexpected(status);
    return DataPointer{.entries = std::move(reader.entries)};
  }
  if (!sgl || psdt == 3) return std::unexpected(kInvalidField);
  std::array<uint64_t, 2> words{command.prp1, command.prp2};
  SglReader reader(memory, to_guest);
  if (const Status status = reader.read(load<SglDescriptor>(words.data()), bytes); status != kSuccess)
    return std::unexpected(status);
  return std::move(reader.result);
}

}  // namespace kite::devices::nvme

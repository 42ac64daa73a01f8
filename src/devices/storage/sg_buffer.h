// SgBuffer: guest memory that a controller's scatter/gather list names, pinned for a transfer. The list is a copy: what
// the guest does to its own afterwards changes nothing.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <vector>

#include "block/io.h"
#include "memory/guest_memory.h"
#include "support/result.h"

namespace kite::devices {

struct SgEntry {
  Gpa address = 0;
  uint64_t bytes = 0;
};

// Move-only. Dropping it marks all of a kToGuest buffer as written.
class SgBuffer {
 public:
  SgBuffer() = default;
  // Pins every entry, in order. An error (an entry that is no RAM: a master abort) pins nothing.
  static Result<SgBuffer> pin(const GuestMemory& memory, std::span<const SgEntry> list, DmaDirection direction);

  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  // A view for the block layer; valid while this object stays and is not moved.
  [[nodiscard]] block::IoSlice slice() const { return block::IoSlice(std::span<const iovec>(parts_)); }
  // kToGuest: only the first `written` bytes were. Unpins: the slice is dead afterwards.
  void complete(uint64_t written);

 private:
  std::vector<DmaSpan> spans_;
  std::vector<iovec> parts_;
  uint64_t bytes_ = 0;
};

}  // namespace kite::devices

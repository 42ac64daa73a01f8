// Where a command's data lies: its PRPs or its SGL, read out of guest memory once and checked.
#pragma once

#include <cstdint>
#include <expected>
#include <span>
#include <vector>

#include "devices/nvme/nvme_regs.h"
#include "devices/storage/sg_buffer.h"

namespace kite::devices::nvme {

// Reads guest memory as the controller sees it (its own memory buffer included); false: nobody answers there.
class DmaReader {
 public:
  virtual ~DmaReader() = default;
  virtual bool dma_read(Gpa address, std::span<uint8_t> to) = 0;
};

struct DataPointer {
  std::vector<SgEntry> entries;      // in order; together as long as what was asked for
  std::vector<bool> discarded = {};  // one for each entry when some bytes of a read go nowhere, else empty
};

// `bytes` of data at the command's data pointer; `page_bytes` is CC.MPS. SGLs only where `sgl` allows them. `to_guest`:
// bit buckets take part.
std::expected<DataPointer, Status> read_data_pointer(DmaReader& memory, const Command& command, uint64_t bytes,
                                                     uint64_t page_bytes, bool sgl, bool to_guest);

}  // namespace kite::devices::nvme

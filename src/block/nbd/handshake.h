// What client and server agree on before the first request ([NBD] "Handshake").
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "block/nbd/stream.h"
#include "block/nbd/wire.h"
#include "support/result.h"

namespace kite::block::nbd {

// The export as the server describes it. Sizes in bytes.
struct ExportFacts {
  uint64_t bytes = 0;
  uint16_t flags = 0;  // ExportFlag
  uint32_t min_block = 1;
  uint32_t preferred_block = 4096;
  uint32_t max_block = kUsualMaxBlock;
  bool structured = false;                     // replies come in chunks
  std::optional<uint32_t> allocation_context;  // the id of base:allocation
};

// Any error of the server's, and any answer that is none, is a message for people; the stream is of no use then.
Task<Result<ExportFacts>> negotiate(Stream& stream, std::string export_name);

}  // namespace kite::block::nbd

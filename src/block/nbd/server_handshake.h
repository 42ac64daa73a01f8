// The server's side of the handshake ([NBD] "Fixed newstyle negotiation"): a client asks what there is, chooses an
// export and what it wants to be told of it.
#pragma once

#include <memory>
#include <vector>

#include "block/nbd/export.h"
#include "block/nbd/stream.h"

namespace kite::block::nbd {

using ExportList = std::vector<std::shared_ptr<Export>>;

// What client and server have agreed on.
struct Agreement {
  std::shared_ptr<Export> disk;
  bool structured = false;         // replies come in chunks
  std::vector<uint32_t> contexts;  // that the client has chosen, by id
};

// `exports` may change meanwhile. An error: the client is gone, or does not keep to the protocol.
Task<Result<Agreement>> receive_client(Stream& stream, const ExportList& exports);

}  // namespace kite::block::nbd

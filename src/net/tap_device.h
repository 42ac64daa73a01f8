// A tap interface of the host's, ready for a back end: made by this process, by a helper, or handed over.
#pragma once

#include <string>

#include "net/tap_options.h"
#include "support/fd.h"

namespace kite::net {

struct TapDevice {
  Fd fd;                    // does not block; takes and gives one frame a call
  std::string interface;    // its name
  size_t header_bytes = 0;  // what stands before a frame and says nothing
};

// Nothing of the caller's is taken when it fails. An interface that this process made goes with the descriptor.
Result<TapDevice> open_tap(const TapConfig& config);

}  // namespace kite::net

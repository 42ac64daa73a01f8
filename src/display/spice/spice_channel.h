// SpiceChannel: one connection of a SPICE client, which has several.
#pragma once

#include <cstdint>

#include "display/place.h"

namespace kite::display {

struct SpiceChannel {
  Place server, client;
  uint32_t connection = 0;  // the same for all channels of a client
  bool tls = false;
  int32_t type = 0, id = 0;  // [SPICE] 1 main, 2 display, 3 inputs, 4 cursor
};

}  // namespace kite::display

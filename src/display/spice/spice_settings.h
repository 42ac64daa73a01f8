// Between a SpiceConfig and the library.
#pragma once

#include "display/spice/spice_config.h"

struct RedsState;

namespace kite::display {

// Before the server is initialised.
Result<> apply_spice_settings(const SpiceConfig& config, RedsState* server);

}  // namespace kite::display

// Between a SpiceConfig and the library.
#pragma once

#include "display/spice/spice_config.h"

struct RedsState;

namespace kite::display {

// Before the server is initialised.
Result<> apply_spice_settings(const SpiceConfig& config, RedsState* server);
// The same; `port` is one that the library can listen on, which it wants to before it does TLS.
Result<> apply_spice_tls(const SpiceConfig& config, RedsState* server, int port);

}  // namespace kite::display

// What -netdev socket, stream and dgram take.
#pragma once

#include <variant>

#include "net/datagram_backend.h"
#include "net/stream_backend.h"

namespace kite::net {

// All `settings` are without type and id.
using SocketConfig = std::variant<StreamConfig, DatagramConfig>;
Result<SocketConfig> parse_socket_options(const Settings& settings);
Result<StreamConfig> parse_stream_options(const Settings& settings);
Result<DatagramConfig> parse_dgram_options(const Settings& settings);

}  // namespace kite::net

// Where an NBD server listens, as options and names say it, and connecting to it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "async/executor.h"
#include "async/task.h"
#include "block/options.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite::block::nbd {

struct Address {
  std::string path;  // a unix socket's; "" for TCP
  std::string host, port;
};
struct Target {
  Address address;
  std::string export_name;
};

// "nbd:HOST:PORT[:exportname=NAME]", "nbd:unix:PATH[:exportname=NAME]", "nbd[+tcp]://HOST[:PORT]/[NAME]",
// "nbd+unix:///[NAME]?socket=PATH".
Result<Target> parse_target(std::string_view name);
// Takes "server.*", or "host", "port" and "path", out of the options.
Result<Address> take_address(BlockOptions& options);
// The name as a URI.
std::string target_uri(const Target& target);
std::string address_text(const Address& address);

// A connected, non-blocking stream socket. Gives up at `deadline_ns` (monotonic_ns()).
Task<Result<Fd>> connect_to(Executor& executor, Address address, int64_t deadline_ns);

}  // namespace kite::block::nbd

// Programs of the host's that set networks up: scripts, and the helper that makes a tap interface on a bridge.
#pragma once

#include <string>
#include <vector>

#include "support/fd.h"
#include "support/result.h"

namespace kite::net {

// The number that the helper finds its socket at.
inline constexpr int kHelperSocket = 3;

// Runs a program until it ends, for a minute at most; the calling thread waits. It has no input, and `given`, if valid,
// as descriptor kHelperSocket. What it said is the answer when it ended well, and part of the error when not.
Result<std::string> run_program(const std::vector<std::string>& arguments, Fd given = {});

// Runs a bridge helper (as QEMU's, PATH --use-vnet --fd=N --br=NAME; one with blanks in it goes to a shell) and takes
// the descriptor that it sends.
Result<Fd> run_bridge_helper(const std::string& helper, const std::string& bridge);

}  // namespace kite::net

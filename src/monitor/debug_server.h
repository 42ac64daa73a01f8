// DebugServer: what the monitors know of the debugger's stub, which is built upon them (gdb/). Main executor's thread.
#pragma once

#include <string_view>

#include "support/result.h"

namespace kite::monitor {

class DebugServer {
 public:
  virtual ~DebugServer() = default;
  // Waits for a debugger on this character device, as -gdb has them, instead of where it waited; "none": nowhere.
  virtual Result<> serve(std::string_view device) = 0;
};

}  // namespace kite::monitor

// What -accel jit may be told.
#pragma once

#include <cstdint>

namespace kite {

struct JitOptions {
  bool translate = true;    // warm code is translated to host code; else everything is interpreted
  uint64_t code_mib = 128;  // of translated code a vCPU, at most: 1 to 1024
  uint32_t threshold = 16;  // entries after which a block is warm
  bool profile = false;     // what is spent in translated code is counted, which costs some time itself
  bool perf_map = false;    // translated code is named in /tmp/perf-PID.map
};

}  // namespace kite

// PerfMap: /tmp/perf-PID.map, where `perf report` looks up the names of code that no file holds.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "support/fd.h"
#include "support/result.h"

namespace kite::jit {

// Thread-safe: the vCPUs of a process share one.
class PerfMap {
 public:
  // Replaces what an earlier process of that number has left behind.
  static Result<std::shared_ptr<PerfMap>> create() { return create(default_path()); }
  static Result<std::shared_ptr<PerfMap>> create(const std::string& path);
  static std::string default_path();

  explicit PerfMap(Fd file) : file_(std::move(file)) {}
  // `bytes` of code at `start` are called `name`. The last name of a place counts.
  void add(const void* start, size_t bytes, std::string_view name);

 private:
  Fd file_;  // appended to, a line a write: whole lines are there whenever the process ends
};

}  // namespace kite::jit

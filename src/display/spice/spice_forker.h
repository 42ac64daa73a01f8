// SpiceForker: makes processes of the SPICE server for one that may make none any more (-sandbox spawn=deny). It is a
// process of its own, from before then, which does nothing else and ends with this one.
#pragma once

#include <sys/types.h>

#include "support/fd.h"
#include "support/result.h"

namespace kite::display {

class SpiceForker {
 public:
  SpiceForker() = default;
  // While the process has no other thread.
  static Result<SpiceForker> start();
  SpiceForker(SpiceForker&& other) noexcept;
  SpiceForker& operator=(SpiceForker&& other) noexcept;
  ~SpiceForker();

  [[nodiscard]] bool started() const { return pid_ > 0; }
  // As spawn_spice_process(): the new process is a child of this one, not of the forker.
  Result<pid_t> spawn(const Fd& link);

 private:
  SpiceForker(Fd channel, pid_t pid) : channel_(std::move(channel)), pid_(pid) {}
  Fd channel_;
  pid_t pid_ = -1;
};

}  // namespace kite::display

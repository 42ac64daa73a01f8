// The process that runs libspice-server. Clients reach the library here, and only here: it ends the process it is in
// when one of them sends it what it does not expect, and then that is not the machine.
#pragma once

#include <sys/types.h>

#include <functional>

#include "support/fd.h"
#include "support/result.h"

namespace kite::display {

// All of the process: serves the other end of `link` (SpiceLink::make_sockets()) until that is closed.
int run_spice_process(Fd link);

// The first argument of the program when it is to be that process, on this descriptor.
inline constexpr char kSpiceProcessArgument[] = "spice-server";
inline constexpr int kSpiceProcessLink = 3;

// One such process, from the side that has made it.
class SpiceProcess {
 public:
  // Makes a process with this end of the link: spawn_spice_process(), or another way in tests.
  using Spawn = std::function<Result<pid_t>(Fd link)>;

  SpiceProcess() = default;
  explicit SpiceProcess(pid_t pid) : pid_(pid) {}
  SpiceProcess(const SpiceProcess&) = delete;
  SpiceProcess& operator=(const SpiceProcess&) = delete;
  SpiceProcess(SpiceProcess&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  SpiceProcess& operator=(SpiceProcess&& other) noexcept {
    std::swap(pid_, other.pid_);
    return *this;
  }
  // Its link is closed already: it gets kPatienceMs to end.
  ~SpiceProcess();
  // At once. Answers what has ended it, as "signal 6".
  std::string end();

 private:
  static constexpr int kPatienceMs = 1000;
  pid_t pid_ = -1;
};

// This program again, as that process.
Result<pid_t> spawn_spice_process(Fd link);

}  // namespace kite::display

// -sandbox: system calls that the process gives up before it runs anything of a guest's. What it may not do any more
// fails with EPERM. [seccomp(2)]
#pragma once

#include "support/result.h"

namespace kite::main {

struct SandboxPolicy {
  bool obsolete = true;             // deny calls that nobody needs, or that administer the host
  bool elevate_privileges = false;  // deny changes of user and group
  bool spawn = false;               // deny new processes and programs; threads are no processes
  bool resource_control = false;    // deny changes of priorities and affinity
};

// For this thread and those that it starts from now on.
Result<> enter_sandbox(const SandboxPolicy& policy);

}  // namespace kite::main

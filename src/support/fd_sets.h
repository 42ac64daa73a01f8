// Files that somebody else has opened: -add-fd puts descriptors into sets, and "/dev/fdset/N" stands for the one of set
// N that can be used as it is asked for. A process whose user may not open a file gets it this way.
#pragma once

#include <cstdint>
#include <string>

#include "support/fd.h"
#include "support/result.h"

namespace kite {

// Takes the descriptor. Before threads exist that open files.
Result<> add_to_fd_set(uint64_t set, Fd fd);

// open() with O_CLOEXEC, or a duplicate of a descriptor of a set; -1 and errno as open() has them.
int open_or_take(const std::string& path, int flags, unsigned mode = 0);

}  // namespace kite

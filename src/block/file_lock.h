// Locks on image files that programs of several kinds understand: byte ranges far into nothing of the file, one byte a
// permission. Byte 100+n is read-locked by who uses permission n, byte 200+n by who does not share it; whoever wants
// one looks whether the other's byte is taken. They are open-file-description locks, so that forks and other
// descriptors of the process do not drop them.
#pragma once

#include <cstdint>
#include <string>

#include "support/result.h"

namespace kite::block {

class FileLock {
 public:
  // Moves from what is held to what is wanted: adds, looks for conflicts, then drops. On a conflict nothing changes.
  // Bits are Permissions::Bit.
  Result<> change(int fd, const std::string& filename, uint32_t need, uint32_t shared);

 private:
  uint32_t need_ = 0;
  uint32_t unshared_ = 0;
  bool unsupported_ = false;  // the file system has no locks: nothing is excluded
};

}  // namespace kite::block

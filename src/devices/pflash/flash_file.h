// FlashFile: the host file behind a flash chip. Written through: what write() has answered for survives the process.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "support/fd.h"
#include "support/result.h"

namespace kite::devices {

class FlashFile {
 public:
  // Opens a regular file whose size is a multiple of `granularity` and at most `most` bytes, and claims it.
  static Result<std::unique_ptr<FlashFile>> open(const std::string& path, bool read_only, uint64_t granularity,
                                                 uint64_t most);
  // As open(), for a file that is another process's until claim().
  static Result<std::unique_ptr<FlashFile>> open_unclaimed(const std::string& path, bool read_only,
                                                           uint64_t granularity, uint64_t most);
  FlashFile(const FlashFile&) = delete;
  FlashFile& operator=(const FlashFile&) = delete;

  // Locks a writable file against all other processes, a read-only one against those that write. Fails while one of
  // them has it.
  Result<> claim();
  void release();  // synced, and for others to claim

  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] bool read_only() const { return read_only_; }
  [[nodiscard]] const std::string& path() const { return path_; }

  Result<> read(uint64_t offset, std::span<uint8_t> to) const;
  Result<> write(uint64_t offset, std::span<const uint8_t> from);  // within size()
  void sync();  // asks the host to bring what was written to the disk; errors are logged

 private:
  FlashFile(std::string path, Fd fd, uint64_t size, bool read_only)
      : path_(std::move(path)), fd_(std::move(fd)), size_(size), read_only_(read_only) {}

  std::string path_;
  Fd fd_;
  uint64_t size_;
  bool read_only_;
  bool dirty_ = false;
};

}  // namespace kite::devices

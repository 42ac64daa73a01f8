#include "machine/memory_backends.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "support/bits.h"
#include "support/fd.h"
#include "support/suggest.h"

namespace kite::machine {

namespace {

// A new file without a name in the directory, or the file itself, at least `bytes` long.
Result<Fd> open_memory_file(const MemoryBackend& backend, uint64_t bytes) {
  const auto failed = [&](std::string_view what) {
    return fail("-object memory-backend-file,id={}: cannot {} '{}': {}", backend.id, what, backend.path,
                errno_text(errno));
  };
  struct stat info{};
  Fd file;
  if (::stat(backend.path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    std::string name = backend.path + "/kite-memory-XXXXXX";
    file.reset(::mkostemp(name.data(), O_CLOEXEC));
    if (!file.valid()) return failed("make a file in");
    ::unlink(name.c_str());
  } else {
    constexpr unsigned kOwner = 0600;
    file.reset(::open(backend.path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kOwner));
    if (!file.valid()) return failed("open");
  }
  if (::fstat(file.get(), &info) != 0) return failed("look at");
  if (S_ISREG(info.st_mode) && static_cast<uint64_t>(info.st_size) < bytes &&
      ::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0)
    return failed("make room in");
  return file;
}

}  // namespace

Result<const MemoryBackend*> find_memory_backend(const MachineConfig& config, std::string_view who,
                                                 std::string_view id) {
  std::vector<std::string_view> names;
  for (const MemoryBackend& backend : config.memory_backends) {
    if (backend.id == id) return &backend;
    names.push_back(backend.id);
  }
  return fail("{}: there is no -object memory-backend-ram,id={}{}", who, id, suggestion(id, names));
}

Result<std::shared_ptr<RamBlock>> make_memory(const MemoryBackend& backend) {
  constexpr uint64_t kPage = 4096;
  const uint64_t bytes = align_up(backend.bytes, kPage);
  Fd file;
  if (!backend.path.empty()) {
    KITE_ASSIGN(file, open_memory_file(backend, bytes));
  }
  KITE_ASSIGN(auto block, RamBlock::create(backend.id, bytes));
  if (file.valid()) KITE_TRY(block->map_file(file.get(), backend.share));
  if (backend.preallocate && ::madvise(block->host(), bytes, MADV_POPULATE_WRITE) != 0)
    return fail("-object {}: the host has no {} MiB for it: {}", backend.id, bytes >> 20, errno_text(errno));
  return block;
}

}  // namespace kite::machine

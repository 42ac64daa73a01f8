#include "accel/jit/perf_map.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace kite::jit {

std::string PerfMap::default_path() { return fmt::format("/tmp/perf-{}.map", ::getpid()); }

Result<std::shared_ptr<PerfMap>> PerfMap::create(const std::string& path) {
  // Made anew, never opened: whatever somebody else has put under that name is not written through.
  ::unlink(path.c_str());
  Fd file(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file.valid())
    return fail("cannot create {}, which perf would read: {}; leave out perf-map=on", path, errno_text(errno));
  return std::make_shared<PerfMap>(std::move(file));
}

void PerfMap::add(const void* start, size_t bytes, std::string_view name) {
  const std::string line = fmt::format("{:x} {:x} {}\n", reinterpret_cast<uintptr_t>(start), bytes, name);
  // A map that cannot be written is worth less; the guest goes on.
  if (::write(file_.get(), line.data(), line.size()) < 0) return;
}

}  // namespace kite::jit

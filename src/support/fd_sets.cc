#include "support/fd_sets.h"

#include <fcntl.h>

#include <cerrno>
#include <charconv>
#include <map>
#include <string_view>
#include <vector>

namespace kite {

namespace {

std::map<uint64_t, std::vector<Fd>>& sets() {
  static std::map<uint64_t, std::vector<Fd>> all;
  return all;
}

int take(std::string_view number, int flags) {
  uint64_t set = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), set);
  const auto found = sets().find(set);
  if (error != std::errc{} || end != number.data() + number.size() || found == sets().end()) {
    errno = ENOENT;
    return -1;
  }
  for (const Fd& fd : found->second) {
    const int mode = ::fcntl(fd.get(), F_GETFL) & O_ACCMODE;
    if (mode == (flags & O_ACCMODE)) return ::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0);
  }
  errno = EACCES;
  return -1;
}

}  // namespace

Result<> add_to_fd_set(uint64_t set, Fd fd) {
  if (::fcntl(fd.get(), F_SETFD, FD_CLOEXEC) < 0) return fail("descriptor {}: {}", fd.get(), errno_text(errno));
  sets()[set].push_back(std::move(fd));
  return {};
}

int open_or_take(const std::string& path, int flags, unsigned mode) {
  constexpr std::string_view kSets = "/dev/fdset/";
  if (path.starts_with(kSets)) return take(std::string_view(path).substr(kSets.size()), flags);
  return ::open(path.c_str(), flags | O_CLOEXEC, mode);
}

}  // namespace kite

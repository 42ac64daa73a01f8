// PassedFds: descriptors that a monitor's client has sent along (SCM_RIGHTS), by the names that it gave them: getfd,
// closefd, and whoever takes one by name.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "support/fd.h"

namespace kite::monitor {

class PassedFds {
 public:
  static constexpr size_t kMostWaiting = 16;  // that came and were not named; older ones are closed

  void arrived(std::vector<Fd> fds) {
    for (Fd& fd : fds) waiting_.push_back(std::move(fd));
    while (waiting_.size() > kMostWaiting) waiting_.pop_front();
  }
  // Names the oldest that waits; false when none does. One of the same name is closed.
  bool name(std::string name) {
    if (waiting_.empty()) return false;
    named_.insert_or_assign(std::move(name), std::move(waiting_.front()));
    waiting_.pop_front();
    return true;
  }
  // Invalid when there is none of that name.
  Fd take(std::string_view name) {
    const auto found = named_.find(name);
    if (found == named_.end()) return {};
    Fd fd = std::move(found->second);
    named_.erase(found);
    return fd;
  }
  void clear() {
    waiting_.clear();
    named_.clear();
  }

 private:
  std::deque<Fd> waiting_;
  std::map<std::string, Fd, std::less<>> named_;
};

}  // namespace kite::monitor

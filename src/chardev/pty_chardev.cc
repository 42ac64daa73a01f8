#include "chardev/pty_chardev.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <termios.h>

#include <array>
#include <cerrno>

namespace kite {
namespace {

// Opens and closes the other side once: its modes become raw, and from now on the master reports that nobody is there.
bool prepare_other_side(const char* path) {
  const Fd other(::open(path, O_RDWR | O_NOCTTY | O_CLOEXEC));
  termios modes{};
  if (!other.valid() || ::tcgetattr(other.get(), &modes) != 0) return false;
  ::cfmakeraw(&modes);
  return ::tcsetattr(other.get(), TCSANOW, &modes) == 0;
}

}  // namespace

PtyChardev::PtyChardev(std::string id, Executor& executor, Fd log, Clock& clock, Fd master, std::string path)
    : StreamChardev(std::move(id), executor, std::move(log)),
      master_(std::move(master)),
      path_(std::move(path)),
      look_(clock, [this] { look_for_user(); }) {}

Result<std::unique_ptr<PtyChardev>> PtyChardev::create(std::string id, Executor& executor, Fd log, Clock& clock) {
  Fd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  std::array<char, 128> path{};
  if (!master.valid() || ::grantpt(master.get()) != 0 || ::unlockpt(master.get()) != 0 ||
      ::ptsname_r(master.get(), path.data(), path.size()) != 0 || !prepare_other_side(path.data()) ||
      ::fcntl(master.get(), F_SETFL, O_RDWR | O_NONBLOCK) != 0) {
    return fail("cannot make a pseudo-terminal: {}", errno_text(errno));
  }
  std::unique_ptr<PtyChardev> pty(
      new PtyChardev(std::move(id), executor, std::move(log), clock, std::move(master), path.data()));
  pty->look_for_user();
  return pty;
}

PtyChardev::~PtyChardev() { shut_down(); }

bool PtyChardev::has_user() const {
  pollfd state{.fd = master_.get(), .events = 0, .revents = 0};
  ::poll(&state, 1, 0);
  return (state.revents & POLLHUP) == 0;
}

void PtyChardev::look_for_user() {
  if (has_user()) {
    connect(master_.get(), master_.get(), Output::kNonblocking);
  } else {
    look_.arm_at(look_.clock().now() + kLookAgainNs);
  }
}

void PtyChardev::lost_user() {
  disconnect();
  ::tcflush(master_.get(), TCIOFLUSH);  // what the last user did not read is not for the next one
  look_.arm_at(look_.clock().now() + kLookAgainNs);
}

void PtyChardev::input_ended(int) { lost_user(); }
void PtyChardev::output_failed(int) { lost_user(); }
uint32_t PtyChardev::extra_input_events() const { return EPOLLHUP; }
// By the time that this is looked at there may be another user, who has typed something.
void PtyChardev::extra_input_event() {
  if (!has_user()) lost_user();
}

}  // namespace kite

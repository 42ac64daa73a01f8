#include "tls/tunnel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace kite::tls {

namespace {

constexpr int kTurns = 16;  // of a pass; then others have theirs

}  // namespace

Result<std::unique_ptr<Tunnel>> Tunnel::create(Wiring wiring, Fd socket, std::shared_ptr<const Credentials> credentials,
                                               const std::string& host) {
  KITE_ASSIGN(Session session, Session::start(std::move(credentials), socket.get(), host));
  return std::unique_ptr<Tunnel>(new Tunnel(std::move(wiring), std::move(socket), std::move(session)));
}

Tunnel::Tunnel(Wiring wiring, Fd socket, Session session)
    : wiring_(std::move(wiring)),
      socket_(std::move(socket)),
      session_(std::move(session)),
      deadline_(wiring_.clock, [this] {
        end(phase_ == Phase::kShaking ? "the handshake takes too long" : "the peer does not take what it was sent");
      }) {
  ::fcntl(socket_.get(), F_SETFL, ::fcntl(socket_.get(), F_GETFL) | O_NONBLOCK);
  deadline_.arm_at(wiring_.clock.now() + kHandshakeNs);
  // A client speaks first: it is ready when there is room to write.
  wiring_.executor.watch(socket_.get(), EPOLLIN | EPOLLOUT, [this](uint32_t) { go_on(); });
}

Tunnel::~Tunnel() {
  if (phase_ == Phase::kCarrying && outgoing_.empty()) (void)session_.say_goodbye();
  close();
}

Result<std::array<Fd, 2>> Tunnel::make_ends() {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
    return fail("TLS: no socket pair: {}", errno_text(errno));
  return std::array{Fd(ends[0]), Fd(ends[1])};
}

void Tunnel::go_on() {
  if (phase_ == Phase::kShaking)
    shake_hands();
  else if (phase_ == Phase::kCarrying)
    pump();
}

void Tunnel::shake_hands() {
  const Result<bool> done = session_.shake_hands();
  if (!done) return end(done.error().message);
  if (!*done) return update_interest();
  deadline_.disarm();
  phase_ = Phase::kShaken;
  update_interest();
  const auto tell = std::move(wiring_.ready);
  tell(session_.peer_name());
}

void Tunnel::carry(Fd plain) {
  plain_ = std::move(plain);
  phase_ = Phase::kCarrying;
  wiring_.executor.watch(plain_.get(), 0, [this](uint32_t events) { plain_ready(events); });
  pump();
}

void Tunnel::plain_ready(uint32_t events) {
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0 && !plain_closes_) {
    plain_closes_ = true;
    deadline_.arm_at(wiring_.clock.now() + kLeaveNs);
  }
  pump();
}

// --- bytes

void Tunnel::pump() {
  bool moved = true;
  for (int turn = 0; moved && (turn < kTurns || session_.has_unread()); ++turn) {
    const Result<bool> came = read_peer();
    if (!came) return end(came.error().message);
    moved = write_plain() || *came;
    moved = read_plain() || moved;
    const Result<bool> went = write_peer();
    if (!went) return end(went.error().message);
    moved = *went || moved;
  }
  if (!finish()) update_interest();
}

// These answer whether there is something new to do.
Result<bool> Tunnel::read_peer() {
  if (peer_done_ || plain_done_ || !incoming_.empty()) return false;
  KITE_ASSIGN(const std::optional<size_t> got, session_.read(incoming_.bytes));
  reading_wants_write_ = !got && session_.wants_write();
  if (!got) return false;
  incoming_.begin = 0;
  incoming_.end = *got;
  peer_done_ = *got == 0;
  return true;
}

bool Tunnel::write_plain() {
  bool moved = false;
  while (!incoming_.empty()) {
    const std::span<uint8_t> rest = incoming_.waiting();
    const ssize_t wrote = ::send(plain_.get(), rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EAGAIN) return moved;
    // Nobody is there any more to read it.
    incoming_.begin = wrote < 0 ? incoming_.end : incoming_.begin + static_cast<size_t>(wrote);
    if (wrote < 0) peer_done_ = plain_told_ = true;
    moved = true;
  }
  if (peer_done_ && !plain_told_) {
    plain_told_ = true;
    ::shutdown(plain_.get(), SHUT_WR);
  }
  return moved;
}

bool Tunnel::read_plain() {
  if (plain_done_ || !outgoing_.empty()) return false;
  ssize_t got = 0;
  do got = ::recv(plain_.get(), outgoing_.bytes.data(), outgoing_.bytes.size(), MSG_DONTWAIT);
  while (got < 0 && errno == EINTR);
  if (got < 0 && errno == EAGAIN) return false;
  outgoing_.begin = 0;
  outgoing_.end = static_cast<size_t>(std::max<ssize_t>(got, 0));
  plain_done_ = got <= 0;
  return true;
}

Result<bool> Tunnel::write_peer() {
  bool moved = false;
  while (!outgoing_.empty()) {
    KITE_ASSIGN(const std::optional<size_t> took, session_.write(outgoing_.waiting()));
    if (!took) return moved;
    outgoing_.begin += *took;
    moved = true;
  }
  return moved;
}

// The plain end is closed and all that it said is out: a goodbye, and it is over.
bool Tunnel::finish() {
  if (!plain_done_ || !outgoing_.empty()) return false;
  const Result<bool> said = session_.say_goodbye();
  if (said && !*said) return false;
  end("");
  return true;
}

// --- waiting

uint32_t Tunnel::socket_events() const {
  switch (phase_) {
    case Phase::kShaking: return session_.wants_write() ? EPOLLOUT : EPOLLIN;
    case Phase::kCarrying: break;
    default: return 0;
  }
  uint32_t events = !peer_done_ && !plain_done_ && incoming_.empty() ? EPOLLIN : 0u;
  if (!outgoing_.empty() || plain_done_ || reading_wants_write_) events |= EPOLLOUT;
  return events;
}

void Tunnel::update_interest() {
  wiring_.executor.modify(socket_.get(), socket_events());
  if (!plain_.valid()) return;
  uint32_t events = plain_closes_ ? 0u : static_cast<uint32_t>(EPOLLRDHUP);
  if (!plain_done_ && outgoing_.empty()) events |= EPOLLIN;
  if (!incoming_.empty()) events |= EPOLLOUT;
  wiring_.executor.modify(plain_.get(), events);
}

short Tunnel::awaited() const {
  const uint32_t events = socket_events();
  return static_cast<short>(((events & EPOLLIN) != 0 ? POLLIN : 0) | ((events & EPOLLOUT) != 0 ? POLLOUT : 0));
}

bool Tunnel::has_unsent() const {
  int unread = 0;
  return !outgoing_.empty() || (plain_.valid() && ::ioctl(plain_.get(), FIONREAD, &unread) == 0 && unread > 0);
}

// --- the end

void Tunnel::close() {
  phase_ = Phase::kOver;
  deadline_.disarm();
  for (Fd* const fd : {&socket_, &plain_}) {
    if (fd->valid()) wiring_.executor.unwatch(fd->get());
    fd->reset();
  }
}

void Tunnel::end(const std::string& why) {
  close();
  const auto tell = std::move(wiring_.ended);
  tell(*this, std::string(why));
}

}  // namespace kite::tls

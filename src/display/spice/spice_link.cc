#include "display/spice/spice_link.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

namespace kite::display {

namespace {

constexpr int kMostAtOnce = 64;  // packets before the loop has its turn
constexpr uint32_t kEnd = EPOLLHUP | EPOLLERR;

// Room for one descriptor beside a message.
union Control {
  cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int))];
};

}  // namespace

std::string SpicePacket::get_text() {
  const auto length = get<uint32_t>();
  good_ = good_ && bytes_.size() - at_ >= length;
  if (!good_) return {};
  std::string text(bytes_.begin() + static_cast<ptrdiff_t>(at_), bytes_.begin() + static_cast<ptrdiff_t>(at_ + length));
  at_ += length;
  return text;
}

Result<std::array<Fd, 2>> SpiceLink::make_sockets() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
    return fail("cannot make a pair of sockets: {}", errno_text(errno));
  return std::array<Fd, 2>{Fd(ends[0]), Fd(ends[1])};
}

SpiceLink::SpiceLink(Executor& executor, Fd socket, std::function<void(SpicePacket)> received,
                     std::function<void()> closed)
    : executor_(executor), socket_(std::move(socket)), received_(std::move(received)), closed_(std::move(closed)) {
  executor_.watch(socket_.get(), EPOLLIN, [this](uint32_t events) { ready(events); });
}

SpiceLink::~SpiceLink() {
  if (!ended_) executor_.unwatch(socket_.get());
}

void SpiceLink::end() {
  if (ended_) return;
  ended_ = true;
  executor_.unwatch(socket_.get());
  closed_();
}

void SpiceLink::ready(uint32_t events) {
  while (!ended_ && !waiting_.empty() && send_now(waiting_.front())) waiting_.pop_front();
  if (!ended_ && waiting_.empty()) executor_.modify(socket_.get(), EPOLLIN);
  int turns = 0;
  while (!ended_ && turns < kMostAtOnce && receive()) ++turns;
  if (turns == 0 && (events & kEnd) != 0) end();
}

bool SpiceLink::receive() {
  uint8_t kind = 0;
  iovec parts[] = {{&kind, 1}, {received_bytes_.data(), received_bytes_.size()}};
  Control control{};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = std::size(parts);
  message.msg_control = &control;
  message.msg_controllen = sizeof control;
  const ssize_t count = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  Fd fd;
  if (const cmsghdr* const header = count > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
      header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    int number = -1;
    std::memcpy(&number, CMSG_DATA(header), sizeof number);
    fd.reset(number);
  }
  if (count <= 0 || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
      kind > static_cast<uint8_t>(SpicePacketKind::kLast)) {
    end();
    return false;
  }
  std::vector<uint8_t> bytes(received_bytes_.begin(), received_bytes_.begin() + (count - 1));
  received_(SpicePacket(static_cast<SpicePacketKind>(kind), std::move(bytes), std::move(fd)));
  return true;
}

void SpiceLink::send(SpicePacket packet) {
  if (ended_ || (waiting_.empty() && send_now(packet)) || ended_) return;
  if (waiting_.empty()) executor_.modify(socket_.get(), EPOLLIN | EPOLLOUT);
  waiting_.push_back(std::move(packet));
}

// False when the socket has no room. A closed one shows when it is read.
bool SpiceLink::send_now(SpicePacket& packet) {
  auto kind = static_cast<uint8_t>(packet.kind());
  iovec parts[] = {{&kind, 1}, {const_cast<uint8_t*>(packet.bytes().data()), packet.bytes().size()}};
  Control control{};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = std::size(parts);
  if (packet.fd().valid()) {
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int number = packet.fd().get();
    std::memcpy(CMSG_DATA(header), &number, sizeof number);
  }
  return ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno != EAGAIN;
}

}  // namespace kite::display

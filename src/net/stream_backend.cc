#include "net/stream_backend.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>

namespace kite::net {

namespace {

// So small that the frames of one read have room in the back end, whatever their size.
constexpr size_t kChunkBytes = 16384;
static_assert(kChunkBytes / (FrameCutter::kLengthBytes + kHeaderBytes) < NetBackend::kMostWaiting);

}  // namespace

StreamBackend::StreamBackend(std::string id, Executor& executor, Clock& clock, const StreamConfig& config,
                             Changed changed)
    : NetBackend(std::move(id), config.type, executor),
      changed_(std::move(changed)),
      chunk_(kChunkBytes),
      peers_(config.peers, {.executor = executor,
                            .clock = clock,
                            .who = fmt::format("-netdev {}", this->id()),
                            .arrived = [this](Fd peer) { take_peer(std::move(peer)); },
                            .gave_up =
                                [this](int error) {
                                  log::warn("-netdev {}: cannot connect to '{}': {}; its cable goes nowhere",
                                            this->id(), peers_.where(), errno_text(error));
                                }}) {}

Result<std::unique_ptr<StreamBackend>> StreamBackend::create(std::string id, Executor& executor, Clock& clock,
                                                             const StreamConfig& config, Changed changed) {
  std::unique_ptr<StreamBackend> made(new StreamBackend(std::move(id), executor, clock, config, std::move(changed)));
  KITE_TRY(made->peers_.start(SocketPeers::Connect::kGoOn));
  return made;
}

StreamBackend::~StreamBackend() {
  if (peer_.valid()) executor().unwatch(peer_.get());
}

std::string StreamBackend::info() const {
  const SocketPeers::Config& config = peers_.config();
  std::string text = fmt::format("server={},addr={}", config.server ? "on" : "off", peers_.where());
  if (!connected()) return text + ",disconnected";
  const std::string peer = peer_text(peer_.get());
  return peer.empty() ? text + ",connected" : fmt::format("{},peer={}", text, peer);
}

SocketAddress StreamBackend::address() const {
  const SocketAddress& given = peers_.config().address;
  if (given_fd() >= 0 || given.is_unix() || !peers_.config().server) return given;
  return parse_host_port(peer_text(peer_.get())).value_or(given);
}

// --- peers

void StreamBackend::take_peer(Fd peer) {
  peer_ = std::move(peer);
  const int on = 1;
  ::setsockopt(peer_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // unix sockets refuse it
  executor().watch(peer_.get(), 0, [this](uint32_t events) { ready(events); });
  update_interest();
  changed_(*this);
}

void StreamBackend::lose_peer(std::string_view why) {
  if (told_.pass()) log::info("-netdev {}: {}", id(), why);
  executor().unwatch(peer_.get());
  peer_.reset();
  cutter_.clear();
  unsent_.clear();
  changed_(*this);
  peers_.left();
  if (std::exchange(full_, false) && client() != nullptr) client()->writable();
}

void StreamBackend::update_interest() {
  if (!peer_.valid()) return;
  const bool writes = full_ || !unsent_.empty();
  executor().modify(peer_.get(), (backed_up() ? 0 : uint32_t{EPOLLIN}) | (writes ? uint32_t{EPOLLOUT} : 0));
}

// --- frames

void StreamBackend::ready(uint32_t events) {
  if ((events & (EPOLLOUT | EPOLLERR)) != 0) send_rest();
  if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) read_frames();
  update_interest();
}

void StreamBackend::read_frames() {
  constexpr int kChunksATime = 16;  // others have their turn
  for (int count = 0; count < kChunksATime && !backed_up(); ++count) {
    const ssize_t got = ::recv(peer_.get(), chunk_.data(), chunk_.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got == 0) return lose_peer("the other end has hung up");
    if (got < 0) return lose_peer(fmt::format("the other end is gone: {}", errno_text(errno)));
    const bool sound = cutter_.cut(std::span(chunk_).first(static_cast<size_t>(got)), [this](Frame frame) {
      if (frame.size() >= kHeaderBytes) deliver(frame);
    });
    if (!sound) return lose_peer("the other end sent a length that no frame has; it is hung up on");
  }
}

// A socket that does not take it any more is noticed when it is read.
Delivery StreamBackend::do_send(Frame frame) {
  if (!peer_.valid()) return Delivery::kDropped;
  ssize_t sent = -1;
  std::array<uint8_t, FrameCutter::kLengthBytes> length;
  store_be32(length.data(), static_cast<uint32_t>(frame.size()));
  if (unsent_.empty()) {
    std::array parts{iovec{.iov_base = length.data(), .iov_len = length.size()},
                     iovec{.iov_base = const_cast<uint8_t*>(frame.data()), .iov_len = frame.size()}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    do sent = ::sendmsg(peer_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN && errno != ENOBUFS) return Delivery::kDropped;
  }
  if (sent < 0) {
    full_ = true;
    update_interest();
    return Delivery::kFull;
  }
  // The other end has the beginning of it, so it gets the rest.
  const auto count = static_cast<size_t>(sent);
  if (count < length.size()) unsent_.assign(length.begin() + sent, length.end());
  const size_t behind = count < length.size() ? 0 : count - length.size();
  unsent_.insert(unsent_.end(), frame.begin() + static_cast<ptrdiff_t>(behind), frame.end());
  if (!unsent_.empty()) update_interest();
  return Delivery::kTaken;
}

void StreamBackend::send_rest() {
  while (!unsent_.empty()) {
    const ssize_t sent = ::send(peer_.get(), unsent_.data(), unsent_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS)) return;
    if (sent < 0) unsent_.clear();
    if (sent >= 0) unsent_.erase(unsent_.begin(), unsent_.begin() + sent);
  }
  if (std::exchange(full_, false) && client() != nullptr) client()->writable();
}

}  // namespace kite::net

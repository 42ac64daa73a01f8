#include "block/nbd/stream.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace kite::block::nbd {
namespace {

constexpr size_t kBufferBytes = 16384;
constexpr size_t kMaxParts = 64;  // of one system call

// The first parts of a slice; answers how many.
size_t gather(const IoSlice& slice, std::array<iovec, kMaxParts>& parts) {
  size_t count = 0;
  slice.for_parts([&](std::span<uint8_t> part) {
    parts[count++] = {part.data(), part.size()};
    return count < kMaxParts;
  });
  return count;
}

}  // namespace

Stream::Stream(Executor& executor, Fd socket) : executor_(executor), socket_(std::move(socket)), buffer_(kBufferBytes) {
  const int flags = ::fcntl(socket_.get(), F_GETFL);
  ::fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK);
  // Edges are enough: who waits has seen EAGAIN before, and tries again after each.
  executor_.watch(socket_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | static_cast<uint32_t>(EPOLLET),
                  [this](uint32_t events) { ready(events); });
}

Stream::~Stream() { executor_.unwatch(socket_.get()); }

void Stream::ready(uint32_t events) {
  constexpr uint32_t kEnd = EPOLLHUP | EPOLLERR | EPOLLRDHUP;
  // The stream may go away with what is resumed.
  const std::coroutine_handle<> reader = (events & (EPOLLIN | kEnd)) != 0 ? std::exchange(reader_, nullptr) : nullptr;
  const std::coroutine_handle<> writer = (events & (EPOLLOUT | kEnd)) != 0 ? std::exchange(writer_, nullptr) : nullptr;
  if (reader) reader.resume();
  if (writer) writer.resume();
}

void Stream::abort() { ::shutdown(socket_.get(), SHUT_RDWR); }

// Bytes, 0 at the end of the stream, or a negative errno.
int64_t Stream::receive(IoSlice to) {
  std::array<iovec, kMaxParts> parts;
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = gather(to, parts);
  while (true) {
    const ssize_t done = ::recvmsg(socket_.get(), &message, 0);
    if (done >= 0) return done;
    if (errno != EINTR) return -errno;
  }
}

Task<IoResult<>> Stream::read(IoSlice to) {
  while (!to.empty()) {
    if (buffer_from_ != buffer_to_) {
      const auto here = std::min<uint64_t>(to.bytes(), buffer_to_ - buffer_from_);
      to.slice(0, here).copy_from(buffer_.data() + buffer_from_);
      buffer_from_ += here;
      to = to.from(here);
      continue;
    }
    const bool direct = to.bytes() >= kBufferBytes;
    const int64_t done = receive(direct ? to : IoSlice(buffer_.data(), buffer_.size()));
    if (done == -EAGAIN) {
      co_await Wait{reader_};
      continue;
    }
    if (done == 0) co_return io_fail(ECONNRESET);
    if (done < 0) co_return io_fail(static_cast<int>(-done));
    if (direct) {
      to = to.from(static_cast<uint64_t>(done));
    } else {
      buffer_from_ = 0;
      buffer_to_ = static_cast<size_t>(done);
    }
  }
  co_return IoResult<>{};
}

Task<IoResult<>> Stream::write(std::vector<uint8_t> head, IoSlice from) {
  size_t head_done = 0;
  while (head_done < head.size() || !from.empty()) {
    std::array<iovec, kMaxParts> parts;
    msghdr message{};
    size_t count = 0;
    if (head_done < head.size()) parts[count++] = {head.data() + head_done, head.size() - head_done};
    from.for_parts([&](std::span<uint8_t> part) {
      parts[count++] = {part.data(), part.size()};
      return count < kMaxParts;
    });
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    const ssize_t done = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && errno == EAGAIN) {
      co_await Wait{writer_};
      continue;
    }
    if (done < 0) co_return io_fail(errno);
    const auto of_head = std::min(static_cast<size_t>(done), head.size() - head_done);
    head_done += of_head;
    from = from.from(static_cast<uint64_t>(done) - of_head);
  }
  co_return IoResult<>{};
}

}  // namespace kite::block::nbd

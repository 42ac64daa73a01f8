#include "chardev/stream_chardev.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "support/log.h"

namespace kite {
namespace {

constexpr size_t kReadSize = 4096;

// Writes to a log file, which takes what it can: a full disk must not stop the guest.
void append(const Fd& log, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(log.get(), bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return;
    bytes = bytes.subspan(static_cast<size_t>(wrote));
  }
}

int64_t monotonic_ns() { return HostClock(HostClock::Kind::kMonotonic).now(); }

// A blocking descriptor that poll() calls writable takes this much at least.
ssize_t write_if_writable(int fd, std::span<const uint8_t> bytes) {
  constexpr size_t kSafeSize = 512;
  pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
  if (::poll(&ready, 1, 0) == 0) {
    errno = EAGAIN;
    return -1;
  }
  return ::write(fd, bytes.data(), std::min(bytes.size(), kSafeSize));
}

}  // namespace

StreamChardev::StreamChardev(std::string id, Executor& executor, Fd log)
    : Chardev(std::move(id)),
      executor_(executor),
      log_(std::move(log)),
      collect_timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)),
      look_again_(executor, [this] { look_again(); }) {}

StreamChardev::~StreamChardev() { shut_down(); }

void StreamChardev::shut_down() {
  client_ = nullptr;
  disconnect();
}

void StreamChardev::set_client(ChardevClient* client) {
  client_ = client;
  if (client_ != nullptr && is_open()) client_->event(ChardevEvent::kOpened);
  update_interest();
}

void StreamChardev::connect(int in, int out, Output kind) {
  {
    const std::lock_guard lock(mutex_);
    out_ = out;
    kind_ = kind;
    output_error_ = 0;
    output_failure_told_ = false;
    in_ = in;
    input_over_ = in < 0;
    if (in_ >= 0) executor_.watch(in_, 0, [this](uint32_t events) { ready(true, events); });
    if (out_ >= 0 && out_ != in_) executor_.watch(out_, 0, [this](uint32_t events) { ready(false, events); });
    if (collect_timer_.valid()) executor_.watch(collect_timer_.get(), EPOLLIN, [this](uint32_t) { collected(); });
    open_.store(true, std::memory_order_release);
  }
  if (client_ != nullptr) client_->event(ChardevEvent::kOpened);
  update_interest();
}

void StreamChardev::disconnect() {
  bool wake_writer = false;
  {
    const std::lock_guard lock(mutex_);
    if (!open_.load(std::memory_order_relaxed)) return;
    if (output_error_ == 0) drain_queue();
    if (in_ >= 0) executor_.unwatch(in_);
    if (out_ >= 0 && out_ != in_) executor_.unwatch(out_);
    if (collect_timer_.valid()) executor_.unwatch(collect_timer_.get());
    collecting_ = false;
    in_ = -1;
    out_ = -1;
    queue_.clear();
    queue_head_ = 0;
    wake_writer = std::exchange(short_write_, false);
    open_.store(false, std::memory_order_release);
  }
  if (client_ != nullptr) client_->event(ChardevEvent::kClosed);
  if (client_ != nullptr && wake_writer) client_->writable();
}

// --- output ---

size_t StreamChardev::write(std::span<const uint8_t> bytes) {
  const std::lock_guard lock(mutex_);
  size_t taken = bytes.size();  // nobody there: it is dropped
  if (open_.load(std::memory_order_relaxed) && out_ >= 0) {
    taken = queued().empty() && !collects(bytes) ? send(bytes) : 0;
    const size_t room = kOutputBound - queued().size();
    const auto rest = bytes.subspan(taken);
    const auto kept = rest.first(std::min(rest.size(), room));
    queue_.insert(queue_.end(), kept.begin(), kept.end());
    taken += kept.size();
    if (taken < bytes.size()) short_write_ = true;
    if ((!queued().empty() && !collecting_) || output_error_ != 0) look_again_.ring();
  }
  if (log_.valid()) append(log_, bytes.first(taken));
  return taken;
}

// How many bytes are out of the way: sent, or lost with the connection.
size_t StreamChardev::send(std::span<const uint8_t> bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const auto rest = bytes.subspan(sent);
    ssize_t wrote = 0;
    switch (kind_) {
      case Output::kSocket: wrote = ::send(out_, rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL); break;
      case Output::kBlocking: wrote = write_if_writable(out_, rest); break;
      case Output::kNonblocking: wrote = ::write(out_, rest.data(), rest.size()); break;
    }
    if (wrote >= 0) {
      sent += static_cast<size_t>(wrote);
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      output_error_ = errno;
      return bytes.size();
    }
  }
  return sent;
}

// Whether the bytes are to wait in the queue, which is empty, for what comes behind them.
bool StreamChardev::collects(std::span<const uint8_t> bytes) {
  if (bytes.size() != 1 || !collect_timer_.valid()) return false;
  const int64_t now = monotonic_ns();
  if (now - std::exchange(sent_ns_, now) >= kCollectNs) return false;
  const itimerspec once{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_nsec = kCollectNs}};
  collecting_ = ::timerfd_settime(collect_timer_.get(), 0, &once, nullptr) == 0;
  return collecting_;
}

void StreamChardev::collected() {
  uint64_t expirations = 0;
  if (::read(collect_timer_.get(), &expirations, sizeof expirations) < 0) return;
  {
    const std::lock_guard lock(mutex_);
    collecting_ = false;
    sent_ns_ = monotonic_ns();
  }
  write_queued();
  look_again();
}

void StreamChardev::drain_queue() {
  queue_head_ += send(queued());
  if (queue_head_ == queue_.size()) {
    queue_.clear();
    queue_head_ = 0;
  } else if (queue_head_ > kOutputBound) {
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(queue_head_));
    queue_head_ = 0;
  }
}

void StreamChardev::write_queued() {
  bool wake_writer = false;
  {
    const std::lock_guard lock(mutex_);
    if (out_ >= 0) drain_queue();
    if (short_write_ && queued().size() <= kOutputBound / 2) {
      short_write_ = false;
      wake_writer = true;
    }
  }
  if (wake_writer && client_ != nullptr) client_->writable();
}

int StreamChardev::send_waiting() {
  const std::lock_guard lock(mutex_);
  if (out_ < 0) return -1;
  drain_queue();
  return queued().empty() ? -1 : out_;
}

void StreamChardev::flush() {
  constexpr int64_t kLongestNs = 1'000'000'000;
  constexpr int64_t kNsPerMs = 1'000'000;
  const HostClock clock(HostClock::Kind::kMonotonic);
  const int64_t deadline = clock.now() + kLongestNs;
  while (true) {
    pollfd ready{.fd = send_waiting(), .events = POLLOUT, .revents = 0};
    const int64_t left = deadline - clock.now();
    if (ready.fd < 0 || left <= 0) return;
    ::poll(&ready, 1, static_cast<int>(left / kNsPerMs) + 1);
  }
}

void StreamChardev::output_failed(int error) {
  log::warn("chardev '{}': cannot write to {}: {}", id(), filename(), errno_text(error));
}

// --- input and readiness ---

void StreamChardev::update_interest() {
  uint32_t in_events = 0;
  if (in_ >= 0 && !input_over_) {
    in_events = extra_input_events();
    if (client_ != nullptr && client_->can_receive() > 0) in_events |= EPOLLIN;
  }
  const std::lock_guard lock(mutex_);
  if (!open_.load(std::memory_order_relaxed)) return;
  const uint32_t out_events = queued().empty() || collecting_ ? 0u : static_cast<uint32_t>(EPOLLOUT);
  if (in_ == out_) {
    executor_.modify(in_, in_events | out_events);
    return;
  }
  if (in_ >= 0) executor_.modify(in_, in_events);
  if (out_ >= 0) executor_.modify(out_, out_events);
}

void StreamChardev::look_again() {
  int error = 0;
  {
    const std::lock_guard lock(mutex_);
    if (output_error_ != 0 && !output_failure_told_) {
      output_failure_told_ = true;
      error = output_error_;
    }
  }
  if (error != 0) output_failed(error);
  update_interest();
}

void StreamChardev::ready(bool input, uint32_t events) {
  const uint32_t hung_up = EPOLLHUP | EPOLLERR;
  if (input && (events & (EPOLLIN | hung_up)) != 0) read_input();
  if (const uint32_t extra = extra_input_events(); input && is_open() && extra != 0) {
    if ((events & (extra | hung_up)) != 0) extra_input_event();
  }
  if (is_open() && (!input || (events & EPOLLOUT) != 0)) write_queued();
  look_again();
}

void StreamChardev::read_input() {
  constexpr int kReadsAPass = 16;  // then others have their turn
  std::array<uint8_t, kReadSize> buffer;
  for (int i = 0; i < kReadsAPass && in_ >= 0 && !input_over_ && client_ != nullptr; ++i) {
    const size_t room = std::min(client_->can_receive(), buffer.size());
    if (room == 0) return;
    const ssize_t count = receive(in_, std::span(buffer).first(room));
    if (count > 0) {
      client_->received(std::span<const uint8_t>(buffer).first(static_cast<size_t>(count)));
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    input_ended(count == 0 ? 0 : errno);
    return;
  }
}

void StreamChardev::input_ended(int) { input_over_ = true; }

ssize_t StreamChardev::receive(int fd, std::span<uint8_t> buffer) { return ::read(fd, buffer.data(), buffer.size()); }

}  // namespace kite

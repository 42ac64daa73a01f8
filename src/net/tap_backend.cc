#include "net/tap_backend.h"

#include <sys/epoll.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "net/program.h"
#include "support/log.h"

namespace kite::net {

Result<std::unique_ptr<TapBackend>> TapBackend::create(std::string id, Executor& executor, const TapConfig& config) {
  KITE_ASSIGN(TapDevice device, open_tap(config));
  auto made = std::make_unique<TapBackend>(std::move(id), executor, std::move(device), config);
  KITE_TRY(made->set_up());
  if (config.vhost) log::warn("-netdev {}: there is no vhost-net here; frames go through this process", made->id());
  if (config.vhost_fd >= 0) ::close(config.vhost_fd);
  return made;
}

TapBackend::TapBackend(std::string id, Executor& executor, TapDevice device, TapConfig config)
    : NetBackend(std::move(id), config.type, executor),
      config_(std::move(config)),
      tap_(std::move(device)),
      buffer_(tap_.header_bytes + kMostFrameBytes) {
  this->executor().watch(tap_.fd.get(), EPOLLIN, [this](uint32_t events) { ready(events); });
}

TapBackend::~TapBackend() {
  executor().unwatch(tap_.fd.get());
  if (!set_up_ || config_.downscript.empty()) return;
  if (auto ran = run_program({config_.downscript, tap_.interface}); !ran)
    log::warn("-netdev {}: downscript={}: {}", id(), config_.downscript, ran.error().message);
}

// The user's script brings the interface into use; what it says is the user's to read.
Result<> TapBackend::set_up() {
  if (!config_.script.empty()) {
    auto ran = run_program({config_.script, tap_.interface});
    if (!ran) return fail("script={}: {}", config_.script, ran.error().message);
    if (!ran->empty()) log::info("-netdev {}: {}: {}", id(), config_.script, *ran);
  }
  set_up_ = true;
  return {};
}

std::string TapBackend::info() const {
  const auto or_no = [](const std::string& path) { return path.empty() ? "no" : path.c_str(); };
  std::string text = fmt::format("ifname={}", tap_.interface);
  if (config_.type == "tap")
    text += fmt::format(",script={},downscript={}", or_no(config_.script), or_no(config_.downscript));
  if (!config_.bridge.empty()) text += fmt::format(",br={}", config_.bridge);
  return config_.helper.empty() ? text : fmt::format("{},helper={}", text, config_.helper);
}

// --- frames

void TapBackend::update_interest() {
  const bool reads = !over_ && !backed_up();
  executor().modify(tap_.fd.get(), (reads ? uint32_t{EPOLLIN} : 0) | (full_ && !over_ ? uint32_t{EPOLLOUT} : 0));
}

void TapBackend::ready(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) read_frames();
  if (full_ && (events & (EPOLLOUT | EPOLLERR)) != 0) {
    full_ = false;
    if (client() != nullptr) client()->writable();
  }
  update_interest();
}

void TapBackend::read_frames() {
  constexpr int kFramesATime = 64;  // others have their turn
  for (int count = 0; count < kFramesATime && !backed_up(); ++count) {
    const ssize_t got = ::read(tap_.fd.get(), buffer_.data(), buffer_.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      over_ = true;
      log::warn("-netdev {}: the tap '{}' gives no frames any more: {}", id(), tap_.interface,
                got == 0 ? "it is closed" : errno_text(errno));
      return;
    }
    const auto bytes = static_cast<size_t>(got);
    if (bytes >= tap_.header_bytes + kHeaderBytes)
      deliver(Frame(buffer_).subspan(tap_.header_bytes, bytes - tap_.header_bytes));
  }
}

Delivery TapBackend::do_send(Frame frame) {
  if (over_) return Delivery::kDropped;
  constexpr size_t kMostHeader = 64;
  static constexpr std::array<uint8_t, kMostHeader> kZeroes{};
  const std::array parts{
      iovec{.iov_base = const_cast<uint8_t*>(kZeroes.data()), .iov_len = std::min(tap_.header_bytes, kMostHeader)},
      iovec{.iov_base = const_cast<uint8_t*>(frame.data()), .iov_len = frame.size()}};
  ssize_t wrote = 0;
  do wrote = ::writev(tap_.fd.get(), parts.data(), static_cast<int>(parts.size()));
  while (wrote < 0 && errno == EINTR);
  if (wrote >= 0) return Delivery::kTaken;
  if (errno != EAGAIN && errno != ENOBUFS) return Delivery::kDropped;  // an interface that is down
  full_ = true;
  update_interest();
  return Delivery::kFull;
}

}  // namespace kite::net

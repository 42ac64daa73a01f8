#include "devices/virtio/virtio_rng.h"

#include <algorithm>
#include <utility>

namespace kite::devices {

namespace {

constexpr int64_t kMillisecond = 1'000'000;

}  // namespace

VirtioRng::VirtioRng(Config config, std::unique_ptr<entropy::EntropySource> source, Clock& clock, GuestMemory& memory,
                     Executor& home, const Options& options)
    : VirtioDevice(home, memory, {.type = virtio_rng::kType, .name = config.name, .queue_size = 8}, options),
      config_(std::move(config)),
      clock_(clock),
      source_(std::move(source)),
      left_(config_.max_bytes) {
  source_->set_ready([this] { kick(0); });
  period_end_ = std::make_unique<Timer>(clock_, [this] { next_period(); });
}

VirtioRng::~VirtioRng() {
  period_end_.reset();
  source_.reset();
  retire();
}

void VirtioRng::cancel_requests() {
  if (waiting_ != nullptr && !current(*waiting_)) finish(std::move(waiting_), 0);
}

void VirtioRng::next_period() {
  left_ = config_.max_bytes;
  kick(0);
}

void VirtioRng::serve(uint16_t) {
  cancel_requests();
  for (unsigned count = 0; count < shape().queue_size; ++count) {
    Chain chain = waiting_ != nullptr ? std::move(waiting_) : next(0);
    if (chain == nullptr) return;
    if (fill(chain)) continue;
    waiting_ = std::move(chain);
    return;
  }
  kick(0);
}

bool VirtioRng::fill(Chain& chain) {
  if (chain->in_bytes == 0) {
    break_device("a request for random numbers has no room for any");
    finish(std::move(chain), 0);
    return true;
  }
  const uint64_t most = std::min({chain->in_bytes, left_, kMostAtOnce});
  if (most == 0) return false;  // period_end_ is armed
  bytes_.resize(most);
  const size_t got = source_->take(bytes_);
  if (got == 0) return false;
  if (config_.max_bytes != UINT64_MAX) {
    if (left_ == config_.max_bytes)
      period_end_->arm_at(clock_.now() + static_cast<int64_t>(config_.period_ms) * kMillisecond);
    left_ -= got;
  }
  // 5.4.6.2: one random byte or more.
  if (!chain->write(memory(), 0, std::span(bytes_).first(got)))
    break_device("a buffer for random numbers is not in RAM");
  finish(std::move(chain), got);
  return true;
}

}  // namespace kite::devices

#include "devices/virtio/virtio_device.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

#include "support/bits.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::devices {

using namespace virtio;

namespace {

constexpr uint32_t kMostConfigBytes = 256;

uint32_t used_length(uint64_t written) { return static_cast<uint32_t>(std::min<uint64_t>(written, UINT32_MAX)); }

uint64_t offered_features(uint64_t own, const VirtioDevice::Options& options) {
  uint64_t features = own | kVersion1;
  if (options.indirect) features |= kIndirect;
  if (options.event_index) features |= kEventIndex;
  if (options.notify_on_empty) features |= kNotifyOnEmpty;
  if (options.any_layout) features |= kAnyLayout;
  if (options.packed) features |= kRingPacked;
  if (options.queue_reset) features |= kRingReset;
  if (options.access_platform) features |= kAccessPlatform;
  return features;
}

}  // namespace

VirtioDevice::VirtioDevice(Executor& home, GuestMemory& memory, Shape shape, const Options& options)
    : shape_(std::move(shape)),
      offered_(offered_features(shape_.features, options)),
      home_(home),
      memory_(memory),
      shared_(std::make_shared<Home>()) {
  assert(shape_.queues <= kMostQueues && shape_.queue_size <= kMostQueueSize);
  assert(shape_.config_bytes <= kMostConfigBytes);
  shared_->device = this;
  for (unsigned i = 0; i < shape_.queues; ++i) {
    queues_.push_back(std::make_unique<Queue>());
    queues_.back()->state.size = shape_.queue_size;
  }
}

VirtioDevice::~VirtioDevice() { retire(); }

void VirtioDevice::retire() {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->device = nullptr;
  }
  for (const auto& bell : bells_) home_.unwatch(bell->bell.fd());
  bells_.clear();
}

// --- features and status

uint64_t VirtioDevice::offered(bool legacy) const {
  // 6.3: the two legacy bits mean nothing to later drivers.
  return legacy ? offered_ & kLegacyFeatures : offered_ & ~(kNotifyOnEmpty | kAnyLayout);
}

void VirtioDevice::write_driver_features(uint64_t features, uint64_t mask, bool legacy) {
  // 3.1.1: none are accepted after the driver said that it was done.
  if ((state_.status & (kFeaturesOk | kDriverOk)) != 0) return;
  if (legacy) features &= offered(true);
  state_.features = (state_.features & ~mask) | (features & mask);
}

bool VirtioDevice::features_fit() const {
  const uint64_t features = state_.features;
  if ((features & ~offered(false)) != 0) return false;
  // 6.1, 6.2: a driver that finds these has to accept them.
  const uint64_t required = offered_ & (kVersion1 | kAccessPlatform);
  return (features & required) == required && accepts(features);
}

uint8_t VirtioDevice::status() const { return state_.status == 0 && resetting_ ? status_before_ : state_.status; }

void VirtioDevice::write_status(uint8_t status, bool legacy) {
  if (status == 0) return reset_locked();
  const auto fresh = static_cast<uint8_t>(status & ~state_.status);
  // 3.1.1 step 6: the driver reads back whether its choice was taken.
  if (!legacy && (fresh & kFeaturesOk) != 0 && !features_fit()) {
    log::guest_error("{}: the features {:#x} do not go together with those offered, {:#x}", shape_.name,
                     state_.features, offered(false));
    status = static_cast<uint8_t>(status & ~kFeaturesOk);
  }
  state_.status = static_cast<uint8_t>(status | (state_.status & kNeedsReset));
  if ((fresh & kDriverOk) == 0) return;
  begin();
  kick_enabled();
}

// The driver's choice of features counts from here on.
void VirtioDevice::begin() {
  if (begun_) return;
  begun_ = true;
  uint64_t features = state_.features & offered_;
  if ((features & kVersion1) == 0) features &= kLegacyFeatures;
  agreed_.store(features, std::memory_order_release);
  driver_ready();
}

void VirtioDevice::reset_locked() {
  if (state_.status != 0) status_before_ = state_.status;
  device_reset();
  for (const auto& queue : queues_) end_life(*queue);
  if (stale_ != 0) {
    resetting_ = true;
    if (!std::exchange(cancelling_, true)) {
      home_.post([shared = shared_] {
        const std::lock_guard lock(shared->mutex);
        if (shared->device != nullptr) shared->device->cancel_old_requests();
      });
    }
  }
  state_ = State{};
  begun_ = false;
  agreed_.store(0, std::memory_order_release);
}

void VirtioDevice::cancel_old_requests() {
  cancel_requests();
  const std::lock_guard lock(lock_);
  cancelling_ = false;
  end_reset();
}

void VirtioDevice::end_reset() {
  if (!resetting_ || stale_ != 0 || cancelling_) return;
  resetting_ = false;
  kick_enabled();  // what came after the reset has waited
}

void VirtioDevice::end_life(Queue& queue) {
  std::erase_if(flying_, [&](const VirtioChain* chain) { return queues_[chain->queue].get() == &queue; });
  for (size_t i = 0; i < flying_.size(); ++i) flying_[i]->place = i;
  ++queue.life;
  queue.stale += queue.in_flight;
  stale_ += queue.in_flight;
  queue.in_flight = 0;
  queue.interrupt = false;
  queue.restored.clear();
  queue.ring.unmap();
  queue.state = Virtqueue::State{};
  queue.state.size = shape_.queue_size;
}

void VirtioDevice::break_device(std::string_view why) {
  const std::lock_guard lock(lock_);
  break_locked(why);
}

void VirtioDevice::break_locked(std::string_view why) {
  if (state_.broken) return;
  log::guest_error("{}: {}; the device waits for a reset", shape_.name, why);
  state_.broken = true;
  if ((agreed_.load(std::memory_order_relaxed) & kVersion1) == 0) return;
  state_.status = static_cast<uint8_t>(state_.status | kNeedsReset);
  // 2.1.2: the driver is told, if it can hear.
  if ((state_.status & kDriverOk) != 0) transport_->config_interrupt();
}

// --- configuration space

uint64_t VirtioDevice::config_read(uint32_t offset, unsigned size) {
  std::array<uint8_t, kMostConfigBytes + 8> config{};
  if (offset >= shape_.config_bytes) return 0;
  read_config(std::span(config).first(shape_.config_bytes));
  return load_le(&config[offset], size);
}

void VirtioDevice::config_write(uint32_t offset, unsigned size, uint64_t value) {
  if (offset >= shape_.config_bytes || size > shape_.config_bytes - offset) return;
  std::array<uint8_t, 8> bytes{};
  store_le(bytes.data(), size, value);
  config_written(offset, std::span(bytes).first(size));
}

void VirtioDevice::config_changed() {
  const std::lock_guard lock(lock_);
  ++state_.generation;
  if ((state_.status & kDriverOk) != 0) transport_->config_interrupt();
}

// --- queues

void VirtioDevice::set_queue_size(uint16_t index, uint16_t size) {
  Virtqueue::State& state = queues_[index]->state;
  // 4.1.5.1.3: drivers may make it smaller.
  if (!state.enabled && size != 0 && size <= shape_.queue_size) state.size = size;
}

void VirtioDevice::set_queue_addresses(uint16_t index, uint64_t descriptors, uint64_t driver, uint64_t device) {
  Virtqueue::State& state = queues_[index]->state;
  if (state.enabled) return;
  state.descriptors = descriptors;
  state.driver = driver;
  state.device = device;
}

void VirtioDevice::enable_queue(uint16_t index) {
  queues_[index]->state.enabled = true;
  post_kick(index);
}

void VirtioDevice::set_queue_page(uint16_t index, uint32_t page) {
  Queue& queue = *queues_[index];
  const uint16_t vector = queue.state.vector;
  end_life_alone(index);
  queue.state.vector = vector;
  if (page == 0) return;
  // 2.7.2: the three parts of a legacy queue follow each other.
  const uint64_t size = queue.state.size;
  queue.state.descriptors = uint64_t{page} * kLegacyAlign;
  queue.state.driver = queue.state.descriptors + size * kDescriptorBytes;
  queue.state.device = align_up(queue.state.driver + kRingHeader + size * kAvailEntry + 2, kLegacyAlign);
  queue.state.enabled = true;
}

uint32_t VirtioDevice::queue_page(uint16_t index) const {
  const Virtqueue::State& state = queues_[index]->state;
  return state.enabled ? static_cast<uint32_t>(state.descriptors / kLegacyAlign) : 0;
}

void VirtioDevice::reset_queue(uint16_t index) {
  if ((state_.features & kRingReset) == 0) return;
  end_life_alone(index);
}

void VirtioDevice::end_life_alone(uint16_t index) {
  end_life(*queues_[index]);
  if (queues_[index]->stale == 0) return;
  home_.post([shared = shared_, index] {
    const std::lock_guard lock(shared->mutex);
    if (shared->device != nullptr) shared->device->queue_reset(index);
  });
}

void VirtioDevice::kick(uint16_t index) {
  if (index < queues_.size()) post_kick(index);
}

void VirtioDevice::kick_all() {
  for (uint16_t index = 0; index < queues_.size(); ++index) post_kick(index);
}

void VirtioDevice::kick_enabled() {
  for (uint16_t index = 0; index < queues_.size(); ++index)
    if (queues_[index]->state.enabled) post_kick(index);
}

void VirtioDevice::post_kick(uint16_t index) {
  if (queues_[index]->kicked.exchange(true, std::memory_order_acq_rel)) return;
  home_.post([shared = shared_, index] {
    const std::lock_guard lock(shared->mutex);
    if (shared->device != nullptr) shared->device->run_queue(index);
  });
}

void VirtioDevice::listen(bus::Doorbell bell, uint16_t index) {
  bells_.push_back(std::make_unique<Bell>(Bell{.bell = std::move(bell), .queue = index}));
  bus::Doorbell* const rung = &bells_.back()->bell;
  home_.watch(rung->fd(), EPOLLIN, [shared = shared_, rung, index](uint32_t) {
    const std::lock_guard lock(shared->mutex);
    if (shared->device == nullptr) return;
    static_cast<void>(rung->take());
    shared->device->run_queue(index);
  });
}

// Whether chains may be taken; maps the rings when it is the first time.
bool VirtioDevice::ready(Queue& queue) {
  if (!running_ || !queue.state.enabled || state_.broken || !transport_->may_master()) return false;
  if (resetting_ || queue.stale != 0) return false;
  // Legacy drivers kick before they set DRIVER_OK (3.1.2); later ones must not.
  if ((state_.status & kDriverOk) == 0 && (state_.features & kVersion1) != 0) return false;
  begin();
  if (queue.ring.mapped()) return true;
  const uint64_t features = agreed_.load(std::memory_order_relaxed);
  const Virtqueue::Options options{.packed = (features & kRingPacked) != 0,
                                   .event_index = (features & kEventIndex) != 0,
                                   .indirect = (features & kIndirect) != 0,
                                   .notify_on_empty = (features & (kNotifyOnEmpty | kVersion1)) == kNotifyOnEmpty};
  const Result<> mapped = queue.ring.map(memory_, queue.state, options);
  if (!mapped) break_locked(mapped.error().message);
  return mapped.has_value();
}

void VirtioDevice::run_queue(uint16_t index) {
  Queue& queue = *queues_[index];
  queue.kicked.exchange(false, std::memory_order_acq_rel);
  {
    const std::lock_guard lock(lock_);
    if (!ready(queue)) return;
    queue.ring.suppress_kicks();
    queue.exhausted = false;
    serving_ = true;
  }
  serve(index);
  const std::lock_guard lock(lock_);
  serving_ = false;
  raise_interrupts();
  // More that came while the driver thought it need not kick: after whatever else waits its turn.
  if (queue.exhausted && queue.ring.mapped() && queue.ring.allow_kicks()) post_kick(index);
}

std::unique_ptr<VirtioChain> VirtioDevice::fresh_chain() {
  if (spare_.empty()) return std::make_unique<VirtioChain>();
  std::unique_ptr<VirtioChain> chain = std::move(spare_.back());
  spare_.pop_back();
  return chain;
}

std::unique_ptr<VirtioChain> VirtioDevice::next(uint16_t index) {
  const std::lock_guard lock(lock_);
  Queue& queue = *queues_[index];
  if (!ready(queue)) return nullptr;
  std::unique_ptr<VirtioChain> chain;
  if (!queue.restored.empty()) {
    chain = std::move(queue.restored.back());
    queue.restored.pop_back();
  } else {
    chain = fresh_chain();
    const Result<bool> taken = queue.ring.take(*chain);
    // A driver has as many descriptors as the queue; one that shows some twice is not heard any more.
    if (!taken || (*taken && queue.in_flight == queue.state.size)) {
      break_locked(taken ? "more requests are in flight than the queue has descriptors" : taken.error().message);
      return nullptr;
    }
    if (!*taken) {
      queue.exhausted = true;
      spare_.push_back(std::move(chain));
      return nullptr;
    }
  }
  chain->queue = index;
  chain->life = queue.life;
  chain->sequence = sequence_++;
  chain->place = flying_.size();
  flying_.push_back(chain.get());
  ++queue.in_flight;
  return chain;
}

void VirtioDevice::finish(std::unique_ptr<VirtioChain> chain, uint64_t written) {
  const std::lock_guard lock(lock_);
  Queue& queue = *queues_[chain->queue];
  const Virtqueue::Given given{.chain = chain.get(), .written = used_length(written)};
  if (land(queue, *chain)) give(queue, std::span(&given, 1));
  keep(std::move(chain));
}

void VirtioDevice::finish_together(std::vector<Finished> list) {
  if (list.empty()) return;
  const std::lock_guard lock(lock_);
  Queue& queue = *queues_[list[0].chain->queue];
  std::vector<Virtqueue::Given> given;
  for (const auto& [chain, written] : list)
    if (land(queue, *chain)) given.push_back({.chain = chain.get(), .written = used_length(written)});
  if (!given.empty()) give(queue, given);
  for (auto& [chain, written] : list) keep(std::move(chain));
}

void VirtioDevice::keep(std::unique_ptr<VirtioChain> chain) {
  if (spare_.size() < shape_.queue_size) spare_.push_back(std::move(chain));
}

bool VirtioDevice::land(Queue& queue, const VirtioChain& chain) {
  if (chain.life == queue.life) {
    flying_[chain.place] = flying_.back();
    flying_[chain.place]->place = chain.place;
    flying_.pop_back();
    --queue.in_flight;
    return true;
  }
  --stale_;
  if (--queue.stale == 0) post_kick(chain.queue);
  end_reset();
  return false;
}

void VirtioDevice::give(Queue& queue, std::span<const Virtqueue::Given> list) {
  if (state_.broken || !queue.ring.mapped()) return;
  queue.ring.give_together(list);
  queue.interrupt = true;
  if (serving_ || looking_) return;
  // Once for all that end in this pass of the executor.
  looking_ = true;
  home_.post([shared = shared_] {
    const std::lock_guard lock(shared->mutex);
    if (shared->device != nullptr) shared->device->look_for_interrupts();
  });
}

void VirtioDevice::look_for_interrupts() {
  const std::lock_guard lock(lock_);
  looking_ = false;
  raise_interrupts();
}

void VirtioDevice::raise_interrupts() {
  for (const auto& queue : queues_) {
    if (!queue->interrupt) continue;
    queue->interrupt = false;
    if (queue->ring.wants_interrupt(queue->in_flight == 0)) transport_->queue_interrupt(queue->state.vector);
  }
}

// --- lifecycle

void VirtioDevice::reset() {
  const std::lock_guard lock(lock_);
  reset_locked();
}

void VirtioDevice::start() {
  const std::lock_guard lock(lock_);
  running_ = true;
  kick_enabled();
}

void VirtioDevice::stop() {
  {
    const std::lock_guard lock(lock_);
    running_ = false;
  }
  const std::lock_guard serving(shared_->mutex);  // what was being served has been
  const std::lock_guard lock(lock_);
  raise_interrupts();
}

}  // namespace kite::devices

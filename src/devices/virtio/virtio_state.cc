// Saved state of virtio devices: registers, queues, and the chains in flight, which a restored device serves again.
#include <algorithm>

#include "devices/section.h"
#include "devices/virtio/state_bytes.h"
#include "devices/virtio/virtio_device.h"

namespace kite::devices {

using namespace virtio;

namespace {

constexpr uint8_t kEnabledBit = 1, kAvailWrapBit = 2, kUsedWrapBit = 4, kSignalledBit = 8, kSignalledWrapBit = 16;

void put_chain(StateBytes& to, const VirtioChain& chain) {
  to.put(chain.queue, chain.id, chain.slots, static_cast<uint16_t>(chain.out.size()),
         static_cast<uint16_t>(chain.in.size()));
  to.put_list(chain.out);
  to.put_list(chain.in);
}

}  // namespace

std::vector<uint8_t> VirtioDevice::queue_bytes() const {
  StateBytes to;
  for (const auto& queue : queues_) {
    const auto& [size, enabled, vector, descriptors, driver, device, next_avail, next_used, avail_wrap, used_wrap,
                 signalled, signalled_wrap, signalled_valid] = queue->state;
    const auto flags = static_cast<uint8_t>((enabled ? kEnabledBit : 0) | (avail_wrap ? kAvailWrapBit : 0) |
                                            (used_wrap ? kUsedWrapBit : 0) | (signalled_valid ? kSignalledBit : 0) |
                                            (signalled_wrap ? kSignalledWrapBit : 0));
    to.put(size, vector, descriptors, driver, device, next_avail, next_used, signalled, flags);
  }
  return std::move(to.bytes);
}

bool VirtioDevice::restore_queues(std::span<const uint8_t> bytes) {
  StateCut from(bytes);
  restored_.queues.assign(queues_.size(), {});
  const bool packed = (restored_.state.features & offered_ & kRingPacked) != 0;
  for (Virtqueue::State& queue : restored_.queues) {
    auto& [size, enabled, vector, descriptors, driver, device, next_avail, next_used, avail_wrap, used_wrap, signalled,
           signalled_wrap, signalled_valid] = queue;
    uint8_t flags = 0;
    from.get(size, vector, descriptors, driver, device, next_avail, next_used, signalled, flags);
    enabled = (flags & kEnabledBit) != 0;
    avail_wrap = (flags & kAvailWrapBit) != 0;
    used_wrap = (flags & kUsedWrapBit) != 0;
    signalled_valid = (flags & kSignalledBit) != 0;
    signalled_wrap = (flags & kSignalledWrapBit) != 0;
    if (size == 0 || size > shape_.queue_size || flags >= 2 * kSignalledWrapBit) return false;
    if (packed && (next_avail >= size || next_used >= size || signalled >= size)) return false;
  }
  return from.good() && from.empty();
}

std::vector<uint8_t> VirtioDevice::chain_bytes() const {
  std::vector<const VirtioChain*> flying(flying_.begin(), flying_.end());
  std::ranges::sort(flying, {}, &VirtioChain::sequence);
  StateBytes to;
  for (uint16_t index = 0; index < queues_.size(); ++index) {
    const auto& waiting = queues_[index]->restored;
    for (const VirtioChain* chain : flying)
      if (chain->queue == index) put_chain(to, *chain);
    for (auto chain = waiting.rbegin(); chain != waiting.rend(); ++chain) put_chain(to, **chain);
  }
  return std::move(to.bytes);
}

bool VirtioDevice::restore_chains(std::span<const uint8_t> bytes) {
  StateCut from(bytes);
  restored_.chains.clear();
  std::vector<unsigned> count(queues_.size());
  while (!from.empty()) {
    auto chain = std::make_unique<VirtioChain>();
    uint16_t out = 0, in = 0;
    from.get(chain->queue, chain->id, chain->slots, out, in);
    if (!from.good() || chain->queue >= queues_.size() || out + in > kMostDescriptors) return false;
    const Virtqueue::State& queue = restored_.queues[chain->queue];
    if (!queue.enabled || ++count[chain->queue] > queue.size || chain->slots == 0 || chain->slots > queue.size)
      return false;
    if (!from.get_list(out, chain->out, chain->out_bytes) || !from.get_list(in, chain->in, chain->in_bytes))
      return false;
    restored_.chains.push_back(std::move(chain));
  }
  return true;
}

void VirtioDevice::save_fields(StateWriter& writer, uint16_t first) {
  const std::lock_guard lock(lock_);
  save_type(writer);
  const auto& [features, status, generation, broken] = state_;
  uint16_t number = first;
  writer.field(number++, features);
  writer.field(number++, status);
  writer.field(number++, generation);
  writer.field(number++, broken);
  writer.field(number++, queue_bytes());
  writer.field(number, chain_bytes());
}

void VirtioDevice::restore_fields(StateReader& reader, uint16_t first) {
  const std::lock_guard lock(lock_);
  restore_type(reader);
  auto& [features, status, generation, broken] = restored_.state;
  std::vector<uint8_t> queues, chains;
  uint16_t number = first;
  reader.field(number++, features);
  reader.field(number++, status);
  reader.field(number++, generation);
  reader.field(number++, broken);
  reader.field(number++, queues);
  reader.field(number, chains);
  if (!reader.ok()) return;
  if (!require(reader, restore_queues(queues), "the queues are impossible for this device")) return;
  require(reader, restore_chains(chains), "the requests in flight are impossible for this device");
}

bool VirtioDevice::restored_vectors_below(uint16_t vectors) const {
  return std::ranges::all_of(restored_.queues, [vectors](const Virtqueue::State& queue) {
    return queue.vector == kNoVector || queue.vector < vectors;
  });
}

void VirtioDevice::apply_restored() {
  const std::lock_guard lock(lock_);
  reset_locked();
  state_ = restored_.state;
  for (size_t i = 0; i < queues_.size(); ++i) queues_[i]->state = restored_.queues[i];
  std::ranges::reverse(restored_.chains);
  for (auto& chain : restored_.chains) {
    Queue& queue = *queues_[chain->queue];
    queue.restored.push_back(std::move(chain));
  }
  restored_ = {};
  if ((state_.status & kDriverOk) != 0) begin();
  apply_type();
  if (running_) kick_enabled();
}

}  // namespace kite::devices

// The control queue of virtio-net. [VIRTIO 1.2] 5.1.6.5.
#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_net_regs.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace virtio_net;

namespace {

constexpr uint64_t kDataAt = 2;  // after class and command

}  // namespace

void VirtioNet::serve_control() {
  for (unsigned count = 0; count < shape().queue_size; ++count) {
    Chain chain = next(kControlQueue);
    if (chain == nullptr) return;
    if (chain->out_bytes < kDataAt || chain->in_bytes < 1)
      return refuse(std::move(chain), "a control command has no room for itself or its answer");
    const uint8_t answer = control(*chain);
    if (!chain->write(memory(), 0, std::span(&answer, 1)))
      return refuse(std::move(chain), "the place for a control command's answer is not in RAM");
    finish(std::move(chain), 1);
  }
  kick(kControlQueue);
}

uint8_t VirtioNet::control(const VirtioChain& chain) {
  std::array<uint8_t, kDataAt> head{};
  if (!chain.read(memory(), 0, head)) return kAckError;
  const auto [kind, command] = head;
  switch (kind) {
    case kClassReceive: return set_mode(command, chain);
    case kClassMac:
      if (command == kMacTableSet) return set_addresses(chain);
      return command == kMacAddressSet ? set_address(chain) : uint8_t{kAckError};
    case kClassVlan: return set_vlan(command, chain);
    default: return kAckError;
  }
}

uint8_t VirtioNet::set_mode(uint8_t command, const VirtioChain& chain) {
  uint8_t on = 0;
  if (!agreed(command < kFirstExtraCommand ? kControlReceive : kControlReceiveExtra)) return kAckError;
  if (command >= kReceiveCommands || !chain.read(memory(), kDataAt, std::span(&on, 1))) return kAckError;
  const auto mode = static_cast<uint8_t>(1u << command);
  const std::lock_guard lock(filter_mutex_);
  filter_.modes = static_cast<uint8_t>(on != 0 ? filter_.modes | mode : filter_.modes & ~mode);
  return kAckOk;
}

// 5.1.6.5.2: two lists, each a number and so many addresses.
uint8_t VirtioNet::set_addresses(const VirtioChain& chain) {
  if (!agreed(kControlReceive)) return kAckError;
  uint64_t at = kDataAt;
  const auto take_list = [&](std::vector<net::MacAddress>& list, bool& overflow) {
    std::array<uint8_t, 4> number{};
    if (chain.out_bytes - at < number.size() || !chain.read(memory(), at, number)) return false;
    at += number.size();
    const uint64_t count = load<uint32_t>(number.data());
    if (count > (chain.out_bytes - at) / kAddressBytes) return false;
    overflow = count > ReceiveFilter::kMostAddresses;
    list.resize(overflow ? 0 : count);
    for (size_t i = 0; i < list.size(); ++i)
      if (!chain.read(memory(), at + i * kAddressBytes, list[i])) return false;
    at += count * kAddressBytes;
    return true;
  };
  ReceiveFilter lists;
  if (!take_list(lists.unicast, lists.unicast_overflow) || !take_list(lists.multicast, lists.multicast_overflow))
    return kAckError;
  const std::lock_guard lock(filter_mutex_);
  filter_.unicast = std::move(lists.unicast);
  filter_.multicast = std::move(lists.multicast);
  filter_.unicast_overflow = lists.unicast_overflow;
  filter_.multicast_overflow = lists.multicast_overflow;
  return kAckOk;
}

uint8_t VirtioNet::set_address(const VirtioChain& chain) {
  net::MacAddress mac{};
  if (!agreed(kControlMac) || !chain.read(memory(), kDataAt, mac)) return kAckError;
  const std::lock_guard lock(filter_mutex_);
  mac_ = mac;
  return kAckOk;
}

uint8_t VirtioNet::set_vlan(uint8_t command, const VirtioChain& chain) {
  std::array<uint8_t, 2> number{};
  if (!agreed(kControlVlan) || command > kVlanDelete || !chain.read(memory(), kDataAt, number)) return kAckError;
  const auto vlan = load<uint16_t>(number.data());
  if (vlan >= ReceiveFilter::kVlanBytes * 8) return kAckError;
  const std::lock_guard lock(filter_mutex_);
  filter_.set_vlan(vlan, command == kVlanAdd);
  return kAckOk;
}

}  // namespace kite::devices

#include "devices/virtio/receive_filter.h"

#include <algorithm>

#include "support/bytes.h"

namespace kite::devices {

namespace {

constexpr size_t kTypeAt = 12, kTagAt = 14;
constexpr uint16_t kVlanTag = 0x8100;  // [IEEE 802.1Q] 9.6
constexpr net::MacAddress kBroadcast{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

bool contains(const std::vector<net::MacAddress>& list, const net::MacAddress& mac) {
  return std::ranges::find(list, mac) != list.end();
}

}  // namespace

void ReceiveFilter::set_vlan(uint16_t vlan, bool on) {
  const auto bit = static_cast<uint8_t>(1u << (vlan % 8));
  uint8_t& place = vlans[vlan / 8];
  place = static_cast<uint8_t>(on ? place | bit : place & ~bit);
}

bool ReceiveFilter::wants(net::Frame frame, const net::MacAddress& own, bool by_vlan) const {
  if ((modes & kPromiscuous) != 0) return true;
  if (by_vlan && frame.size() >= kTagAt + 2 && load_be16(&frame[kTypeAt]) == kVlanTag) {
    const unsigned vlan = load_be16(&frame[kTagAt]) & 0xfffu;
    if ((vlans[vlan / 8] >> (vlan % 8) & 1) == 0) return false;
  }
  const auto to = load<net::MacAddress>(frame.data());
  if (to == kBroadcast) return (modes & kNoBroadcast) == 0;
  if ((to[0] & 1) != 0) {
    if ((modes & kNoMulticast) != 0) return false;
    return (modes & kAllMulticast) != 0 || multicast_overflow || contains(multicast, to);
  }
  if ((modes & kNoUnicast) != 0) return false;
  return (modes & kAllUnicast) != 0 || unicast_overflow || to == own || contains(unicast, to);
}

}  // namespace kite::devices

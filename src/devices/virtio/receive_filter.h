// ReceiveFilter: which frames a network card hands to its guest. [VIRTIO 1.2] 5.1.6.5.1, 5.1.6.5.2, 5.1.6.5.3.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "net/net_backend.h"

namespace kite::devices {

struct ReceiveFilter {
  // In the order of the commands that set them.
  enum Mode : uint8_t {
    kPromiscuous = 1,
    kAllMulticast = 2,
    kAllUnicast = 4,
    kNoMulticast = 8,
    kNoUnicast = 16,
    kNoBroadcast = 32,
    kModes = 63,
  };
  static constexpr size_t kMostAddresses = 64;  // a longer list lets all of its kind pass
  static constexpr size_t kVlanBytes = 4096 / 8;

  uint8_t modes = kPromiscuous;  // until the driver has something else to say
  bool unicast_overflow = false, multicast_overflow = false;
  std::vector<net::MacAddress> unicast, multicast;
  std::array<uint8_t, kVlanBytes> vlans{};  // a bit each
  bool operator==(const ReceiveFilter&) const = default;

  // `own` is the card's address. Frames have at least their header.
  [[nodiscard]] bool wants(net::Frame frame, const net::MacAddress& own, bool by_vlan) const;
  void set_vlan(uint16_t vlan, bool on);  // below 4096
};

}  // namespace kite::devices

// Receiving: which frames the card takes, and how they come to memory. [8254x] 3.2.
#include <zlib.h>

#include <algorithm>

#include "devices/e1000/e1000.h"
#include "net/checksum.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace e1000;
using net::Delivery;

namespace {

constexpr size_t kTypeAt = 12, kTagAt = 14, kTagBytes = 4, kCrcBytes = 4;
constexpr size_t kLeastFrame = 60;                       // without the CRC; [IEEE 802.3] 3.2.8
constexpr size_t kLongest = 1522, kLongestLong = 16384;  // with it; 13.4.22
constexpr uint16_t kMacControlType = 0x8808;             // [IEEE 802.3] 31.4.1.3
constexpr net::MacAddress kBroadcastAddress{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

net::MacAddress address_at(net::Frame frame, size_t at) { return load<net::MacAddress>(&frame[at]); }

// [IEEE 802.3] 3.2.9.
uint32_t crc_of(net::Frame frame) { return static_cast<uint32_t>(crc32_z(0, frame.data(), frame.size())); }

// What the checksums of an IPv4 packet are. 3.2.9: others are not looked at, nor are fragments' of TCP and UDP.
struct Checked {
  bool ip = false, ip_good = false, tcp_udp = false, tcp_udp_good = false;
};
Checked check(net::Frame frame) {
  constexpr uint16_t kIpv4 = 0x0800;
  constexpr uint8_t kTcp = 6, kUdp = 17;
  Checked result;
  const net::Frame packet = frame.subspan(net::kHeaderBytes);
  if (load_be16(&frame[kTypeAt]) != kIpv4 || packet.size() < 20 || packet[0] >> 4 != 4) return result;
  const size_t header = (packet[0] & 0xfu) * 4, total = load_be16(&packet[2]);
  if (header < 20 || total < header || total > packet.size()) return result;
  result.ip = true;
  result.ip_good = net::internet_sum(packet.first(header)) == 0xffff;
  const bool fragment = (load_be16(&packet[6]) & 0x3fff) != 0;
  const uint8_t protocol = packet[9];
  const net::Frame rest = packet.subspan(header, total - header);
  if (fragment || (protocol != kTcp && protocol != kUdp) || rest.size() < (protocol == kTcp ? 20U : 8U)) return result;
  if (protocol == kUdp && load<uint16_t>(&rest[6]) == 0) return result;  // [RFC 768]: there is none
  // [RFC 793] 3.1: addresses, protocol and length come first.
  std::array<uint8_t, 12> pseudo{};
  std::ranges::copy(packet.subspan(12, 8), pseudo.begin());
  pseudo[9] = protocol;
  store_be16(&pseudo[10], static_cast<uint16_t>(rest.size()));
  result.tcp_udp = true;
  result.tcp_udp_good = net::internet_sum(rest, net::internet_sum(pseudo)) == 0xffff;
  return result;
}

}  // namespace

// --- filters

bool E1000::is_tagged(net::Frame frame) const {
  return frame.size() >= kTagAt + 2 && load_be16(&frame[kTypeAt]) == state_.registers[VET];
}

// 9.3, 13.5.4.
bool E1000::passes_vlan_filter(net::Frame frame) const {
  const uint32_t control = state_.registers[RCTL];
  if ((control & kVlanFilter) == 0 || !is_tagged(frame)) return true;
  const uint32_t tag = load_be16(&frame[kTagAt]), vlan = tag & 0xfff;
  if ((control & kCfiFilter) != 0 && ((tag >> 12 & 1) != 0) != ((control & kCfi) != 0)) return false;
  return (state_.registers[VFTA + vlan / 32 * 4] >> (vlan % 32) & 1) != 0;
}

// 13.5.1: twelve bits of the address, of which RCTL.MO says where they begin.
bool E1000::in_hash_table(const net::MacAddress& to) const {
  constexpr unsigned kShifts[] = {4, 3, 2, 0};
  const unsigned shift = kShifts[state_.registers[RCTL] >> kHashShift & 3];
  const uint32_t hash = (to[4] | uint32_t{to[5]} << 8) >> shift & 0xfff;
  return (state_.registers[MTA + hash / 32 * 4] >> (hash % 32) & 1) != 0;
}

// 3.2.1. `exact`: not because of a hash or of a mode that takes all.
bool E1000::wanted(net::Frame frame, bool& exact) const {
  const E1000Registers& registers = state_.registers;
  const uint32_t control = registers[RCTL];
  if (!passes_vlan_filter(frame)) return false;
  if (load_be16(&frame[kTypeAt]) == kMacControlType && (control & kMacControl) == 0) return false;
  const net::MacAddress to = address_at(frame, 0), from = address_at(frame, to.size());
  exact = true;
  if (to == kBroadcastAddress && (control & kBroadcast) != 0) return true;
  for (uint32_t entry = 0; entry < kAddresses; ++entry) {
    const uint32_t high = registers[RAH + entry * 8];
    if ((high & kAddressValid) == 0) continue;
    const uint32_t select = high & kAddressSelect;
    if (registers.mac(entry) == to && select == 0) return true;
    if (registers.mac(entry) == from && select == kSourceAddress) return true;
  }
  exact = false;
  if ((to[0] & 1) == 0) return (control & kAllUnicast) != 0;
  return (control & kAllMulticast) != 0 || in_hash_table(to);
}

// --- to memory

Delivery E1000::receive(net::Frame frame) {
  const std::lock_guard lock(lock_);
  if (!running_) return Delivery::kFull;
  if ((state_.registers[RCTL] & kRxEnable) == 0 || !carries() || frame.size() < net::kHeaderBytes)
    return Delivery::kDropped;
  const Delivery delivery = take(frame);
  if (delivery == Delivery::kFull) return delivery;
  // 13.7: these count what is dropped, too.
  state_.registers.count(TPR);
  state_.registers.count_bytes(TORL, std::max(frame.size(), kLeastFrame) + kCrcBytes);
  return delivery;
}

Delivery E1000::take(net::Frame frame) {
  const uint32_t control = state_.registers[RCTL];
  bool exact = false;
  if (!wanted(frame, exact)) return Delivery::kDropped;
  // On its cable the frame was filled up, and had a CRC.
  const size_t on_wire = std::max(frame.size(), kLeastFrame) + kCrcBytes;
  const bool is_long = on_wire > kLongest;
  if ((is_long && (control & kLongPackets) == 0) || on_wire > kLongestLong) {
    state_.registers.count(ROC);
    return Delivery::kDropped;
  }
  // 9.2.2: with CTRL.VME the tag goes to the descriptor.
  const bool tagged = (state_.registers[CTRL] & kVlanMode) != 0 && is_tagged(frame);
  const uint16_t tag = tagged ? load_be16(&frame[kTagAt]) : uint16_t{0};
  const size_t crc = (control & kStripCrc) != 0 ? 0 : kCrcBytes;
  const Delivery room = find_buffers(on_wire - kCrcBytes - (tagged ? kTagBytes : 0) + crc, buffers_);
  if (room != Delivery::kTaken) return room;

  arrived_.assign(frame.begin(), frame.end());
  arrived_.resize(on_wire - kCrcBytes);
  const uint32_t check_sequence = crc != 0 ? crc_of(arrived_) : 0;
  if (tagged) arrived_.erase(arrived_.begin() + kTypeAt, arrived_.begin() + kTypeAt + kTagBytes);
  if (crc != 0) {
    arrived_.resize(arrived_.size() + kCrcBytes);
    store(&arrived_[arrived_.size() - kCrcBytes], check_sequence);
  }
  const Ring before = ring(RDBAL);
  fill(arrived_, buffers_, result_of(arrived_, exact, tag, tagged));
  const Ring after = ring(RDBAL);
  const auto free_in = [](const Ring& ring) { return (ring.tail + ring.count - ring.head) % ring.count; };
  received(frame, free_in(before), free_in(after), before.count);
  return Delivery::kTaken;
}

// 13.4.22: BSIZE, sixteen times as much with BSEX, where 0 is reserved.
uint32_t E1000::buffer_bytes() const {
  const uint32_t control = state_.registers[RCTL], size = control >> kSizeShift & 3;
  const uint32_t bytes = 2048u >> size;
  return (control & kBigBuffers) != 0 && size != 0 ? bytes * 16 : bytes;
}

// Those of the card between head and tail, until they have room for `bytes`. Ones without an address hold
// nothing, 3.2.5.2.
Delivery E1000::find_buffers(size_t bytes, std::vector<Buffer>& buffers) {
  buffers.clear();
  const Ring now = ring(RDBAL);
  // A tail or head beyond the ring is none that a driver has set up yet.
  if (now.head >= now.count || now.tail >= now.count) return Delivery::kFull;
  size_t room = 0;
  for (uint32_t index = now.head; index != now.tail && room < bytes; index = (index + 1) % now.count) {
    const auto descriptor =
        memory_.load<Descriptor>(state_.registers.pair(RDBAL) + uint64_t{index} * sizeof(Descriptor));
    if (!descriptor || buffers.size() == kMostBuffers) return overrun(), Delivery::kDropped;
    if (descriptor->address != 0) room += buffer_bytes();
    buffers.push_back({.index = index, .descriptor = *descriptor});
  }
  if (room >= bytes) return Delivery::kTaken;
  // More than all that the ring can offer is never there.
  if (buffers.size() + 1 == now.count) return overrun(), Delivery::kDropped;
  return Delivery::kFull;
}

void E1000::overrun() {
  state_.registers.count(MPC);
  state_.registers.count(RNBC);
  raise(kRxOverrun);
}

void E1000::fill(net::Frame frame, const std::vector<Buffer>& buffers, uint64_t last) {
  const uint64_t base = state_.registers.pair(RDBAL);
  for (const auto& [index, descriptor] : buffers) {
    const uint64_t at = base + uint64_t{index} * sizeof(Descriptor);
    if (descriptor.address == 0) {
      static_cast<void>(memory_.store(at + kStatusAt, static_cast<uint8_t>(descriptor.rest >> 32 | kDone)));
      continue;
    }
    const net::Frame part = frame.first(std::min<size_t>(frame.size(), buffer_bytes()));
    frame = frame.subspan(part.size());
    // A buffer that is not in RAM is a master abort: the data is lost, and the card goes on.
    static_cast<void>(memory_.write(descriptor.address, part));
    const uint64_t rest = frame.empty() ? last : uint64_t{kDone} << 32;
    static_cast<void>(memory_.store(at + kRestAt, rest | part.size()));
  }
  move_head(RDBAL, (buffers.back().index + 1) % ring(RDBAL).count);
}

// The last descriptor's second half but for the length. 3.2.3.
uint64_t E1000::result_of(net::Frame frame, bool exact, uint16_t tag, bool tagged) const {
  const uint32_t control = state_.registers[RXCSUM], start = control & kChecksumStart;
  uint8_t status = kDone | kEndOfPacket, errors = 0;
  if (!exact) status |= kInexact;
  if (tagged) status |= kIsVlan;
  const Checked checked = (control & (kCheckIp | kCheckTcpUdp)) != 0 ? check(frame) : Checked{};
  if (checked.ip && (control & kCheckIp) != 0) {
    status |= kIpChecked;
    if (!checked.ip_good) errors |= kIpError;
  }
  if (checked.tcp_udp && (control & kCheckTcpUdp) != 0) {
    status |= kTcpChecked;
    if (!checked.tcp_udp_good) errors |= kTcpError;
  }
  if ((status & (kIpChecked | kTcpChecked)) == 0) status |= kIgnoreChecksum;
  // 13.4.47: the packet checksum is the complement of the sum, a number in the host's order.
  const auto sum = static_cast<uint16_t>(~net::internet_sum(frame.subspan(std::min<size_t>(start, frame.size()))));
  return uint64_t{__builtin_bswap16(sum)} << 16 | uint64_t{status} << 32 | uint64_t{errors} << 40 | uint64_t{tag} << 48;
}

void E1000::received(net::Frame frame, uint32_t free_before, uint32_t free_after, uint32_t count) {
  E1000Registers& registers = state_.registers;
  const size_t bytes = std::max(frame.size(), kLeastFrame) + kCrcBytes;
  registers.count(GPRC);
  registers.count_bytes(GORCL, bytes);
  registers.count_length(PRC64, bytes);
  const net::MacAddress to = address_at(frame, 0);
  if ((to[0] & 1) != 0) registers.count(to == kBroadcastAddress ? BPRC : MPRC);
  // 13.4.17, 13.4.22: when the buffers that are left become as few as RDMTS says: a half, a quarter, an eighth.
  const uint32_t few = count >> (1 + std::min(registers[RCTL] >> kThresholdShift & 3, 2u));
  uint32_t causes = 0;
  if (free_before > few && free_after <= few) causes |= kRxLow;
  // 13.4.32.
  if (registers[RSRPD] != 0 && bytes <= registers[RSRPD]) causes |= kSmallPacket;
  if (causes != 0) raise(causes);
  delay_interrupt(kRxPacket, registers[RDTR], kRxAbsolute, registers[RADV], kRxTimer);
}

}  // namespace kite::devices

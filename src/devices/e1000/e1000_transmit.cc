// Sending: descriptors become packets, packets become frames. [8254x] 3.3 to 3.5.
#include <algorithm>

#include "devices/e1000/e1000.h"
#include "net/checksum.h"
#include "support/bits.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace e1000;
using net::Delivery;

namespace {

constexpr size_t kTypeAt = 12, kTagBytes = 4, kLeastFrame = 60, kCrcBytes = 4;
constexpr size_t kIpv4Header = 20, kIpv6Header = 40, kTcpHeader = 20;
constexpr uint8_t kFin = 1, kPush = 8;
constexpr size_t kIpv4LengthAt = 2, kIpv4IdAt = 4, kIpv6LengthAt = 4, kTcpSequenceAt = 4, kTcpFlagsAt = 13,
                 kUdpLengthAt = 4;

uint8_t command_of(uint64_t rest) { return static_cast<uint8_t>(rest >> 24); }
uint8_t options_of(uint64_t rest) { return static_cast<uint8_t>(rest >> 40); }  // of extended ones: POPTS

// The sum of [start, end] goes to `place`, on top of what is there; `end` 0 is the end. 3.6: what lies outside of the
// frame is not done. `zero` is what the sum 0 becomes.
void put_checksum(std::vector<uint8_t>& frame, size_t start, size_t end, size_t place, uint16_t zero) {
  const size_t stop = end == 0 ? frame.size() : std::min(end + 1, frame.size());
  if (start >= stop || place + 2 > frame.size()) return;
  const auto sum = static_cast<uint16_t>(~net::internet_sum(std::span(frame).subspan(start, stop - start)));
  store(&frame[place], sum != 0 ? sum : zero);
}

// Adds to a field in the frame's byte order, so far as it is in the frame's first `header` bytes.
void add_be16(std::vector<uint8_t>& frame, size_t at, size_t header, size_t more) {
  if (at + 2 <= header) store_be16(&frame[at], static_cast<uint16_t>(load_be16(&frame[at]) + more));
}
void put_be16(std::vector<uint8_t>& frame, size_t at, size_t header, size_t value) {
  if (at + 2 <= header) store_be16(&frame[at], static_cast<uint16_t>(value));
}

}  // namespace

// --- descriptors

bool E1000::may_transmit() const { return running_ && (state_.registers[TCTL] & kTxEnable) != 0 && carries(); }

void E1000::transmit() {
  transmit_asked_.store(false, std::memory_order_release);
  std::unique_lock lock(lock_);
  for (unsigned step = 0; step < kStepsATurn; ++step) {
    if (!may_transmit()) return;
    if (!state_.packet.whole) {
      if (!fetch()) return;
      continue;
    }
    if (!next_frame()) {
      const uint64_t last = state_.packet.last;
      if (segments()) state_.registers.count(TSCTC);
      state_.packet = {};
      retire(last);
      continue;
    }
    const uint32_t life = life_;
    const bool inside = loops();
    lock.unlock();
    const Delivery delivery = inside ? (static_cast<void>(receive(frame_)), Delivery::kTaken) : put_out();
    lock.lock();
    if (life != life_) continue;
    if (delivery == Delivery::kFull) return;  // writable() asks again
    sent(payload_);
  }
  lock.unlock();
  ask_to_transmit();
}

Delivery E1000::put_out() { return backend_ != nullptr ? backend_->send(frame_) : Delivery::kDropped; }

bool E1000::fetch() {
  const Ring now = ring(TDBAL);
  // A tail or head beyond the ring is none that a driver has set up yet.
  if (now.head >= now.count || now.tail >= now.count || now.head == now.tail) return false;
  const auto descriptor =
      memory_.load<Descriptor>(state_.registers.pair(TDBAL) + uint64_t{now.head} * sizeof(Descriptor));
  if (!descriptor) return false;
  const uint64_t rest = descriptor->rest, type = field(rest, 23, 20);
  if ((command_of(rest) & kExtended) == 0 || type == kDataType) {
    take_data(*descriptor);
    if (state_.packet.whole) return true;
  } else if (type == kContextType) {
    take_context(*descriptor);
  }
  retire(rest);
  return true;
}

// 3.3.6.
void E1000::take_context(const Descriptor& descriptor) {
  const auto& [low, rest] = descriptor;
  const Context taken{.ip_start = static_cast<uint8_t>(low),
                      .ip_place = static_cast<uint8_t>(low >> 8),
                      .l4_start = static_cast<uint8_t>(low >> 32),
                      .l4_place = static_cast<uint8_t>(low >> 40),
                      .command = command_of(rest),
                      .header = static_cast<uint8_t>(rest >> 40),
                      .ip_end = static_cast<uint16_t>(low >> 16),
                      .l4_end = static_cast<uint16_t>(low >> 48),
                      .mss = static_cast<uint16_t>(rest >> 48)};
  ((taken.command & kSegment) != 0 ? state_.segmented : state_.plain) = taken;
}

// 3.3.3, 3.3.7: what the first descriptor says of options holds for the packet, as the last one's command does.
void E1000::take_data(const Descriptor& descriptor) {
  Packet& packet = state_.packet;
  const auto& [address, rest] = descriptor;
  const bool extended = (command_of(rest) & kExtended) != 0;
  if (!packet.started) {
    packet.started = true;
    packet.first = rest;
  }
  const size_t bytes = extended ? field(rest, 19, 0) : field(rest, 15, 0), before = packet.bytes.size();
  if (bytes > kMostPacket - before) {
    packet.bad = true;
  } else if (!packet.bad) {
    packet.bytes.resize(before + bytes);
    packet.bad = !memory_.read(address, std::span(packet.bytes).subspan(before));
  }
  packet.whole = (command_of(rest) & kEnd) != 0;
  packet.last = rest;
}

// 3.3.3.2, 3.4.2, 3.4.3.
void E1000::retire(uint64_t rest) {
  const Ring now = ring(TDBAL);
  if (now.head >= now.count) return;  // software has changed the ring meanwhile
  E1000Registers& registers = state_.registers;
  const uint8_t command = command_of(rest);
  if ((command & kReport) != 0) {
    const uint64_t at = registers.pair(TDBAL) + uint64_t{now.head} * sizeof(Descriptor);
    static_cast<void>(memory_.store(at + kStatusAt, static_cast<uint8_t>(rest >> 32 | kDone)));
  }
  const uint32_t head = (now.head + 1) % now.count;
  move_head(TDBAL, head);
  // 13.4.43: TXDCTL.LWTHRESH counts in eights.
  const uint32_t left = (now.tail + now.count - head) % now.count, few = registers[TXDCTL] >> 25 << 3;
  uint32_t causes = 0;
  if (few != 0 && left + 1 == few) causes |= kTxLow;
  if (left == 0) causes |= kTxQueueEmpty;
  if (causes != 0) raise(causes);
  if ((command & kReport) == 0) return;
  const uint32_t delay = (command & kDelay) != 0 ? registers[TIDV] : 0;
  delay_interrupt(kTxPacket, delay, kTxAbsolute, registers[TADV], kTxWritten);
}

// --- frames

bool E1000::segments() const {
  const uint8_t first = command_of(state_.packet.first);
  return (first & kExtended) != 0 && (first & kSegment) != 0;
}

bool E1000::next_frame() {
  const Packet& packet = state_.packet;
  if (packet.bad || packet.bytes.size() < net::kHeaderBytes) return false;
  const uint8_t command = command_of(packet.last);
  if (segments()) {
    if (!next_segment()) return false;
  } else {
    if (packet.frames != 0) return false;
    frame_ = packet.bytes;
    payload_ = 0;
    // 3.3.3: the first of legacy descriptors has the checksum's start and place in itself.
    if ((command_of(packet.first) & kExtended) != 0)
      put_checksums(state_.plain);
    else if ((command & kInsertChecksum) != 0)
      put_checksum(frame_, field(packet.first, 47, 40), 0, field(packet.first, 23, 16), 0xffff);
  }
  // 9.2.1: CTRL.VME lets the packet's last descriptor bring a tag.
  if ((command & kInsertVlan) != 0 && (state_.registers[CTRL] & kVlanMode) != 0) {
    std::array<uint8_t, kTagBytes> tag{};
    store_be16(tag.data(), static_cast<uint16_t>(state_.registers[VET]));
    store_be16(tag.data() + 2, static_cast<uint16_t>(packet.last >> 48));
    frame_.insert(frame_.begin() + kTypeAt, tag.begin(), tag.end());
  }
  if ((state_.registers[TCTL] & kPadShort) != 0 && frame_.size() < kLeastFrame) frame_.resize(kLeastFrame);
  return true;
}

// 3.5: the header, and as much of what follows as the context's MSS says. A header that the packet does not have, or a
// size of 0, can send nothing.
bool E1000::next_segment() {
  const Packet& packet = state_.packet;
  const Context& how = state_.segmented;
  const size_t header = how.header;
  if (header < net::kHeaderBytes || header > packet.bytes.size() || how.mss == 0) return false;
  const size_t payload = packet.bytes.size() - header;
  if (packet.frames != 0 && packet.sent >= payload) return false;
  payload_ = std::min<size_t>(payload - packet.sent, how.mss);
  const auto first = packet.bytes.begin() + static_cast<ptrdiff_t>(header + packet.sent);
  frame_.assign(packet.bytes.begin(), packet.bytes.begin() + static_cast<ptrdiff_t>(header));
  frame_.insert(frame_.end(), first, first + static_cast<ptrdiff_t>(payload_));
  finish_headers(how, payload_, packet.sent + payload_ >= payload);
  put_checksums(how);
  return true;
}

// 3.5.9. What the context says of IP and TCP is all that the card knows of them.
void E1000::finish_headers(const Context& how, size_t payload, bool last) {
  const Packet& packet = state_.packet;
  const size_t header = how.header, length = header + payload, ip = how.ip_start, l4 = how.l4_start;
  if ((how.command & kIsIpv4) != 0) {
    if (ip + kIpv4Header <= header) {
      put_be16(frame_, ip + kIpv4LengthAt, header, length - ip);
      add_be16(frame_, ip + kIpv4IdAt, header, packet.frames);
    }
  } else if (ip + kIpv6Header <= header) {
    // [RFC 8200] 3: without the header itself, whatever the manual's formula says.
    put_be16(frame_, ip + kIpv6LengthAt, header, length - ip - kIpv6Header);
  }
  if ((how.command & kIsTcp) == 0) {
    put_be16(frame_, l4 + kUdpLengthAt, header, length - l4);
  } else if (l4 + kTcpHeader <= header) {
    uint8_t* const tcp = &frame_[l4];
    store_be32(tcp + kTcpSequenceAt, load_be32(tcp + kTcpSequenceAt) + packet.sent);
    if (!last) tcp[kTcpFlagsAt] &= static_cast<uint8_t>(~(kFin | kPush));
  }
  // 3.5.8: software's sum of the pseudo header has no length, which is another one in the last segment.
  const size_t place = how.l4_place;
  if ((options_of(packet.first) & kInsertTcpUdp) == 0 || place + 2 > header || l4 > length) return;
  std::array<uint8_t, 2> more{};
  store_be16(more.data(), static_cast<uint16_t>(length - l4));
  store(&frame_[place], net::internet_sum(more, load<uint16_t>(&frame_[place])));
}

// 3.5.8, 3.6.
void E1000::put_checksums(const Context& how) {
  const uint8_t options = options_of(state_.packet.first);
  if ((options & kInsertIp) != 0) put_checksum(frame_, how.ip_start, how.ip_end, how.ip_place, 0);
  if ((options & kInsertTcpUdp) != 0) put_checksum(frame_, how.l4_start, how.l4_end, how.l4_place, 0xffff);
}

void E1000::sent(size_t payload) {
  E1000Registers& registers = state_.registers;
  state_.packet.sent += static_cast<uint32_t>(payload);
  ++state_.packet.frames;
  const size_t bytes = frame_.size() + kCrcBytes;
  registers.count(TPT);
  registers.count(GPTC);
  registers.count_bytes(TOTL, bytes);
  registers.count_bytes(GOTCL, bytes);
  registers.count_length(PTC64, bytes);
  const auto to = load<net::MacAddress>(frame_.data());
  if ((to[0] & 1) != 0)
    registers.count(std::ranges::all_of(to, [](uint8_t byte) { return byte == 0xff; }) ? BPTC : MPTC);
}

}  // namespace kite::devices

// For the tests of this folder: a card with a very small guest behind it, which speaks just enough ARP, DHCP, ICMP and
// TCP for one conversation at a time.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/net_backend.h"
#include "net/user_options.h"
#include "support/bytes.h"

namespace kite::net::testing {

using Bytes = std::vector<uint8_t>;

inline std::unique_ptr<Executor> make_executor() { return std::move(*Executor::create("net-test")); }

// Runs the loop until `done`; fails the test when nothing leads there.
inline void run_until(Executor& executor, const std::function<bool()>& done) {
  for (int pass = 0; pass < 2000 && !done(); ++pass) executor.run_once(5'000'000);
  ASSERT_TRUE(done());
}

// A card that keeps what it receives, as long as there is room.
class TestCard : public NetClient {
 public:
  Delivery receive(Frame frame) override {
    if (drops) return Delivery::kDropped;
    if (frames.size() >= room) return Delivery::kFull;
    frames.emplace_back(frame.begin(), frame.end());
    return Delivery::kTaken;
  }
  void link_changed() override { ++link_changes; }
  void backend_gone() override { gone = true; }
  [[nodiscard]] Description describe() const override { return {.name = "card", .model = "test", .mac = kMac}; }

  static constexpr MacAddress kMac{0x52, 0x54, 0, 0x12, 0x34, 0x56};
  std::deque<Bytes> frames;
  size_t room = SIZE_MAX;
  bool drops = false, gone = false;
  int link_changes = 0;
};

inline void put16(Bytes& to, unsigned value) {
  to.push_back(static_cast<uint8_t>(value >> 8));
  to.push_back(static_cast<uint8_t>(value));
}
inline void put32(Bytes& to, uint32_t value) {
  put16(to, value >> 16);
  put16(to, value & 0xffff);
}
inline void append(Bytes& to, const auto& bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

// [RFC 1071]
inline uint16_t internet_sum(const Bytes& bytes) {
  uint32_t sum = 0;
  for (size_t at = 0; at < bytes.size(); ++at) sum += uint32_t{bytes[at]} << (at % 2 == 0 ? 8 : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

class TestGuest {
 public:
  static constexpr MacAddress kEveryone{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  static constexpr Ipv4 kGateway = 0x0a000202, kOwn = 0x0a00020f;
  static constexpr uint8_t kIcmp = 1, kTcp = 6, kUdp = 17;
  static constexpr uint8_t kFin = 1, kSyn = 2, kReset = 4, kPush = 8, kAck = 16;

  TestGuest(Executor& executor, NetBackend& backend) : executor_(executor), backend_(backend) {
    backend_.set_client(&card);
  }
  ~TestGuest() { backend_.set_client(nullptr); }

  void send_ethernet(const MacAddress& to, unsigned type, const Bytes& content) {
    Bytes frame;
    append(frame, to);
    append(frame, TestCard::kMac);
    put16(frame, type);
    append(frame, content);
    backend_.send(frame);
  }
  void send_arp(unsigned operation, const MacAddress& to_mac, Ipv4 to) {
    Bytes packet{0, 1, 8, 0, 6, 4};
    put16(packet, operation);
    append(packet, TestCard::kMac);
    put32(packet, kOwn);
    append(packet, to_mac);
    put32(packet, to);
    send_ethernet(operation == 1 ? kEveryone : to_mac, 0x806, packet);
  }
  void send_ip(uint8_t protocol, Ipv4 from, Ipv4 to, const Bytes& content) {
    Bytes header{0x45, 0};
    put16(header, static_cast<unsigned>(20 + content.size()));
    append(header, Bytes{0, 1, 0, 0, 64, protocol, 0, 0});
    put32(header, from);
    put32(header, to);
    store_be16(&header[10], internet_sum(header));
    append(header, content);
    send_ethernet(gateway_mac, 0x800, header);
  }
  void send_tcp(Ipv4 to, uint16_t to_port, uint16_t own_port, uint8_t flags, std::string_view text = {}) {
    Bytes segment;
    put16(segment, own_port);
    put16(segment, to_port);
    put32(segment, sequence);
    put32(segment, (flags & kAck) != 0 ? acknowledged : 0);
    append(segment, Bytes{0x50, flags, 0xff, 0xff, 0, 0, 0, 0});
    append(segment, text);
    Bytes pseudo;
    put32(pseudo, kOwn);
    put32(pseudo, to);
    put16(pseudo, kTcp);
    put16(pseudo, static_cast<unsigned>(segment.size()));
    append(pseudo, segment);
    store_be16(&segment[16], internet_sum(pseudo));
    send_ip(kTcp, kOwn, to, segment);
    sequence += static_cast<uint32_t>(text.size()) + ((flags & (kSyn | kFin)) != 0 ? 1 : 0);
  }

  struct Segment {
    Ipv4 from = 0;
    uint16_t from_port = 0, to_port = 0;
    uint32_t sequence = 0;
    uint8_t flags = 0;
    std::string text;
  };
  // Waits for a frame of this kind, and takes it; answers what is behind the Ethernet header. ARP is answered
  // meanwhile.
  Bytes take(const std::function<bool(const Bytes& packet, unsigned type)>& wanted) {
    Bytes found;
    run_until(executor_, [&] {
      while (found.empty() && !card.frames.empty()) {
        const Bytes frame = std::move(card.frames.front());
        card.frames.pop_front();
        const unsigned type = load_be16(&frame[12]);
        const Bytes packet(frame.begin() + kHeaderBytes, frame.end());
        if (type == 0x806 && load_be16(&packet[6]) == 1) answer_arp(packet);
        if (wanted(packet, type)) found = packet;
      }
      return !found.empty();
    });
    return found;
  }
  Bytes take_ip(uint8_t protocol) {
    return take([&](const Bytes& packet, unsigned type) { return type == 0x800 && packet[9] == protocol; });
  }
  Segment take_tcp() {
    const Bytes packet = take_ip(kTcp);
    if (packet.empty()) return {};
    const size_t at = (packet[0] & 15u) * 4u, text = at + (packet[at + 12] >> 4) * 4u, end = load_be16(&packet[2]);
    return {.from = load_be32(&packet[12]),
            .from_port = load_be16(&packet[at]),
            .to_port = load_be16(&packet[at + 2]),
            .sequence = load_be32(&packet[at + 4]),
            .flags = packet[at + 13],
            .text = std::string(packet.begin() + static_cast<ptrdiff_t>(text),
                                packet.begin() + static_cast<ptrdiff_t>(end))};
  }
  // Asks for the gateway's address.
  void find_gateway() {
    send_arp(1, {}, kGateway);
    const Bytes answer =
        take([](const Bytes& packet, unsigned type) { return type == 0x806 && load_be16(&packet[6]) == 2; });
    if (!answer.empty()) std::copy_n(answer.begin() + 8, gateway_mac.size(), gateway_mac.begin());
  }

  TestCard card;
  MacAddress gateway_mac = kEveryone;
  uint32_t sequence = 1000, acknowledged = 0;

 private:
  void answer_arp(const Bytes& packet) {
    if (load_be32(&packet[24]) != kOwn) return;
    MacAddress asker;
    std::copy_n(packet.begin() + 8, asker.size(), asker.begin());
    gateway_mac = asker;
    send_arp(2, asker, load_be32(&packet[14]));
  }

  Executor& executor_;
  NetBackend& backend_;
};

}  // namespace kite::net::testing

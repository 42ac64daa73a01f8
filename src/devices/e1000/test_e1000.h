// An e1000 in a machine of its own, and a driver that plays the guest's side.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "bus/pci.h"
#include "devices/e1000/e1000.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"
#include "net/checksum.h"
#include "net/net_backend.h"

namespace kite::testing {

class E1000Backend final : public net::NetBackend {
 public:
  explicit E1000Backend(Executor& executor) : NetBackend("n0", "test", executor) {}
  [[nodiscard]] std::string info() const override { return ""; }
  net::Delivery do_send(net::Frame frame) override {
    if (full) return net::Delivery::kFull;
    sent.emplace_back(frame.begin(), frame.end());
    return net::Delivery::kTaken;
  }
  using NetBackend::backed_up;
  using NetBackend::deliver;

  std::vector<std::vector<uint8_t>> sent;
  bool full = false;
};

inline constexpr net::MacAddress kCardMac{0x52, 0x54, 0x00, 0xab, 0xcd, 0xef};

struct E1000Machine {
  static constexpr uint64_t kRam = 4 << 20, kBase = 0xe0000000, kPorts = 0xc000;
  static constexpr uint8_t kSlot = 4;
  static constexpr uint64_t kReceiveRing = 0x10000, kTransmitRing = 0x20000, kBuffers = 0x100000, kData = 0x200000;
  static constexpr uint32_t kRing = 8;  // descriptors; RDLEN and TDLEN count in eights

  explicit E1000Machine(bool wired = true) : executor(*Executor::create("test")), backend(*executor) {
    auto block = RamBlock::create("ram", kRam);
    EXPECT_TRUE(block);
    ram = *block;
    memory.root().add(0, Region::ram("ram", ram));
    auto made = devices::E1000::create("nic", {.mac = kCardMac, .backend = wired ? &backend : nullptr, .rom = {}},
                                       {.memory = guest_memory, .clock = clock, .home = *executor});
    EXPECT_TRUE(made);
    card = std::move(*made);
    EXPECT_TRUE(bus.attach(*card, kSlot, 0));
    card->reset();
    card->config_write(0x10, 4, kBase);
    card->config_write(0x14, 4, kPorts);
    card->config_write(bus::pci::kCommand, 2, 7);
    card->start();
    settle();
  }

  uint32_t read(uint32_t offset) { return memory.in(kBase + offset, 4); }
  void write(uint32_t offset, uint64_t value) { memory.out(kBase + offset, value & 0xffffffff, 4); }
  void settle() {
    memory.commit();
    for (int i = 0; i < 40; ++i) executor->run_once(0);
  }
  [[nodiscard]] uint8_t* host(uint64_t address) const { return ram->host() + address; }
  template <class T>
  void put(uint64_t address, T value) const {
    kite::store(host(address), value);
  }
  template <class T>
  [[nodiscard]] T get(uint64_t address) const {
    return kite::load<T>(host(address));
  }
  [[nodiscard]] bool interrupts() { return lines.level(bus::PciBus::pirq_of(kSlot, 1)); }

  void set_mac() {
    write(devices::e1000::RAL, kite::load<uint32_t>(kCardMac.data()));
    write(devices::e1000::RAH, kite::load<uint16_t>(&kCardMac[4]) | devices::e1000::kAddressValid);
  }
  // Both rings empty, the card's own frames and broadcasts wanted, CRCs stripped.
  void set_up(uint32_t receive_control = devices::e1000::kBroadcast | devices::e1000::kStripCrc) {
    using namespace devices::e1000;
    for (const uint32_t base : {uint32_t{RDBAL}, uint32_t{TDBAL}}) {
      write(base, base == RDBAL ? kReceiveRing : kTransmitRing);
      write(base + 4, 0);
      write(base + 8, kRing * sizeof(Descriptor));
      write(base + (RDH - RDBAL), 0);
      write(base + (RDT - RDBAL), 0);
    }
    write(RCTL, receive_control | kRxEnable);
    write(TCTL, kTxEnable | kPadShort);
    settle();
  }
  // Buffer `index` of the receive ring; the tail goes behind it.
  void offer(uint32_t index, std::optional<uint64_t> address = {}) {
    const uint64_t at = kReceiveRing + index * 16;
    put(at, address.value_or(kBuffers + index * 0x1000));
    put(at + 8, uint64_t{0});
    write(devices::e1000::RDT, (index + 1) % kRing);
    settle();
  }
  [[nodiscard]] uint64_t result(uint32_t index) const { return get<uint64_t>(kReceiveRing + index * 16 + 8); }
  [[nodiscard]] uint8_t status(uint32_t index) const { return static_cast<uint8_t>(result(index) >> 32); }
  [[nodiscard]] uint16_t length(uint32_t index) const { return static_cast<uint16_t>(result(index)); }

  // Puts a descriptor at the tail of the transmit ring, which stays where it is until go().
  void add(uint64_t address, uint64_t rest) {
    put(kTransmitRing + tail * 16, address);
    put(kTransmitRing + tail * 16 + 8, rest);
    tail = (tail + 1) % kRing;
  }
  void go() {
    write(devices::e1000::TDT, tail);
    settle();
  }
  [[nodiscard]] bool done(uint32_t index) const { return (get<uint8_t>(kTransmitRing + index * 16 + 12) & 1) != 0; }
  // Legacy, in one descriptor.
  void send(const std::vector<uint8_t>& frame, uint64_t command = 0, uint64_t more = 0) {
    using namespace devices::e1000;
    std::memcpy(host(kData), frame.data(), frame.size());
    add(kData, frame.size() | (command | kEnd | kReport) << 24 | more);
    go();
  }

  static std::vector<uint8_t> frame_to(const net::MacAddress& mac, size_t bytes = 60) {
    std::vector<uint8_t> frame(bytes);
    std::ranges::copy(mac, frame.begin());
    for (size_t at = 12; at < bytes; ++at) frame[at] = static_cast<uint8_t>(at * 7);
    return frame;
  }
  // Whether a frame reaches the guest: one buffer, as the first of an empty ring.
  bool receives(const std::vector<uint8_t>& frame) {
    write(devices::e1000::RDH, 0);
    offer(0);
    backend.deliver(frame);
    settle();
    return (status(0) & devices::e1000::kDone) != 0;
  }

  ManualClock clock;
  TestSpace memory{uint64_t{1} << 32};
  TestSpace ports;
  std::shared_ptr<RamBlock> ram;
  GuestMemory guest_memory{memory.space()};
  FakeLines lines;
  bus::PciBus bus{memory.root(), ports.root(), lines};
  std::unique_ptr<Executor> executor;
  E1000Backend backend;
  std::unique_ptr<devices::E1000> card;
  uint32_t tail = 0;
};

inline uint16_t phy_read(E1000Machine& machine, uint32_t number) {
  machine.write(devices::e1000::MDIC,
                number << 16 | devices::e1000::kPhyAddress << 21 | devices::e1000::kMdiRead << 26);
  EXPECT_EQ(machine.read(devices::e1000::MDIC) & (devices::e1000::kMdiReady | devices::e1000::kMdiError),
            devices::e1000::kMdiReady);
  return static_cast<uint16_t>(machine.read(devices::e1000::MDIC));
}
inline void phy_write(E1000Machine& machine, uint32_t number, uint32_t value) {
  machine.write(devices::e1000::MDIC,
                number << 16 | devices::e1000::kPhyAddress << 21 | devices::e1000::kMdiWrite << 26 | value);
}

// An IPv4 packet with good checksums.
inline std::vector<uint8_t> ip_frame(uint8_t protocol, size_t payload) {
  const size_t l4 = protocol == 6 ? 20 : 8;
  auto frame = E1000Machine::frame_to(kCardMac, 14 + 20 + l4 + payload);
  std::fill(frame.begin() + 12, frame.begin() + static_cast<ptrdiff_t>(34 + l4), uint8_t{0});
  frame[12] = 8;
  uint8_t* const ip = &frame[14];
  ip[0] = 0x45;
  store_be16(ip + 2, static_cast<uint16_t>(20 + l4 + payload));
  store_be16(ip + 4, 0xfffe);
  ip[8] = 64;
  ip[9] = protocol;
  store_be32(ip + 12, 0x0a000202);
  store_be32(ip + 16, 0x0a00020f);
  store(ip + 10, static_cast<uint16_t>(~net::internet_sum(std::span(ip, 20))));
  if (protocol == 6) {
    store_be32(ip + 24, 0xfffffff0);
    ip[20 + 12] = 0x50;
    ip[20 + 13] = 0x19;
  } else {
    store_be16(ip + 24, static_cast<uint16_t>(8 + payload));
  }
  const size_t place = protocol == 6 ? 16 : 6;
  std::vector<uint8_t> summed{ip[12], ip[13], ip[14], ip[15], ip[16], ip[17], ip[18], ip[19], 0, protocol, 0, 0};
  store_be16(&summed[10], static_cast<uint16_t>(l4 + payload));
  summed.insert(summed.end(), ip + 20, ip + 20 + l4 + payload);
  store(ip + 20 + place, static_cast<uint16_t>(~net::internet_sum(summed)));
  return frame;
}

// A context for an IPv4 frame of ip_frame().
struct TestContext {
  bool tcp = true, segment = false;
  uint8_t header = 0;
  uint16_t mss = 0;
  uint32_t payload = 0;
  uint8_t l4 = 34;
};
inline void add_context(E1000Machine& machine, const TestContext& context) {
  const uint8_t place = static_cast<uint8_t>(context.l4 + (context.tcp ? 16 : 6));
  const uint64_t low = 14 | 24u << 8 | 33u << 16 | uint64_t{context.l4} << 32 | uint64_t{place} << 40;
  const uint64_t command = devices::e1000::kExtended | devices::e1000::kIsIpv4 |
                           (context.tcp ? devices::e1000::kIsTcp : 0) |
                           (context.segment ? devices::e1000::kSegment : 0);
  machine.add(low, context.payload | command << 24 | uint64_t{context.header} << 40 | uint64_t{context.mss} << 48);
}
inline void add_data(E1000Machine& machine, const std::vector<uint8_t>& bytes, uint64_t command, uint64_t at = 0) {
  std::memcpy(machine.host(E1000Machine::kData + at), bytes.data(), bytes.size());
  machine.add(E1000Machine::kData + at,
              bytes.size() | devices::e1000::kDataType << 20 |
                  (command | devices::e1000::kExtended | devices::e1000::kEnd | devices::e1000::kReport) << 24 |
                  uint64_t{devices::e1000::kInsertIp | devices::e1000::kInsertTcpUdp} << 40);
}

}  // namespace kite::testing

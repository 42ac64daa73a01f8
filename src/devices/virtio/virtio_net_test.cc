#include "devices/virtio/virtio_net.h"

#include "devices/virtio/test_virtio.h"
#include "devices/virtio/virtio_net_regs.h"
#include "net/net_backend.h"

namespace kite::devices {
namespace {

using namespace virtio_net;
using namespace virtio;
using namespace testing;  // NOLINT: the machine and the driver
using net::Delivery;

constexpr uint64_t kReceiveRing = 0x10000, kTransmitRing = 0x20000, kControlRing = 0x30000, kData = 0x100000,
                   kCommands = 0x200000;
constexpr uint16_t kRingSize = 8;
constexpr net::MacAddress kMacOfCard{0x52, 0x54, 0, 0x12, 0x34, 0x56};
constexpr uint64_t kAll = kChecksum | kGuestChecksum | kMergeable | kStatus | kControl | kControlReceive |
                          kControlReceiveExtra | kControlVlan | kControlMac;

class TestBackend final : public net::NetBackend {
 public:
  explicit TestBackend(Executor& executor) : NetBackend("n0", "test", executor) {}
  [[nodiscard]] std::string info() const override { return ""; }
  [[nodiscard]] bool verified() const override { return true; }
  Delivery do_send(net::Frame frame) override {
    if (full) return Delivery::kFull;
    sent.emplace_back(frame.begin(), frame.end());
    return Delivery::kTaken;
  }
  using NetBackend::backed_up;
  using NetBackend::deliver;

  std::vector<std::vector<uint8_t>> sent;
  bool full = false;
};

struct NetMachine : VirtioMachine {
  explicit NetMachine(uint64_t features = kAll, VirtioDevice::Options options = {.packed = true}) : backend(*executor) {
    const VirtioPci::Config transport{.vectors = 4, .legacy_device_id = kLegacyDeviceId, .class_code = kClass};
    const VirtioNet::Config config{.name = "net",
                                   .model = "virtio-net-pci",
                                   .mac = kMacOfCard,
                                   .backend = &backend,
                                   .features = features,
                                   .mtu = 1400};
    function = std::make_unique<VirtioPci>("net", transport,
                                           std::make_unique<VirtioNet>(config, guest_memory, *executor, options));
    attach(*function);
  }
  ~NetMachine() {
    function->stop();
    settle();
    function.reset();
  }
  void set_up(bool packed = false, uint64_t features = kAll) {
    ASSERT_TRUE(driver.negotiate(kVersion1 | (packed ? kRingPacked : 0) | features));
    receive.emplace(*this, kReceiveRing, kRingSize, packed);
    transmit.emplace(*this, kTransmitRing, kRingSize, packed);
    control.emplace(*this, kControlRing, kRingSize, packed);
    driver.set_queue(kReceiveQueue, *receive, 0);
    driver.set_queue(kTransmitQueue, *transmit, 1);
    if ((features & kControl) != 0) driver.set_queue(kControlQueue, *control, 2);
    driver.ready();
    settle();
  }
  void offer(uint64_t at, uint32_t bytes) {
    receive->add({{.address = kData + at, .bytes = bytes, .write = true}});
    driver.kick(kReceiveQueue);
    settle();
  }
  // One frame of the guest's, behind a header of zeroes but for what `header` puts there.
  void send(const std::vector<uint8_t>& frame, const std::map<unsigned, uint16_t>& header = {}) {
    std::memset(host(kData), 0, kHeader);
    for (const auto& [at, value] : header) put(kData + at, value);
    std::memcpy(host(kData + kHeader), frame.data(), frame.size());
    transmit->add({{.address = kData, .bytes = static_cast<uint32_t>(kHeader + frame.size())}});
    driver.kick(kTransmitQueue);
    settle();
  }
  // Answers the device's byte; 0xee when there is none.
  uint8_t command(const std::vector<uint8_t>& bytes) {
    std::memcpy(host(kCommands), bytes.data(), bytes.size());
    put(kCommands + 0x1000, uint8_t{0xee});
    control->add({{.address = kCommands, .bytes = static_cast<uint32_t>(bytes.size())},
                  {.address = kCommands + 0x1000, .bytes = 1, .write = true}});
    driver.kick(kControlQueue);
    settle();
    control->take();
    return get<uint8_t>(kCommands + 0x1000);
  }
  [[nodiscard]] bool broken() { return (driver.status() & kNeedsReset) != 0; }

  static std::vector<uint8_t> frame_to(const net::MacAddress& mac, size_t bytes = 60) {
    std::vector<uint8_t> frame(bytes);
    std::ranges::copy(mac, frame.begin());
    for (size_t at = 14; at < bytes; ++at) frame[at] = static_cast<uint8_t>(at * 7);
    return frame;
  }
  // Whether a frame reaches the guest.
  bool receives(const std::vector<uint8_t>& frame) {
    offer(0, 2048);
    backend.deliver(frame);
    settle();
    const bool got = receive->take().has_value();
    if (!got) {  // the buffer is used up, so that the next one starts anew
      backend.deliver(frame_to(kMacOfCard));
      EXPECT_TRUE(receive->take());
    }
    return got;
  }

  TestBackend backend;
  std::unique_ptr<VirtioPci> function;
  TestDriver driver{*this};
  std::optional<TestRing> receive, transmit, control;
};

class VirtioNetRings : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Rings, VirtioNetRings, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Packed" : "Split"; });

TEST_P(VirtioNetRings, FramesAreSent) {
  NetMachine machine;
  machine.set_up(GetParam());
  const auto frame = NetMachine::frame_to({1, 2, 3, 4, 5, 6}, 1514);
  for (int i = 0; i < 30; ++i) {
    machine.send(frame);
    const auto used = machine.transmit->take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->written, 0U);
  }
  ASSERT_EQ(machine.backend.sent.size(), 30U);
  EXPECT_EQ(machine.backend.sent.back(), frame);
}

TEST_P(VirtioNetRings, FramesAreReceived) {
  NetMachine machine;
  machine.driver.use_msix(*machine.function, 4);
  machine.set_up(GetParam());
  for (int i = 0; i < 30; ++i) {
    machine.offer(0, 2048);
    const auto frame = NetMachine::frame_to(kMacOfCard, 100 + static_cast<size_t>(i));
    machine.backend.deliver(frame);
    machine.settle();
    const auto used = machine.receive->take();
    ASSERT_TRUE(used);
    ASSERT_EQ(used->written, kHeader + frame.size());
    EXPECT_EQ(machine.get<uint8_t>(kData), kDataValid);
    EXPECT_EQ(machine.get<uint16_t>(kData + kBuffersAt), 1U);
    EXPECT_EQ(std::memcmp(machine.host(kData + kHeader), frame.data(), frame.size()), 0);
  }
  EXPECT_EQ(machine.messages.sent[1], 30);
}

TEST_P(VirtioNetRings, ALongFrameTakesSeveralBuffers) {
  NetMachine machine;
  machine.set_up(GetParam());
  for (int round = 0; round < 7; ++round) {
    for (unsigned i = 0; i < 3; ++i) machine.offer(i * 512, 512);
    const auto frame = NetMachine::frame_to(kMacOfCard, 1300);
    machine.backend.deliver(frame);
    machine.settle();
    EXPECT_EQ(machine.get<uint16_t>(kData + kBuffersAt), 3U);
    EXPECT_EQ(std::memcmp(machine.host(kData + kHeader), frame.data(), frame.size()), 0);
    for (const uint32_t written : {512U, 512U, 1300 + kHeader - 1024U}) {
      const auto used = machine.receive->take();
      ASSERT_TRUE(used);
      EXPECT_EQ(used->written, written);
    }
  }
}

TEST_P(VirtioNetRings, FramesWaitForBuffers) {
  NetMachine machine;
  machine.set_up(GetParam());
  machine.offer(0, 64);  // not enough for the frame: it is held
  const auto frame = NetMachine::frame_to(kMacOfCard, 200);
  machine.backend.deliver(frame);
  machine.settle();
  EXPECT_TRUE(machine.backend.backed_up());
  EXPECT_FALSE(machine.receive->take());
  machine.offer(64, 2048);
  EXPECT_FALSE(machine.backend.backed_up());
  EXPECT_TRUE(machine.receive->take());
  EXPECT_TRUE(machine.receive->take());
  EXPECT_EQ(std::memcmp(machine.host(kData + kHeader), frame.data(), frame.size()), 0);
}

// A long frame had them all, and is dropped before there are enough.
TEST_P(VirtioNetRings, AFrameTakesNoMoreOfTheHeldBuffersThanItNeeds) {
  NetMachine machine;
  machine.set_up(GetParam());
  for (unsigned i = 0; i < 2; ++i) machine.offer(i * 128, 128);
  machine.backend.deliver(NetMachine::frame_to(kMacOfCard, 600));
  machine.settle();
  EXPECT_TRUE(machine.backend.backed_up());
  for (const bool up : {false, true}) machine.backend.set_link(net::NetBackend::End::kHost, up);
  for (unsigned i = 0; i < 2; ++i) {
    machine.backend.deliver(NetMachine::frame_to(kMacOfCard, 60));
    machine.settle();
    EXPECT_EQ(machine.get<uint16_t>(kData + i * 128 + kBuffersAt), 1U);
    const auto used = machine.receive->take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->written, 60U + kHeader);
    EXPECT_FALSE(machine.receive->take());
  }
}

TEST_P(VirtioNetRings, SendingWaitsForTheBackend) {
  NetMachine machine;
  machine.set_up(GetParam());
  machine.backend.full = true;
  machine.send(NetMachine::frame_to({2}));
  EXPECT_FALSE(machine.transmit->take());
  machine.backend.full = false;
  machine.backend.client()->writable();
  machine.settle();
  EXPECT_TRUE(machine.transmit->take());
  EXPECT_EQ(machine.backend.sent.size(), 1U);
}

TEST_P(VirtioNetRings, AResetTakesBackWhatIsHeld) {
  NetMachine machine;
  machine.set_up(GetParam());
  machine.offer(0, 64);
  machine.backend.deliver(NetMachine::frame_to(kMacOfCard, 200));
  machine.backend.full = true;
  machine.send(NetMachine::frame_to({2}));
  machine.driver.set_status(0);
  machine.settle();
  EXPECT_EQ(machine.driver.status(), 0);
  machine.backend.full = false;
  machine.set_up(GetParam());
  machine.settle();
  EXPECT_TRUE(machine.backend.sent.empty());
  EXPECT_EQ(machine.get<uint8_t>(kData + 12), 0x02);  // nothing was written where the old buffer was
}

TEST_P(VirtioNetRings, AQueueCanBeResetAlone) {
  NetMachine machine;
  machine.set_up(GetParam(), kAll | kRingReset);
  machine.backend.full = true;
  machine.send(NetMachine::frame_to({2}));
  machine.driver.write(0x16, kTransmitQueue, 2);
  machine.driver.write(0x3a, 1, 2);
  machine.settle();
  EXPECT_EQ(machine.driver.read(0x3a, 2), 0U);
  machine.backend.full = false;
  machine.transmit.emplace(machine, kTransmitRing, kRingSize, GetParam());
  machine.driver.set_queue(kTransmitQueue, *machine.transmit, 1);
  machine.send(NetMachine::frame_to({3}));
  ASSERT_EQ(machine.backend.sent.size(), 1U);
  EXPECT_EQ(machine.backend.sent[0][0], 3);
}

TEST_P(VirtioNetRings, WhatIsHeldTravelsInTheState) {
  NetMachine source;
  source.set_up(GetParam());
  EXPECT_EQ(source.command({kClassReceive, 0, 0}), kAckOk);
  EXPECT_EQ(source.command({kClassVlan, kVlanAdd, 7, 0}), kAckOk);
  source.offer(0x4000, 64);
  source.backend.deliver(NetMachine::frame_to(kMacOfCard, 200));
  source.backend.full = true;
  source.send(NetMachine::frame_to({2}));
  NetMachine target;
  move_state(source, target);
  ASSERT_EQ(target.backend.sent.size(), 1U);
  target.backend.deliver(NetMachine::frame_to({9}));
  target.backend.deliver(NetMachine::frame_to(kMacOfCard, 40));
  target.settle();
  EXPECT_EQ(target.get<uint8_t>(kData + 0x4000 + kHeader), 0x52);  // into the buffer that was held
}

// --- configuration

TEST(VirtioNetTest, ConfigurationTellsOfCardAndLink) {
  NetMachine machine;
  machine.driver.use_msix(*machine.function, 4);
  machine.set_up();
  machine.driver.write(0x10, 3, 2);
  for (unsigned i = 0; i < 6; ++i) EXPECT_EQ(machine.driver.config(i, 1), kMacOfCard[i]);
  EXPECT_EQ(machine.driver.config(kStatusAt, 2), kLinkUp);
  EXPECT_EQ(machine.driver.config(kMtuAt, 2), 1400U);
  machine.backend.set_link(net::NetBackend::End::kHost, false);
  machine.settle();
  EXPECT_EQ(machine.driver.config(kStatusAt, 2), 0U);
  EXPECT_EQ(machine.messages.sent[4], 1);
  machine.send(NetMachine::frame_to({2}));
  EXPECT_TRUE(machine.transmit->take());
  EXPECT_TRUE(machine.backend.sent.empty());
}

TEST(VirtioNetTest, WithoutADriverFramesAreDropped) {
  NetMachine machine;
  machine.backend.deliver(NetMachine::frame_to(kMacOfCard));
  EXPECT_FALSE(machine.backend.backed_up());
}

TEST(VirtioNetTest, AStoppedCardTakesNothing) {
  NetMachine machine;
  machine.set_up();
  machine.offer(0, 2048);
  machine.function->stop();
  machine.backend.deliver(NetMachine::frame_to(kMacOfCard));
  machine.send(NetMachine::frame_to({2}));
  EXPECT_TRUE(machine.backend.backed_up());
  EXPECT_TRUE(machine.backend.sent.empty());
  machine.function->start();
  machine.settle();
  EXPECT_TRUE(machine.receive->take());
  EXPECT_EQ(machine.backend.sent.size(), 1U);
}

TEST(VirtioNetTest, AStoppedCardUsesNoBufferThatItHolds) {
  NetMachine machine;
  machine.set_up();
  machine.offer(0, 64);
  machine.backend.deliver(NetMachine::frame_to(kMacOfCard, 200));  // the buffer is held
  machine.function->stop();
  for (const bool up : {false, true}) machine.backend.set_link(net::NetBackend::End::kHost, up);
  machine.backend.deliver(NetMachine::frame_to(kMacOfCard, 40));
  EXPECT_FALSE(machine.receive->take());
  machine.function->start();
  machine.settle();
  EXPECT_TRUE(machine.receive->take());
}

TEST(VirtioNetTest, LegacyHeadersAreShort) {
  NetMachine machine(kAll & ~kMergeable);
  const auto port = [&](unsigned at, uint64_t value, unsigned size) {
    machine.ports.out(VirtioMachine::kPorts + at, value, size);
  };
  machine.settle();
  machine.ports.commit();
  port(0x12, 3, 1);
  port(0x0e, kTransmitQueue, 2);
  port(0x08, kTransmitRing >> 12, 4);
  port(0x12, 7, 1);
  // A descriptor and the available ring of a queue of 256.
  const auto frame = NetMachine::frame_to({4});
  std::memset(machine.host(kData), 0, kShortHeader);
  std::memcpy(machine.host(kData + kShortHeader), frame.data(), frame.size());
  machine.put(kTransmitRing, kData);
  machine.put(kTransmitRing + 8, static_cast<uint32_t>(kShortHeader + frame.size()));
  machine.put(kTransmitRing + 4096 + 2, uint16_t{1});
  port(0x10, kTransmitQueue, 2);
  machine.settle();
  ASSERT_EQ(machine.backend.sent.size(), 1U);
  EXPECT_EQ(machine.backend.sent[0], frame);
}

// --- checksums

TEST(VirtioNetTest, ChecksumsAreCompleted) {
  NetMachine machine;
  machine.set_up();
  std::vector<uint8_t> frame(14 + 5, 0);
  frame[14] = 0x12, frame[15] = 0x34, frame[18] = 0x56;
  machine.send(frame, {{kFlagsAt, kNeedsChecksum}, {kChecksumStartAt, 14}, {kChecksumOffsetAt, 2}});
  ASSERT_EQ(machine.backend.sent.size(), 1U);
  EXPECT_EQ(machine.backend.sent[0][16], 0xff - (0x12 + 0x56));
  EXPECT_EQ(machine.backend.sent[0][17], 0xff - 0x34);
}

TEST(VirtioNetTest, ImpossibleHeadersLoseTheirFrame) {
  NetMachine machine;
  machine.set_up();
  const auto frame = NetMachine::frame_to({2});
  machine.send(frame, {{kFlagsAt, kNeedsChecksum}, {kChecksumStartAt, 59}, {kChecksumOffsetAt, 0}});
  machine.send(frame, {{kFlagsAt, kNeedsChecksum}, {kChecksumStartAt, 0xffff}, {kChecksumOffsetAt, 0xffff}});
  machine.send(frame, {{kFlagsAt, 0x0100}});  // segmentation, which was not negotiated
  EXPECT_TRUE(machine.backend.sent.empty());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(machine.transmit->take());
  EXPECT_FALSE(machine.broken());
}

// --- filters

TEST(VirtioNetTest, TheFilterKeepsToWhatTheDriverWants) {
  NetMachine machine;
  machine.set_up();
  const auto other = NetMachine::frame_to({2, 0, 0, 0, 0, 9}), group = NetMachine::frame_to({1, 0, 0x5e, 0, 0, 1}),
             everyone = NetMachine::frame_to({255, 255, 255, 255, 255, 255});
  EXPECT_TRUE(machine.receives(other));
  EXPECT_EQ(machine.command({kClassReceive, 0, 0}), kAckOk);
  EXPECT_FALSE(machine.receives(other));
  EXPECT_FALSE(machine.receives(group));
  EXPECT_TRUE(machine.receives(everyone));
  EXPECT_EQ(machine.command({kClassReceive, 1, 1}), kAckOk);
  EXPECT_TRUE(machine.receives(group));
  EXPECT_EQ(machine.command({kClassReceive, 5, 1}), kAckOk);
  EXPECT_FALSE(machine.receives(everyone));
  EXPECT_EQ(machine.command({kClassReceive, 6, 1}), kAckError);
}

TEST(VirtioNetTest, AddressesComeInTwoLists) {
  NetMachine machine;
  machine.set_up();
  EXPECT_EQ(machine.command({kClassReceive, 0, 0}), kAckOk);
  EXPECT_EQ(machine.command({kClassMac, kMacTableSet, 1, 0, 0, 0, 2, 0, 0, 0, 0, 9, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1}),
            kAckOk);
  EXPECT_TRUE(machine.receives(NetMachine::frame_to({2, 0, 0, 0, 0, 9})));
  EXPECT_TRUE(machine.receives(NetMachine::frame_to({1, 0, 0x5e, 0, 0, 1})));
  EXPECT_FALSE(machine.receives(NetMachine::frame_to({1, 0, 0x5e, 0, 0, 2})));
  std::vector<uint8_t> many{kClassMac, kMacTableSet, 65, 0, 0, 0};
  many.resize(6 + 65 * 6 + 4);
  EXPECT_EQ(machine.command(many), kAckOk);  // too many for the card: all pass
  EXPECT_TRUE(machine.receives(NetMachine::frame_to({2, 0, 0, 0, 0, 77})));
  EXPECT_FALSE(machine.receives(NetMachine::frame_to({1, 0, 0x5e, 0, 0, 1})));
}

TEST(VirtioNetTest, TheCardTakesAnotherAddress) {
  NetMachine machine;
  machine.set_up();
  EXPECT_EQ(machine.command({kClassReceive, 0, 0}), kAckOk);
  EXPECT_EQ(machine.command({kClassMac, kMacAddressSet, 2, 1, 1, 1, 1, 1}), kAckOk);
  EXPECT_EQ(machine.driver.config(0, 1), 2U);
  machine.offer(0, 2048);
  machine.backend.deliver(NetMachine::frame_to(kMacOfCard));
  EXPECT_FALSE(machine.receive->take());
  machine.backend.deliver(NetMachine::frame_to({2, 1, 1, 1, 1, 1}));
  machine.settle();
  EXPECT_TRUE(machine.receive->take());
  machine.driver.set_status(0);
  EXPECT_EQ(machine.driver.config(0, 1), 0x52U);
}

TEST(VirtioNetTest, VlansAreFiltered) {
  NetMachine machine;
  machine.set_up();
  EXPECT_EQ(machine.command({kClassReceive, 0, 0}), kAckOk);
  auto frame = NetMachine::frame_to(kMacOfCard);
  frame[12] = 0x81, frame[13] = 0, frame[14] = 0x60, frame[15] = 100;
  EXPECT_FALSE(machine.receives(frame));
  EXPECT_EQ(machine.command({kClassVlan, kVlanAdd, 100, 0}), kAckOk);
  EXPECT_TRUE(machine.receives(frame));
  EXPECT_EQ(machine.command({kClassVlan, kVlanDelete, 100, 0}), kAckOk);
  EXPECT_FALSE(machine.receives(frame));
}

// --- hostile drivers

TEST(VirtioNetTest, ImpossibleCommandsAreErrors) {
  NetMachine machine;
  machine.set_up();
  const std::vector<std::vector<uint8_t>> commands = {
      {77, 0, 1},                                         // no such class
      {kClassReceive, 0},                                 // no data
      {kClassReceive, 200, 1},                            // no such mode
      {kClassMac, kMacTableSet, 255, 255, 255, 255},      // more addresses than bytes
      {kClassMac, kMacTableSet, 1, 0, 0, 0, 1, 2, 3},     // half an address
      {kClassMac, kMacTableSet, 0, 0, 0, 0},              // no second list
      {kClassMac, kMacTableSet, 0, 0, 0, 0, 9, 0, 0, 0},  // an empty second list of nine
      {kClassMac, kMacAddressSet, 1, 2, 3},               // half an address
      {kClassMac, 9, 0},                                  // no such command
      {kClassVlan, kVlanAdd, 0xff, 0xff},                 // no such VLAN
      {kClassVlan, 2, 1, 0},                              // no such command
      {4, 0, 1, 0},                                       // multiqueue, which is not offered
  };
  for (const auto& bytes : commands)
    EXPECT_EQ(machine.command(bytes), kAckError) << int{bytes[0]} << " " << int{bytes[1]};
  EXPECT_FALSE(machine.broken());
}

TEST(VirtioNetTest, CommandsThatWereNotNegotiatedAreErrors) {
  NetMachine machine;
  machine.set_up(false, kControl | kMergeable);
  for (const uint8_t kind : {kClassReceive, kClassMac, kClassVlan})
    EXPECT_EQ(machine.command({kind, 0, 0, 0, 0, 0, 0, 0, 0, 0}), kAckError);
}

struct Hostile {
  const char* name;
  uint16_t queue;
  TestBuffer buffer;
};
class VirtioNetHostile : public ::testing::TestWithParam<Hostile> {};
INSTANTIATE_TEST_SUITE_P(Chains, VirtioNetHostile,
                         ::testing::Values(Hostile{"ShortHeader", kTransmitQueue, {kData, 5, false}},
                                           Hostile{"NothingToSend", kTransmitQueue, {kData, 100, true}},
                                           Hostile{"SentFromNowhere", kTransmitQueue, {0x7000'0000'0000, 100, false}},
                                           Hostile{"BufferBelowHeader", kReceiveQueue, {kData, 11, true}},
                                           Hostile{"NothingToReceiveInto", kReceiveQueue, {kData, 100, false}},
                                           Hostile{
                                               "ReceivedIntoNowhere", kReceiveQueue, {0x7000'0000'0000, 2048, true}},
                                           Hostile{"NoCommand", kControlQueue, {kData, 1, true}},
                                           Hostile{"NoAnswer", kControlQueue, {kData, 3, false}}),
                         [](const auto& info) { return info.param.name; });

TEST_P(VirtioNetHostile, BreaksTheDeviceUntilAReset) {
  NetMachine machine;
  machine.set_up();
  const auto& [name, queue, buffer] = GetParam();
  TestRing& ring = queue == kReceiveQueue    ? *machine.receive
                   : queue == kTransmitQueue ? *machine.transmit
                                             : *machine.control;
  ring.add({buffer});
  machine.driver.kick(queue);
  machine.settle();
  machine.backend.deliver(NetMachine::frame_to(kMacOfCard));
  machine.settle();
  EXPECT_TRUE(machine.broken());
  EXPECT_TRUE(machine.backend.sent.empty());
  machine.set_up();
  machine.send(NetMachine::frame_to({2}));
  EXPECT_EQ(machine.backend.sent.size(), 1U);
}

TEST(VirtioNetTest, AFrameOfImpossibleLengthGoesNowhere) {
  NetMachine machine;
  machine.set_up();
  machine.transmit->add({{.address = kData, .bytes = 0x20000}});
  machine.transmit->add({{.address = kData, .bytes = kHeader + 3}});
  machine.driver.kick(kTransmitQueue);
  machine.settle();
  EXPECT_TRUE(machine.transmit->take());
  EXPECT_TRUE(machine.transmit->take());
  EXPECT_TRUE(machine.backend.sent.empty());
  EXPECT_FALSE(machine.broken());
}

TEST(VirtioNetTest, AFrameLongerThanAllBuffersGoesNowhere) {
  NetMachine machine;
  machine.set_up(false, kAll & ~kMergeable);
  machine.offer(0, 200);
  machine.backend.deliver(NetMachine::frame_to(kMacOfCard, 500));
  EXPECT_FALSE(machine.backend.backed_up());
  machine.backend.deliver(NetMachine::frame_to(kMacOfCard, 100));
  machine.settle();
  const auto used = machine.receive->take();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, 100U + kHeader);
}

TEST(VirtioNetTest, AFrameLongerThanTheWholeRingGoesNowhere) {
  NetMachine machine;
  machine.set_up();
  for (unsigned i = 0; i < kRingSize; ++i) machine.offer(i * 64, 64);
  machine.backend.deliver(NetMachine::frame_to(kMacOfCard, 1500));
  EXPECT_FALSE(machine.backend.backed_up());
  machine.backend.deliver(NetMachine::frame_to(kMacOfCard, 8 * 64 - kHeader));
  machine.settle();
  for (unsigned i = 0; i < kRingSize; ++i) EXPECT_TRUE(machine.receive->take());
}

TEST(VirtioNetTest, ABackendThatGoesTakesTheLinkDown) {
  NetMachine machine;
  machine.set_up();
  VirtioPci& function = *machine.function;
  function.stop();
  auto backend = std::make_unique<TestBackend>(*machine.executor);
  const VirtioNet::Config config{.name = "other", .model = "", .mac = kMacOfCard, .backend = backend.get()};
  VirtioNet card(config, machine.guest_memory, *machine.executor, {});
  EXPECT_EQ(backend->client()->describe().name, "other");
  // Not connected to a transport, so no driver is told.
  backend.reset();
  EXPECT_EQ(card.config_read(kStatusAt, 2), 0U);
}

}  // namespace
}  // namespace kite::devices

// Receiving and sending of an e1000.
#include "devices/e1000/test_e1000.h"

namespace kite::devices {
namespace {

using namespace e1000;
using namespace testing;  // NOLINT: the machine and the driver

constexpr net::MacAddress kStranger{0x02, 9, 8, 7, 6, 5}, kEverybody{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr net::MacAddress kGroup{0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb};

// --- receiving

TEST(E1000FramesTest, FramesAreReceived) {
  E1000Machine machine;
  machine.set_up();
  for (uint32_t round = 0; round < 20; ++round) {
    const uint32_t index = round % E1000Machine::kRing;
    machine.offer(index);
    const auto frame = E1000Machine::frame_to(kCardMac, 100 + round);
    machine.backend.deliver(frame);
    ASSERT_EQ(machine.status(index), kDone | kEndOfPacket | kIgnoreChecksum);
    EXPECT_EQ(machine.length(index), frame.size());
    EXPECT_EQ(std::memcmp(machine.host(E1000Machine::kBuffers + index * 0x1000), frame.data(), frame.size()), 0);
    EXPECT_EQ(machine.read(RDH), (index + 1) % E1000Machine::kRing);
  }
  EXPECT_EQ(machine.read(ICR) & kRxTimer, kRxTimer);
}

TEST(E1000FramesTest, ShortFramesAreFilledUpAndHaveTheirCrc) {
  E1000Machine machine;
  machine.set_up(0);
  machine.offer(0);
  std::vector<uint8_t> frame(42);
  std::ranges::copy(kCardMac, frame.begin());
  machine.backend.deliver(frame);
  EXPECT_EQ(machine.length(0), 64);
  // [IEEE 802.3] 3.2.9: over a frame with its CRC the remainder is always the same.
  uint32_t crc = ~uint32_t{0};
  for (size_t i = 0; i < 64; ++i) {
    crc ^= *machine.host(E1000Machine::kBuffers + i);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb88320 : 0);
  }
  EXPECT_EQ(crc, 0xdebb20e3);
}

TEST(E1000FramesTest, FramesTakeSeveralBuffers) {
  E1000Machine machine;
  machine.set_up(kStripCrc | 3u << kSizeShift);  // 256 bytes each
  for (uint32_t i = 0; i < 4; ++i) machine.offer(i);
  const auto frame = E1000Machine::frame_to(kCardMac, 600);
  machine.backend.deliver(frame);
  EXPECT_EQ(machine.status(0), kDone);
  EXPECT_EQ(machine.status(1), kDone);
  EXPECT_EQ(machine.status(2), kDone | kEndOfPacket | kIgnoreChecksum);
  EXPECT_EQ(machine.length(0), 256);
  EXPECT_EQ(machine.length(2), 600 - 512);
  EXPECT_EQ(machine.status(3), 0);
  for (uint32_t i = 0; i < 3; ++i)
    EXPECT_EQ(std::memcmp(machine.host(E1000Machine::kBuffers + i * 0x1000), frame.data() + i * 256, i < 2 ? 256 : 88),
              0);
}

TEST(E1000FramesTest, BuffersWithoutAnAddressHoldNothing) {
  E1000Machine machine;
  machine.set_up();
  machine.offer(0, 0);
  machine.offer(1);
  machine.backend.deliver(E1000Machine::frame_to(kCardMac));
  EXPECT_EQ(machine.status(0), kDone);
  EXPECT_EQ(machine.length(0), 0);
  EXPECT_EQ(machine.length(1), 60);
  EXPECT_EQ(machine.read(RDH), 2U);
}

TEST(E1000FramesTest, FramesWaitForBuffers) {
  E1000Machine machine;
  machine.set_up();
  const auto frame = E1000Machine::frame_to(kCardMac, 200);
  machine.backend.deliver(frame);
  EXPECT_TRUE(machine.backend.backed_up());
  machine.offer(0);
  EXPECT_FALSE(machine.backend.backed_up());
  EXPECT_EQ(machine.length(0), 200);
}

TEST(E1000FramesTest, WhatTheRingCannotHoldIsAnOverrun) {
  E1000Machine machine;
  machine.set_up(kStripCrc | kLongPackets | 3u << kSizeShift);
  for (uint32_t i = 0; i < 7; ++i) machine.offer(i);
  machine.backend.deliver(E1000Machine::frame_to(kCardMac, 7 * 256 + 1));
  EXPECT_FALSE(machine.backend.backed_up());
  EXPECT_EQ(machine.status(0), 0);
  EXPECT_EQ(machine.read(ICR) & kRxOverrun, kRxOverrun);
  EXPECT_EQ(machine.read(MPC), 1U);
  EXPECT_EQ(machine.read(MPC), 0U);
}

TEST(E1000FramesTest, FewBuffersAreTold) {
  E1000Machine machine;
  machine.set_up(kStripCrc | 1u << kThresholdShift);  // a quarter of 8
  for (uint32_t i = 0; i < 4; ++i) machine.offer(i);
  machine.backend.deliver(E1000Machine::frame_to(kCardMac));
  EXPECT_EQ(machine.read(ICR) & kRxLow, 0U);
  machine.backend.deliver(E1000Machine::frame_to(kCardMac));
  EXPECT_EQ(machine.read(ICR) & kRxLow, kRxLow);
}

TEST(E1000FramesTest, LongFramesNeedPermission) {
  E1000Machine machine;
  machine.set_up(kStripCrc | kBigBuffers | 1u << kSizeShift);
  EXPECT_TRUE(machine.receives(E1000Machine::frame_to(kCardMac, 1518)));
  EXPECT_FALSE(machine.receives(E1000Machine::frame_to(kCardMac, 1519)));
  EXPECT_EQ(machine.read(ROC), 1U);
  machine.write(RCTL, machine.read(RCTL) | kLongPackets);
  EXPECT_TRUE(machine.receives(E1000Machine::frame_to(kCardMac, 9000)));
  EXPECT_FALSE(machine.receives(E1000Machine::frame_to(kCardMac, 16381)));
}

TEST(E1000FramesTest, NothingIsReceivedWhileTheReceiverIsOff) {
  E1000Machine machine;
  machine.set_up();
  machine.write(RCTL, 0);
  EXPECT_FALSE(machine.receives(E1000Machine::frame_to(kCardMac)));
  EXPECT_FALSE(machine.backend.backed_up());
}

TEST(E1000FramesTest, NothingIsReceivedWithoutBusMastering) {
  E1000Machine machine;
  machine.set_up();
  machine.card->config_write(bus::pci::kCommand, 2, 3);
  EXPECT_FALSE(machine.receives(E1000Machine::frame_to(kCardMac)));
}

TEST(E1000FramesTest, FramesWaitWhileTheMachineIsStopped) {
  E1000Machine machine;
  machine.set_up();
  machine.offer(0);
  machine.card->stop();
  machine.backend.deliver(E1000Machine::frame_to(kCardMac));
  machine.settle();
  EXPECT_EQ(machine.status(0), 0);
  machine.card->start();
  machine.settle();
  EXPECT_NE(machine.status(0), 0);
}

TEST(E1000FramesTest, AddressesDecide) {
  E1000Machine machine;
  machine.set_up(kStripCrc);
  EXPECT_TRUE(machine.receives(E1000Machine::frame_to(kCardMac)));
  EXPECT_EQ(machine.status(0) & kInexact, 0);
  EXPECT_FALSE(machine.receives(E1000Machine::frame_to(kStranger)));
  EXPECT_FALSE(machine.receives(E1000Machine::frame_to(kEverybody)));
  EXPECT_FALSE(machine.receives(E1000Machine::frame_to(kGroup)));
  machine.write(RAL + 15 * 8, load<uint32_t>(kStranger.data()));
  machine.write(RAH + 15 * 8, load<uint16_t>(&kStranger[4]));
  EXPECT_FALSE(machine.receives(E1000Machine::frame_to(kStranger)));  // it is not valid
  machine.write(RAH + 15 * 8, load<uint16_t>(&kStranger[4]) | kAddressValid);
  EXPECT_TRUE(machine.receives(E1000Machine::frame_to(kStranger)));
  machine.write(RAH + 15 * 8, load<uint16_t>(&kStranger[4]) | kAddressValid | kSourceAddress);
  EXPECT_FALSE(machine.receives(E1000Machine::frame_to(kStranger)));
  auto frame = E1000Machine::frame_to(kGroup);
  std::ranges::copy(kStranger, frame.begin() + 6);
  EXPECT_TRUE(machine.receives(frame));
}

TEST(E1000FramesTest, ModesLetMorePass) {
  E1000Machine machine;
  machine.set_up(kStripCrc | kBroadcast);
  EXPECT_TRUE(machine.receives(E1000Machine::frame_to(kEverybody)));
  machine.write(RCTL, kRxEnable | kStripCrc | kAllUnicast);
  EXPECT_TRUE(machine.receives(E1000Machine::frame_to(kStranger)));
  EXPECT_EQ(machine.status(0) & kInexact, kInexact);
  EXPECT_FALSE(machine.receives(E1000Machine::frame_to(kGroup)));
  machine.write(RCTL, kRxEnable | kStripCrc | kAllMulticast);
  EXPECT_TRUE(machine.receives(E1000Machine::frame_to(kGroup)));
  EXPECT_TRUE(machine.receives(E1000Machine::frame_to(kEverybody)));
  EXPECT_FALSE(machine.receives(E1000Machine::frame_to(kStranger)));
}

TEST(E1000FramesTest, MulticastsAreHashed) {
  // Of kGroup, by RCTL.MO: bits 47:36, 46:35, 45:34, 43:32.
  constexpr uint32_t kHashes[] = {0xfb0, 0xf60, 0xec0, 0xb00};
  for (uint32_t offset = 0; offset < 4; ++offset) {
    E1000Machine machine;
    machine.set_up(kStripCrc | offset << kHashShift);
    EXPECT_FALSE(machine.receives(E1000Machine::frame_to(kGroup)));
    const uint32_t hash = (kGroup[4] | uint32_t{kGroup[5]} << 8) >> (offset == 3 ? 0 : 4 - offset) & 0xfff;
    EXPECT_EQ(hash, kHashes[offset]);
    machine.write(MTA + hash / 32 * 4, 1u << hash % 32);
    EXPECT_TRUE(machine.receives(E1000Machine::frame_to(kGroup))) << offset;
    EXPECT_EQ(machine.status(0) & kInexact, kInexact);
  }
}

std::vector<uint8_t> tagged(uint16_t tag, size_t bytes = 100) {
  auto frame = E1000Machine::frame_to(kCardMac, bytes);
  store_be16(&frame[12], 0x8100);
  store_be16(&frame[14], tag);
  return frame;
}

TEST(E1000FramesTest, VlansAreFilteredAndStripped) {
  E1000Machine machine;
  machine.set_up(kStripCrc | kVlanFilter);
  EXPECT_FALSE(machine.receives(tagged(0x2005)));
  EXPECT_TRUE(machine.receives(E1000Machine::frame_to(kCardMac)));
  machine.write(VFTA, 1u << 5);
  EXPECT_TRUE(machine.receives(tagged(0x2005)));
  EXPECT_EQ(machine.length(0), 100);
  machine.write(CTRL, machine.read(CTRL) | kVlanMode);
  EXPECT_TRUE(machine.receives(tagged(0x2005)));
  EXPECT_EQ(machine.length(0), 96);
  EXPECT_EQ(machine.status(0) & kIsVlan, kIsVlan);
  EXPECT_EQ(machine.result(0) >> 48, 0x2005U);
  EXPECT_EQ(machine.get<uint8_t>(E1000Machine::kBuffers + 12), tagged(0)[16]);
  machine.write(RCTL, machine.read(RCTL) | kCfiFilter);
  EXPECT_FALSE(machine.receives(tagged(0x3005)));
}

TEST(E1000FramesTest, ChecksumsOfPacketsAreChecked) {
  E1000Machine machine;
  machine.set_up();
  const auto results = [&](const std::vector<uint8_t>& frame) {
    EXPECT_TRUE(machine.receives(frame));
    return static_cast<uint16_t>(machine.result(0) >> 32 & 0xff64);
  };
  EXPECT_EQ(results(ip_frame(6, 100)), kIgnoreChecksum);
  machine.write(RXCSUM, kCheckIp | kCheckTcpUdp);
  for (const uint8_t protocol : {uint8_t{6}, uint8_t{17}}) {
    auto frame = ip_frame(protocol, 101);
    EXPECT_EQ(results(frame), kIpChecked | kTcpChecked);
    frame.back() ^= 1;
    EXPECT_EQ(results(frame), kIpChecked | kTcpChecked | kTcpError << 8);
    frame.back() ^= 1;
    frame[14 + 8] ^= 1;  // time to live
    EXPECT_EQ(results(frame), kIpChecked | kTcpChecked | kIpError << 8);
    frame[14 + 8] ^= 1;
    frame[14 + 7] = 1;  // a fragment
    EXPECT_EQ(results(frame) & kTcpChecked, 0);
    frame[14 + 7] = 0;
    store_be16(&frame[14 + 2], 0xffff);  // longer than the frame
    EXPECT_EQ(results(frame), kIgnoreChecksum);
    store_be16(&frame[14 + 2], 20);
    EXPECT_EQ(results(frame) & kTcpChecked, 0);
  }
  EXPECT_EQ(results(E1000Machine::frame_to(kCardMac)), kIgnoreChecksum);
  machine.write(RXCSUM, kCheckTcpUdp);
  EXPECT_EQ(results(ip_frame(6, 1)), kTcpChecked);
}

TEST(E1000FramesTest, PacketChecksumStartsWhereSoftwareSays) {
  E1000Machine machine;
  machine.set_up();
  machine.write(RXCSUM, 14);
  auto frame = E1000Machine::frame_to(kCardMac, 60);
  std::fill(frame.begin() + 14, frame.end(), uint8_t{0});
  store_be16(&frame[20], 0x1234);
  store_be16(&frame[30], 0x0101);
  EXPECT_TRUE(machine.receives(frame));
  EXPECT_EQ(machine.result(0) >> 16 & 0xffff, 0xffffU - 0x1335U);
  machine.write(RXCSUM, 200);
  EXPECT_TRUE(machine.receives(frame));
  EXPECT_EQ(machine.result(0) >> 16 & 0xffff, 0xffffU);
}

TEST(E1000FramesTest, ReceivedFramesAreCounted) {
  E1000Machine machine;
  machine.set_up();
  machine.offer(0);
  machine.offer(1);
  machine.backend.deliver(E1000Machine::frame_to(kCardMac, 1000));
  machine.backend.deliver(E1000Machine::frame_to(kEverybody, 50));
  machine.backend.deliver(E1000Machine::frame_to(kStranger, 60));
  for (const auto& [offset, value] : std::initializer_list<std::pair<uint32_t, uint32_t>>{{GPRC, 2},
                                                                                          {TPR, 3},
                                                                                          {BPRC, 1},
                                                                                          {MPRC, 0},
                                                                                          {PRC64, 1},
                                                                                          {PRC64 + 16, 1},
                                                                                          {GORCL, 1004 + 64},
                                                                                          {GORCL, 1004 + 64},
                                                                                          {GORCL + 4, 0},
                                                                                          {GORCL, 0},
                                                                                          {TORL, 1004 + 64 + 64},
                                                                                          {GPRC, 0}})
    EXPECT_EQ(machine.read(offset), value) << std::hex << offset;
}

// --- sending

TEST(E1000FramesTest, FramesAreSent) {
  E1000Machine machine;
  machine.set_up();
  const auto frame = E1000Machine::frame_to(kStranger, 1514);
  for (uint32_t i = 0; i < 20; ++i) {
    machine.send(frame);
    EXPECT_TRUE(machine.done(i % E1000Machine::kRing));
    EXPECT_EQ(machine.read(TDH), machine.tail);
  }
  ASSERT_EQ(machine.backend.sent.size(), 20U);
  EXPECT_EQ(machine.backend.sent.back(), frame);
  EXPECT_EQ(machine.read(ICR), kTxWritten | kTxQueueEmpty);
  EXPECT_EQ(machine.read(GPTC), 20U);
  EXPECT_EQ(machine.read(GOTCL), 20U * 1518);
  EXPECT_EQ(machine.read(PTC64 + 20), 20U);
}

TEST(E1000FramesTest, DescriptorsAreReportedWhenTheyAsk) {
  E1000Machine machine;
  machine.set_up();
  machine.add(E1000Machine::kData, 60 | uint64_t{kEnd} << 24);
  machine.go();
  EXPECT_EQ(machine.backend.sent.size(), 1U);
  EXPECT_FALSE(machine.done(0));
  EXPECT_EQ(machine.read(ICR), kTxQueueEmpty);
}

TEST(E1000FramesTest, PacketsMayComeInPieces) {
  E1000Machine machine;
  machine.set_up();
  const auto frame = E1000Machine::frame_to(kStranger, 300);
  std::memcpy(machine.host(E1000Machine::kData), frame.data(), frame.size());
  machine.add(E1000Machine::kData, 100 | uint64_t{kReport} << 24);
  machine.go();
  EXPECT_TRUE(machine.done(0));
  EXPECT_TRUE(machine.backend.sent.empty());
  machine.add(0, 0);  // an empty one
  machine.add(E1000Machine::kData + 100, 200 | uint64_t{kEnd} << 24);
  machine.go();
  ASSERT_EQ(machine.backend.sent.size(), 1U);
  EXPECT_EQ(machine.backend.sent[0], frame);
}

TEST(E1000FramesTest, ShortFramesArePadded) {
  E1000Machine machine;
  machine.set_up();
  machine.send(E1000Machine::frame_to(kStranger, 20));
  ASSERT_EQ(machine.backend.sent.size(), 1U);
  EXPECT_EQ(machine.backend.sent[0].size(), 60U);
  machine.send(E1000Machine::frame_to(kStranger, 13));  // not even a header
  EXPECT_EQ(machine.backend.sent.size(), 1U);
  EXPECT_TRUE(machine.done(1));
}

TEST(E1000FramesTest, SendingWaitsForTheBackend) {
  E1000Machine machine;
  machine.set_up();
  machine.backend.full = true;
  machine.send(E1000Machine::frame_to(kStranger));
  EXPECT_FALSE(machine.done(0));
  EXPECT_EQ(machine.read(TDH), 0U);
  machine.backend.full = false;
  machine.backend.client()->writable();
  machine.settle();
  EXPECT_TRUE(machine.done(0));
  EXPECT_EQ(machine.backend.sent.size(), 1U);
}

TEST(E1000FramesTest, SendingWaitsForTheLink) {
  E1000Machine machine;
  machine.set_up();
  machine.backend.set_link(net::NetBackend::End::kHost, false);
  machine.send(E1000Machine::frame_to(kStranger));
  EXPECT_FALSE(machine.done(0));
  machine.backend.set_link(net::NetBackend::End::kHost, true);
  machine.clock.advance(1'000'000'000);
  machine.settle();
  EXPECT_TRUE(machine.done(0));
}

TEST(E1000FramesTest, AResetForgetsWhatIsToBeSent) {
  E1000Machine machine;
  machine.set_up();
  machine.backend.full = true;
  machine.send(E1000Machine::frame_to(kStranger));
  machine.write(CTRL, kReset);
  machine.backend.full = false;
  machine.tail = 0;
  machine.set_up();
  machine.settle();
  EXPECT_TRUE(machine.backend.sent.empty());
}

TEST(E1000FramesTest, LoopbackBringsFramesBack) {
  E1000Machine machine;
  machine.set_up();
  phy_write(machine, 0, 0x4140);
  machine.offer(0);
  machine.send(E1000Machine::frame_to(kCardMac));
  EXPECT_TRUE(machine.backend.sent.empty());
  EXPECT_EQ(machine.length(0), 60);
}

TEST(E1000FramesTest, VlanTagsAreInserted) {
  E1000Machine machine;
  machine.set_up();
  const auto frame = E1000Machine::frame_to(kStranger, 100);
  machine.send(frame, kInsertVlan, uint64_t{0x2007} << 48);
  machine.write(CTRL, machine.read(CTRL) | kVlanMode);
  machine.send(frame, kInsertVlan, uint64_t{0x2007} << 48);
  ASSERT_EQ(machine.backend.sent.size(), 2U);
  EXPECT_EQ(machine.backend.sent[0], frame);
  const auto& got = machine.backend.sent[1];
  ASSERT_EQ(got.size(), 104U);
  EXPECT_EQ(load_be32(&got[12]), 0x81002007U);
  EXPECT_EQ(std::memcmp(&got[16], &frame[12], 88), 0);
}

TEST(E1000FramesTest, LegacyDescriptorsInsertAChecksum) {
  E1000Machine machine;
  machine.set_up();
  auto frame = ip_frame(17, 100);
  const auto good = frame;
  store_be16(&frame[24], 0);
  machine.send(frame, kInsertChecksum, uint64_t{24} << 16 | uint64_t{14} << 40);  // far beyond the header
  ASSERT_EQ(machine.backend.sent.size(), 1U);
  EXPECT_EQ(net::internet_sum(std::span(machine.backend.sent[0]).subspan(14)), 0xffff);
  machine.send(good, kInsertChecksum, uint64_t{255} << 16 | uint64_t{14} << 40);
  machine.send(good, kInsertChecksum, uint64_t{24} << 16 | uint64_t{255} << 40);
  EXPECT_EQ(machine.backend.sent[1], good);
  EXPECT_EQ(machine.backend.sent[2], good);
}

TEST(E1000FramesTest, ChecksumsAreInserted) {
  E1000Machine machine;
  machine.set_up();
  for (const bool tcp : {true, false}) {
    auto frame = ip_frame(tcp ? 6 : 17, 101);
    const auto good = frame;
    const size_t place = tcp ? 50 : 40;
    store_be16(&frame[24], 0);
    // What a driver puts there: the sum of the pseudo header.
    std::vector<uint8_t> pseudo(frame.begin() + 26, frame.begin() + 34);
    pseudo.insert(pseudo.end(), {0, frame[23], 0, static_cast<uint8_t>(frame.size() - 34)});
    store(&frame[place], net::internet_sum(pseudo));
    add_context(machine, {.tcp = tcp});
    add_data(machine, frame, 0);
    machine.go();
    EXPECT_EQ(machine.backend.sent.back(), good);
  }
  EXPECT_TRUE(machine.done(1));
}

TEST(E1000FramesTest, LongPacketsAreSegmented) {
  E1000Machine machine;
  machine.set_up();
  auto packet = ip_frame(6, 2500);
  store_be16(&packet[16], 0);
  store_be16(&packet[24], 0);
  std::vector<uint8_t> pseudo(packet.begin() + 26, packet.begin() + 34);
  pseudo.insert(pseudo.end(), {0, 6});
  store(&packet[50], net::internet_sum(pseudo));
  add_context(machine, {.segment = true, .header = 54, .mss = 1000, .payload = 2500});
  add_data(machine, packet, kSegment);
  machine.go();
  ASSERT_EQ(machine.backend.sent.size(), 3U);
  machine.write(RXCSUM, kCheckIp | kCheckTcpUdp);
  for (uint16_t i = 0; i < 3; ++i) {
    const auto& frame = machine.backend.sent[i];
    const size_t payload = i < 2 ? 1000 : 500;
    ASSERT_EQ(frame.size(), 54 + payload);
    EXPECT_EQ(load_be16(&frame[16]), 40 + payload);
    EXPECT_EQ(load_be16(&frame[18]), static_cast<uint16_t>(0xfffe + i));
    EXPECT_EQ(load_be32(&frame[38]), 0xfffffff0U + i * 1000U);
    EXPECT_EQ(frame[47], i < 2 ? 0x10 : 0x19);
    EXPECT_EQ(std::memcmp(&frame[54], &packet[54U + i * 1000U], payload), 0);
    machine.receives(frame);
    EXPECT_EQ(machine.result(0) >> 32 & 0xff64, uint32_t{kIpChecked | kTcpChecked}) << i;
  }
  EXPECT_EQ(machine.read(TSCTC), 1U);
  EXPECT_TRUE(machine.done(1));
}

TEST(E1000FramesTest, SegmentsGoOnWhereTheBackendWasFull) {
  E1000Machine machine;
  machine.set_up();
  add_context(machine, {.segment = true, .header = 54, .mss = 1, .payload = 1000});
  add_data(machine, ip_frame(6, 1000), kSegment);
  machine.backend.full = true;
  machine.go();
  machine.backend.full = false;
  machine.backend.client()->writable();
  machine.settle();
  EXPECT_EQ(machine.backend.sent.size(), 1000U);
  EXPECT_TRUE(machine.done(1));
}

TEST(E1000FramesTest, SegmentsThatMakeNoSenseAreNotSent) {
  const auto attempt = [](TestContext context) {
    E1000Machine machine;
    machine.set_up();
    context.segment = true;
    add_context(machine, context);
    add_data(machine, ip_frame(6, 100), kSegment);
    machine.go();
    EXPECT_TRUE(machine.done(1));
    return machine.backend.sent.size();
  };
  EXPECT_EQ(attempt({.header = 54, .mss = 0}), 0U);
  EXPECT_EQ(attempt({.header = 255, .mss = 100}), 0U);
  EXPECT_EQ(attempt({.header = 0, .mss = 100}), 0U);
  EXPECT_EQ(attempt({.header = 54, .mss = 100, .l4 = 250}), 1U);
  EXPECT_EQ(attempt({.header = 154, .mss = 100}), 1U);  // a header and nothing else
  EXPECT_EQ(attempt({.header = 20, .mss = 0xffff}), 1U);
}

// --- hostile rings

TEST(E1000FramesTest, DescriptorsOutsideOfMemoryAreHarmless) {
  E1000Machine machine;
  machine.set_up();
  for (const uint64_t address : {~uint64_t{0} - 20, uint64_t{E1000Machine::kBase}, E1000Machine::kRam - 4}) {
    machine.add(address, 60 | (kEnd | kReport) << 24);
    machine.go();
  }
  EXPECT_TRUE(machine.backend.sent.empty());
  EXPECT_TRUE(machine.done(2));
  machine.offer(0, E1000Machine::kBase);
  machine.backend.deliver(E1000Machine::frame_to(kCardMac));
  EXPECT_EQ(machine.status(0) & kDone, kDone);
  for (const uint64_t base : {uint64_t{E1000Machine::kBase}, ~uint64_t{0}}) {
    machine.write(TDBAL, base);
    machine.write(TDBAH, base >> 32);
    machine.write(RDBAL, base);
    machine.write(RDBAH, base >> 32);
    machine.write(RDT, 7);
    machine.write(TDT, 7);
    machine.backend.deliver(E1000Machine::frame_to(kCardMac));
    machine.settle();
  }
  EXPECT_TRUE(machine.backend.sent.empty());
}

TEST(E1000FramesTest, TailsBeyondTheRingStandStill) {
  E1000Machine machine;
  machine.set_up();
  machine.write(TDT, 0xffff);
  machine.write(RDT, 0xffff);
  machine.settle();
  EXPECT_EQ(machine.read(TDH), 0U);
  machine.write(TDLEN, 0);
  machine.write(RDLEN, 0);
  machine.write(TDT, 0);
  machine.write(RDT, 1);
  machine.backend.deliver(E1000Machine::frame_to(kCardMac));
  machine.settle();
  EXPECT_TRUE(machine.backend.backed_up());
}

TEST(E1000FramesTest, EndlessPacketsAreDropped) {
  E1000Machine machine;
  machine.set_up();
  for (int i = 0; i < 40; ++i) {
    machine.add(0, 0xffff | uint64_t{kExtended} << 24 | kDataType << 20 | 0xf0000);
    if (i % 4 == 3) machine.go();
  }
  machine.add(0, uint64_t{kExtended | kEnd} << 24 | kDataType << 20);
  machine.send(E1000Machine::frame_to(kStranger));
  EXPECT_EQ(machine.backend.sent.size(), 1U);
}

TEST(E1000FramesTest, ARingOfNothingButEmptyBuffersIsAnOverrun) {
  E1000Machine machine;
  machine.set_up();
  machine.write(RDBAL, 0x40000);
  machine.write(RDLEN, 0xfff80);
  machine.write(RDT, 0xfff0);
  machine.backend.deliver(E1000Machine::frame_to(kCardMac));
  EXPECT_EQ(machine.read(MPC), 1U);
}

}  // namespace
}  // namespace kite::devices

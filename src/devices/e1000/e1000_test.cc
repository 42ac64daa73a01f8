#include "devices/e1000/test_e1000.h"

namespace kite::devices {
namespace {

using namespace e1000;
using namespace testing;  // NOLINT: the machine and the driver

constexpr net::MacAddress kStranger{0x02, 9, 8, 7, 6, 5};

// --- registers

TEST(E1000Test, HasIdentifiersAndAnInterrupt) {
  E1000Machine machine;
  EXPECT_EQ(machine.card->config_read(0, 4), 0x100e8086U);
  EXPECT_EQ(machine.card->config_read(8, 4), 0x02000003U);
  EXPECT_EQ(machine.card->interrupt_pin(), 1);
  EXPECT_EQ(machine.card->bar(0).size, 128U << 10);
  EXPECT_EQ(machine.card->bar(1).size, 64U);
  EXPECT_TRUE(machine.card->bar(1).io);
}

TEST(E1000Test, RegistersHaveTheirResetValues) {
  E1000Machine machine;
  for (const auto& [offset, value] : std::initializer_list<std::pair<uint32_t, uint32_t>>{{CTRL, 0x00140240},
                                                                                          {STATUS, 0x80080783},
                                                                                          {VET, 0x8100},
                                                                                          {PBA, 0x00100030},
                                                                                          {LEDCTL, 0x602},
                                                                                          {RAL, 0xab005452},
                                                                                          {RAH, 0x8000efcd},
                                                                                          {RCTL, 0},
                                                                                          {TCTL, 0},
                                                                                          {IMS, 0}})
    EXPECT_EQ(machine.read(offset), value) << std::hex << offset;
}

TEST(E1000Test, BitsThatAreNoneStayClear) {
  E1000Machine machine;
  const uint32_t status = machine.read(STATUS);
  for (const auto& [offset, bits] : std::initializer_list<std::pair<uint32_t, uint32_t>>{{STATUS, status},
                                                                                         {RCTL, 0x06dfb3fe},
                                                                                         {RDBAL, 0xfffffff0},
                                                                                         {RDLEN, 0x000fff80},
                                                                                         {TDT, 0xffff},
                                                                                         {RAH + 8, 0x8003ffff},
                                                                                         {PBA, 0x7f},
                                                                                         {0x1ffc, 0},
                                                                                         {0x6000, 0},
                                                                                         {0x1fffc, 0}}) {
    machine.write(offset, 0xffffffff);
    EXPECT_EQ(machine.read(offset), bits) << std::hex << offset;
  }
}

TEST(E1000Test, TheTransmitterHasWhatTheReceiverLeaves) {
  E1000Machine machine;
  machine.write(PBA, 0x28);
  EXPECT_EQ(machine.read(PBA), 0x00180028U);
}

TEST(E1000Test, PortsReachRegisters) {
  E1000Machine machine;
  machine.ports.out(E1000Machine::kPorts + IOADDR, FCT, 4);
  machine.ports.out(E1000Machine::kPorts + IODATA, 0x8808, 4);
  EXPECT_EQ(machine.read(FCT), 0x8808U);
  machine.ports.out(E1000Machine::kPorts + IOADDR, 0xfffffff3, 4);
  EXPECT_EQ(machine.ports.in(E1000Machine::kPorts + IOADDR, 4), 0x1fff0U);
  EXPECT_EQ(machine.ports.in(E1000Machine::kPorts + IODATA, 4), 0U);
}

TEST(E1000Test, ResetBitResetsAllButThePhy) {
  E1000Machine machine;
  machine.set_up();
  machine.write(RAL, 0x12345678);
  machine.write(IMS, kLinkChange);
  machine.write(MDIC, 4u << 16 | kPhyAddress << 21 | kMdiWrite << 26 | 0x0061);
  machine.write(CTRL, machine.read(CTRL) | kReset);
  EXPECT_EQ(machine.read(CTRL), 0x00140240U);
  EXPECT_EQ(machine.read(RCTL), 0U);
  EXPECT_EQ(machine.read(RDLEN), 0U);
  EXPECT_EQ(machine.read(IMS), 0U);
  EXPECT_EQ(machine.read(RAL), 0xab005452U);
  EXPECT_EQ(machine.read(STATUS) & kLinkUp, kLinkUp);
  machine.write(MDIC, 4u << 16 | kPhyAddress << 21 | kMdiRead << 26);
  EXPECT_EQ(machine.read(MDIC) & 0xffff, 0x0061U);
  EXPECT_EQ(machine.card->config_read(bus::pci::kCommand, 2) & 7, 7U);
}

TEST(E1000Test, CountersStopAtTheirEnd) {
  E1000Registers registers;
  registers.reset();
  registers.count(GPRC, 0xfffffffe);
  registers.count(GPRC, 5);
  EXPECT_EQ(registers.take_statistic(GPRC), 0xffffffffU);
  registers.count_bytes(GORCL, ~uint64_t{0} - 1);
  registers.count_bytes(GORCL, 7);
  EXPECT_EQ(registers.pair(GORCL), ~uint64_t{0});
}

// --- EEPROM

struct Microwire {
  E1000Machine& machine;
  void wires(uint32_t value) { machine.write(EECD, kEepromRequest | value); }
  void bit(bool in) {
    const uint32_t value = kEepromSelect | (in ? kEepromIn : 0);
    wires(value);
    wires(value | kEepromClock);
    wires(value);
  }
  void send(uint32_t value, unsigned bits) {
    for (unsigned i = bits; i-- > 0;) bit((value >> i & 1) != 0);
  }
  bool out() { return (machine.read(EECD) & kEepromOut) != 0; }
  uint16_t take() {
    uint16_t word = 0;
    for (int i = 0; i < 16; ++i) {
      bit(false);
      word = static_cast<uint16_t>(word << 1 | (out() ? 1 : 0));
    }
    return word;
  }
  void end() { wires(0); }
  void command(uint32_t opcode, uint32_t address) {
    wires(kEepromSelect);
    send(4 | opcode, 3);
    send(address, 6);
  }
};
uint16_t eeprom_word(E1000Machine& machine, uint32_t address) {
  machine.write(EERD, address << 8 | kReadStart);
  const uint32_t value = machine.read(EERD);
  EXPECT_EQ(value & 0xffff, address << 8 | kReadDone);
  return static_cast<uint16_t>(value >> 16);
}

TEST(E1000Test, EepromHoldsTheAddressAndASum) {
  E1000Machine machine;
  uint16_t sum = 0;
  for (uint32_t address = 0; address < 64; ++address) sum = static_cast<uint16_t>(sum + eeprom_word(machine, address));
  EXPECT_EQ(sum, 0xbaba);
  EXPECT_EQ(eeprom_word(machine, 0), 0x5452);
  EXPECT_EQ(eeprom_word(machine, 2), 0xefcd);
  EXPECT_EQ(eeprom_word(machine, 0x0d), kDeviceId);
}

TEST(E1000Test, EepromIsReadBitByBit) {
  E1000Machine machine;
  EXPECT_EQ(machine.read(EECD) & (kEepromGrant | kEepromPresent), kEepromPresent);
  Microwire wire{machine};
  wire.wires(0);
  EXPECT_NE(machine.read(EECD) & kEepromGrant, 0U);
  wire.wires(kEepromSelect);
  wire.bit(false);  // before the start bit
  wire.command(2, 62);
  EXPECT_FALSE(wire.out());
  EXPECT_EQ(wire.take(), 0xffff);
  EXPECT_EQ(wire.take(), eeprom_word(machine, 63));
  EXPECT_EQ(wire.take(), 0x5452);  // around the end
  wire.end();
}

TEST(E1000Test, EepromIsWrittenOnceThatIsAllowed) {
  E1000Machine machine;
  Microwire wire{machine};
  const auto write = [&](uint32_t address, uint16_t word) {
    wire.command(1, address);
    wire.send(word, 16);
    wire.end();
  };
  write(0x20, 0x1234);
  EXPECT_EQ(eeprom_word(machine, 0x20), 0);
  wire.command(0, 0x30);
  wire.end();
  write(0x20, 0x1234);
  write(0, 0x0002);
  EXPECT_EQ(eeprom_word(machine, 0x20), 0x1234);
  wire.command(3, 0x20);
  wire.end();
  EXPECT_EQ(eeprom_word(machine, 0x20), 0xffff);
  wire.command(0, 0x00);
  wire.end();
  write(0x20, 1);
  EXPECT_EQ(eeprom_word(machine, 0x20), 0xffff);
  // The address comes from it when the card is reset, and when software asks.
  EXPECT_EQ(machine.read(RAL), 0xab005452U);
  machine.write(CTRL_EXT, kEepromReset);
  EXPECT_EQ(machine.read(RAL), 0xab000002U);
  EXPECT_EQ(machine.read(CTRL_EXT), 0U);
  machine.card->reset();
  EXPECT_EQ(machine.backend.client()->describe().mac[0], 2);
}

// --- PHY and link

TEST(E1000Test, PhyTellsWhatItIs) {
  E1000Machine machine;
  EXPECT_EQ(phy_read(machine, 0), 0x1140);
  EXPECT_EQ(phy_read(machine, 1), 0x796d);
  EXPECT_EQ(phy_read(machine, 2), 0x0141);
  EXPECT_EQ(phy_read(machine, 3), 0x0c20);
  EXPECT_EQ(phy_read(machine, 10), 0x3c00);
  EXPECT_EQ(phy_read(machine, 17), 0xac00);
}

TEST(E1000Test, OtherPhysAreAnError) {
  E1000Machine machine;
  machine.write(IMS, kMdiDone);
  machine.write(MDIC, 2u << 21 | kMdiRead << 26 | kMdiInterrupt);
  EXPECT_EQ(machine.read(MDIC) & (kMdiReady | kMdiError), kMdiReady | kMdiError);
  EXPECT_TRUE(machine.interrupts());
  machine.write(MDIC, kPhyAddress << 21);
  EXPECT_NE(machine.read(MDIC) & kMdiError, 0U);
}

TEST(E1000Test, NegotiationTakesTheLinkDownForAWhile) {
  E1000Machine machine;
  machine.write(IMS, kLinkChange);
  phy_write(machine, 0, 0x1340);
  EXPECT_EQ(machine.read(STATUS) & kLinkUp, 0U);
  EXPECT_EQ(machine.read(ICR), kLinkChange);
  EXPECT_EQ(phy_read(machine, 1) & 0x24, 0);
  EXPECT_EQ(phy_read(machine, 0), 0x1140);
  machine.clock.advance(1'000'000'000);
  EXPECT_EQ(machine.read(STATUS) & kLinkUp, kLinkUp);
  EXPECT_EQ(phy_read(machine, 1) & 0x24, 0x20);  // the loss shows once
  EXPECT_EQ(phy_read(machine, 1) & 0x24, 0x24);
  EXPECT_TRUE(machine.interrupts());
}

TEST(E1000Test, ForcedSpeedShowsInTheStatus) {
  E1000Machine machine;
  phy_write(machine, 0, 0x2000);
  EXPECT_EQ(machine.read(STATUS) & (kFullDuplex | kLinkUp | kSpeed), kLinkUp | 1u << kSpeedShift);
}

TEST(E1000Test, LinkOfTheBackendIsTheCable) {
  E1000Machine machine;
  machine.write(IMS, kLinkChange);
  machine.backend.set_link(net::NetBackend::End::kHost, false);
  EXPECT_EQ(machine.read(STATUS) & kLinkUp, 0U);
  EXPECT_TRUE(machine.interrupts());
  EXPECT_EQ(machine.read(ICR), kLinkChange);
  EXPECT_FALSE(machine.interrupts());
  machine.backend.set_link(net::NetBackend::End::kHost, true);
  EXPECT_FALSE(machine.interrupts());
  machine.clock.advance(1'000'000'000);
  EXPECT_TRUE(machine.interrupts());
  EXPECT_EQ(machine.read(STATUS) & kLinkUp, kLinkUp);
}

TEST(E1000Test, WithoutACableThereIsNoLink) {
  E1000Machine machine(false);
  EXPECT_EQ(machine.read(STATUS) & kLinkUp, 0U);
  machine.write(CTRL, machine.read(CTRL) | kReset);
  EXPECT_EQ(machine.read(STATUS) & kLinkUp, 0U);
}

TEST(E1000Test, PhyResetNegotiatesAgain) {
  E1000Machine machine;
  phy_write(machine, 4, 0x61);
  machine.write(CTRL, machine.read(CTRL) | kPhyReset);
  machine.write(CTRL, machine.read(CTRL) & ~kPhyReset);
  EXPECT_EQ(machine.read(STATUS) & kLinkUp, 0U);
  EXPECT_EQ(phy_read(machine, 4), 0x0de1);
  machine.clock.advance(1'000'000'000);
  EXPECT_EQ(machine.read(STATUS) & kLinkUp, kLinkUp);
}

// --- interrupts

TEST(E1000Test, CausesInterruptWhileTheyAreAllowed) {
  E1000Machine machine;
  machine.write(ICS, kRxTimer | kTxWritten);
  EXPECT_FALSE(machine.interrupts());
  machine.write(IMS, kRxTimer);
  EXPECT_TRUE(machine.interrupts());
  machine.write(IMC, kRxTimer);
  EXPECT_FALSE(machine.interrupts());
  machine.write(IMS, kRxTimer);
  machine.write(ICR, kRxTimer);
  EXPECT_FALSE(machine.interrupts());
  EXPECT_EQ(machine.read(ICR), kTxWritten);
  EXPECT_EQ(machine.read(ICR), 0U);
  EXPECT_EQ(machine.read(IMS), kRxTimer);
  EXPECT_EQ(machine.read(IMC), 0U);
}

TEST(E1000Test, ThrottleHoldsTheNextInterruptBack) {
  E1000Machine machine;
  machine.write(ITR, 1000);  // 256 us
  machine.write(IMS, kRxTimer);
  machine.write(ICS, kRxTimer);
  EXPECT_TRUE(machine.interrupts());
  machine.read(ICR);
  machine.clock.advance(100'000);
  machine.write(ICS, kRxTimer);
  EXPECT_FALSE(machine.interrupts());
  machine.clock.advance(155'999);
  EXPECT_FALSE(machine.interrupts());
  machine.clock.advance(1);
  EXPECT_TRUE(machine.interrupts());
  machine.read(ICR);
  machine.clock.advance(256'000);
  machine.write(ICS, kRxTimer);
  EXPECT_TRUE(machine.interrupts());
}

TEST(E1000Test, ReceiveTimerBeginsAnewWithEachPacketButNotForever) {
  E1000Machine machine;
  machine.set_up();
  machine.write(RDTR, 100);
  machine.write(RADV, 150);
  machine.write(IMS, kRxTimer);
  for (uint32_t i = 0; i < 4; ++i) machine.offer(i);
  machine.backend.deliver(E1000Machine::frame_to(kCardMac));
  EXPECT_TRUE(machine.status(0) & kDone);
  machine.clock.advance(99 * 1024);
  EXPECT_FALSE(machine.interrupts());
  machine.backend.deliver(E1000Machine::frame_to(kCardMac));
  machine.clock.advance(50 * 1024);
  EXPECT_FALSE(machine.interrupts());
  machine.clock.advance(1024);  // the first packet's 150
  EXPECT_TRUE(machine.interrupts());
  machine.read(ICR);
  machine.clock.advance(200 * 1024);
  EXPECT_FALSE(machine.interrupts());
  machine.backend.deliver(E1000Machine::frame_to(kCardMac));
  machine.write(RDTR, 100 | kFlush);
  EXPECT_TRUE(machine.interrupts());
  EXPECT_EQ(machine.read(RDTR), 100U);
}

TEST(E1000Test, SmallPacketsAreToldAtOnce) {
  E1000Machine machine;
  machine.set_up();
  machine.write(RDTR, 100);
  machine.write(RSRPD, 64);
  machine.offer(0);
  machine.offer(1);
  machine.backend.deliver(E1000Machine::frame_to(kCardMac, 61));
  EXPECT_EQ(machine.read(ICR) & kSmallPacket, 0U);
  machine.backend.deliver(E1000Machine::frame_to(kCardMac, 60));
  EXPECT_EQ(machine.read(ICR) & kSmallPacket, kSmallPacket);
}

TEST(E1000Test, TransmitInterruptsWaitWhenTheDescriptorSaysSo) {
  E1000Machine machine;
  machine.set_up();
  machine.write(TIDV, 10);
  machine.write(IMS, kTxWritten);
  machine.send(E1000Machine::frame_to(kStranger), kDelay);
  EXPECT_TRUE(machine.done(0));
  EXPECT_FALSE(machine.interrupts());
  machine.clock.advance(10 * 1024);
  EXPECT_TRUE(machine.interrupts());
  machine.read(ICR);
  machine.send(E1000Machine::frame_to(kStranger));
  EXPECT_TRUE(machine.interrupts());
}

// --- state

TEST(E1000Test, StateTravels) {
  E1000Machine source;
  source.set_up();
  source.write(ITR, 1000);
  source.write(RDTR, 100);
  source.write(IMS, kRxTimer);
  source.offer(0);
  source.backend.deliver(E1000Machine::frame_to(kCardMac));
  Microwire wire{source};
  wire.command(2, 1);
  phy_write(source, 4, 0x61);
  add_context(source, {.segment = true, .header = 54, .mss = 10, .payload = 100});
  add_data(source, ip_frame(6, 100), kSegment);
  source.backend.full = true;
  source.go();

  E1000Machine target;
  std::memcpy(target.ram->host(), source.ram->host(), E1000Machine::kRam);
  source.card->stop();
  target.card->stop();
  const auto state = saved_state(*source.card);
  ASSERT_TRUE(restore_state(*target.card, state));
  EXPECT_EQ(saved_state(*target.card), state);
  target.card->start();
  target.settle();
  EXPECT_EQ(target.backend.sent.size(), 10U);
  EXPECT_TRUE(target.done(1));
  EXPECT_EQ(phy_read(target, 4), 0x61);
  EXPECT_EQ(Microwire{target}.take(), 0xab00);
  EXPECT_FALSE(target.interrupts());
  target.clock.advance(100 * 1024);
  EXPECT_TRUE(target.interrupts());
}

TEST(E1000Test, ALinkThatTheStateDoesNotKnowIsNoticed) {
  E1000Machine source, target;
  source.card->stop();
  target.card->stop();
  target.backend.set_link(net::NetBackend::End::kHost, false);
  ASSERT_TRUE(restore_state(*target.card, saved_state(*source.card)));
  EXPECT_EQ(target.read(STATUS) & kLinkUp, 0U);
  EXPECT_EQ(target.read(ICR), kLinkChange);
}

TEST(E1000Test, ImpossibleStateIsRefused) {
  E1000Machine machine;
  const auto state = saved_state(*machine.card);
  constexpr uint16_t kRegisters = 1, kSent = 8, kDeadlines = 9, kPhyFlags = 12, kEepromCounts = 16;
  for (const auto& damaged :
       {with_patched_field(state, kRegisters, RDH, 0x10000, 4), with_patched_field(state, kSent, 0, 1, 4),
        with_patched_field(state, kDeadlines, 7, 0x80, 1), with_patched_field(state, kPhyFlags, 1, 1, 1),
        with_patched_field(state, kEepromCounts, 0, 30, 1)}) {
    EXPECT_FALSE(restore_state(*machine.card, damaged));
    EXPECT_EQ(saved_state(*machine.card), state);
  }
}

}  // namespace
}  // namespace kite::devices

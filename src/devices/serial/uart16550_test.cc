#include "devices/serial/uart16550.h"

#include <gtest/gtest.h>

#include <vector>

namespace kite::devices {
namespace {

using namespace uart_regs;

constexpr uint8_t kFifosOn = kFifoEnable;
constexpr uint8_t kTrigger8 = kFifoEnable | 2u << kTriggerShift;

void receive(Uart16550& uart, std::initializer_list<uint8_t> bytes) {
  uart.receive(std::span(bytes.begin(), bytes.size()));
}

std::vector<uint8_t> sent(const Uart16550& uart) {
  const auto queue = uart.transmit_queue();
  return {queue.begin(), queue.end()};
}

TEST(Uart16550Test, RegistersAfterReset) {
  Uart16550 uart;
  EXPECT_EQ(uart.read(kIer), 0);
  EXPECT_EQ(uart.read(kIir), kIirNone);
  EXPECT_EQ(uart.read(kLcr), 0);
  EXPECT_EQ(uart.read(kMcr), 0);
  EXPECT_EQ(uart.read(kLsr), kThre | kTemt);
  EXPECT_EQ(uart.read(kMsr), kCts | kDsr | kDcd);
}

TEST(Uart16550Test, DivisorHidesBehindDlab) {
  Uart16550 uart;
  uart.write(kLcr, kDlab);
  uart.write(kDll, 0x34);
  uart.write(kDlm, 0x12);
  EXPECT_EQ(uart.read(kDll), 0x34);
  EXPECT_EQ(uart.read(kDlm), 0x12);
  uart.write(kLcr, 0);
  EXPECT_EQ(uart.read(kIer), 0);
  EXPECT_EQ(uart.state().divisor, 0x1234);
}

TEST(Uart16550Test, ScratchKeepsAByte) {
  Uart16550 uart;
  uart.write(kScr, 0xa5);
  EXPECT_EQ(uart.read(kScr), 0xa5);
}

TEST(Uart16550Test, IerAndMcrKeepTheirBits) {
  Uart16550 uart;
  uart.write(kIer, 0xff);
  uart.write(kMcr, 0xff);
  EXPECT_EQ(uart.read(kIer), 0x0f);
  EXPECT_EQ(uart.read(kMcr), 0x1f);
}

TEST(Uart16550Test, LsrAndMsrIgnoreWrites) {
  Uart16550 uart;
  uart.write(kLsr, 0);
  uart.write(kMsr, 0);
  EXPECT_EQ(uart.read(kLsr), kThre | kTemt);
  EXPECT_EQ(uart.read(kMsr), kCts | kDsr | kDcd);
}

// --- transmitter ---

TEST(Uart16550Test, ByteWaitsUntilTransmitted) {
  Uart16550 uart;
  uart.write(kThr, 'a');
  EXPECT_EQ(sent(uart), std::vector<uint8_t>{'a'});
  EXPECT_EQ(uart.read(kLsr) & (kThre | kTemt), 0);
  uart.transmitted(1);
  EXPECT_EQ(uart.read(kLsr) & (kThre | kTemt), kThre | kTemt);
}

TEST(Uart16550Test, HoldingRegisterHasOnePlace) {
  Uart16550 uart;
  uart.write(kThr, 'a');
  uart.write(kThr, 'b');
  EXPECT_EQ(sent(uart), std::vector<uint8_t>{'b'});
}

TEST(Uart16550Test, TransmitFifoHolds16AndDropsTheRest) {
  Uart16550 uart;
  uart.write(kFcr, kFifosOn);
  for (uint8_t i = 0; i < 20; ++i) uart.write(kThr, i);
  EXPECT_EQ(sent(uart).size(), 16U);
  EXPECT_EQ(sent(uart).back(), 15);
}

TEST(Uart16550Test, PartOfTheFifoGoesOut) {
  Uart16550 uart;
  uart.write(kFcr, kFifosOn);
  for (uint8_t i = 0; i < 4; ++i) uart.write(kThr, i);
  uart.transmitted(3);
  EXPECT_EQ(sent(uart), std::vector<uint8_t>{3});
  EXPECT_EQ(uart.read(kLsr) & kThre, 0);
}

TEST(Uart16550Test, ClearedTransmitterHasAnotherEpoch) {
  Uart16550 uart;
  uart.write(kFcr, kFifosOn);
  uart.write(kThr, 'a');
  const uint32_t epoch = uart.transmit_epoch();
  uart.write(kFcr, kFifosOn | kTxFifoReset);
  EXPECT_TRUE(sent(uart).empty());
  EXPECT_NE(uart.transmit_epoch(), epoch);
}

TEST(Uart16550Test, EnablingThreInterruptWhileEmptyInterrupts) {
  Uart16550 uart;
  uart.write(kIer, kEtbei);
  EXPECT_TRUE(uart.interrupt());
  EXPECT_EQ(uart.read(kIir), kIirThrEmpty);
}

TEST(Uart16550Test, ReadingIirAcknowledgesThre) {
  Uart16550 uart;
  uart.write(kIer, kEtbei);
  uart.read(kIir);
  EXPECT_EQ(uart.read(kIir), kIirNone);
}

TEST(Uart16550Test, ThreInterruptComesBackWhenTheByteIsOut) {
  Uart16550 uart;
  uart.write(kIer, kEtbei);
  uart.write(kThr, 'a');
  EXPECT_FALSE(uart.interrupt());
  uart.transmitted(1);
  EXPECT_EQ(uart.read(kIir), kIirThrEmpty);
}

TEST(Uart16550Test, ReadingIirForAnotherSourceKeepsThre) {
  Uart16550 uart;
  uart.write(kIer, kEtbei | kErbfi);
  receive(uart, {'x'});
  EXPECT_EQ(uart.read(kIir), kIirData);
  uart.read(kRbr);
  EXPECT_EQ(uart.read(kIir), kIirThrEmpty);
}

// --- receiver ---

TEST(Uart16550Test, ReceivedByteIsReadOnce) {
  Uart16550 uart;
  receive(uart, {'x'});
  EXPECT_EQ(uart.read(kLsr) & kDr, kDr);
  EXPECT_EQ(uart.read(kRbr), 'x');
  EXPECT_EQ(uart.read(kLsr) & kDr, 0);
  EXPECT_EQ(uart.read(kRbr), 'x');
}

TEST(Uart16550Test, OverrunWithoutFifoKeepsTheNewcomer) {
  Uart16550 uart;
  receive(uart, {'x', 'y'});
  EXPECT_EQ(uart.read(kLsr) & kOe, kOe);
  EXPECT_EQ(uart.read(kLsr) & kOe, 0);
  EXPECT_EQ(uart.read(kRbr), 'y');
}

TEST(Uart16550Test, OverrunOfTheFifoKeepsTheOld) {
  Uart16550 uart;
  uart.write(kFcr, kFifosOn);
  for (uint8_t i = 0; i < 17; ++i) receive(uart, {i});
  EXPECT_EQ(uart.read(kLsr) & kOe, kOe);
  for (uint8_t i = 0; i < 16; ++i) EXPECT_EQ(uart.read(kRbr), i);
  EXPECT_EQ(uart.read(kLsr) & kDr, 0);
}

TEST(Uart16550Test, SpaceFollowsTheFifo) {
  Uart16550 uart;
  EXPECT_EQ(uart.receive_space(), 1U);
  uart.write(kFcr, kFifosOn);
  receive(uart, {1, 2, 3});
  EXPECT_EQ(uart.receive_space(), 13U);
}

TEST(Uart16550Test, DataInterruptWaitsForTheTriggerLevel) {
  Uart16550 uart;
  uart.write(kFcr, kTrigger8);
  uart.write(kIer, kErbfi);
  receive(uart, {1, 2, 3, 4, 5, 6, 7});
  EXPECT_FALSE(uart.interrupt());
  receive(uart, {8});
  EXPECT_EQ(uart.read(kIir), kIirData | kIirFifos);
  uart.read(kRbr);
  EXPECT_FALSE(uart.interrupt());
}

TEST(Uart16550Test, TimeoutInterruptsBelowTheTriggerLevel) {
  Uart16550 uart;
  uart.write(kFcr, kTrigger8);
  uart.write(kIer, kErbfi);
  receive(uart, {1});
  EXPECT_TRUE(uart.wants_timeout());
  uart.character_timeout();
  EXPECT_EQ(uart.read(kIir), kIirTimeout | kIirFifos);
  uart.read(kRbr);
  EXPECT_FALSE(uart.interrupt());
}

TEST(Uart16550Test, NoTimeoutWithoutFifos) {
  Uart16550 uart;
  uart.write(kIer, kErbfi);
  receive(uart, {1});
  EXPECT_FALSE(uart.wants_timeout());
}

TEST(Uart16550Test, SwitchingTheFifosClearsThem) {
  Uart16550 uart;
  uart.write(kFcr, kFifosOn);
  receive(uart, {1, 2});
  uart.write(kThr, 'a');
  uart.write(kFcr, 0);
  EXPECT_EQ(uart.read(kLsr) & (kDr | kThre), kThre);
}

TEST(Uart16550Test, ReceiverResetLeavesTheTransmitter) {
  Uart16550 uart;
  uart.write(kFcr, kFifosOn);
  receive(uart, {1, 2});
  uart.write(kThr, 'a');
  uart.write(kFcr, kFifosOn | kRxFifoReset);
  EXPECT_EQ(uart.read(kLsr) & (kDr | kThre), 0);
}

TEST(Uart16550Test, FcrBitsCountOnlyWithTheEnable) {
  Uart16550 uart;
  uart.write(kFcr, 0xc0);
  EXPECT_EQ(uart.read(kIir), kIirNone);
  EXPECT_EQ(uart.state().fcr, 0);
}

TEST(Uart16550Test, BreakIsAZeroWithAnError) {
  Uart16550 uart;
  uart.write(kFcr, kFifosOn);
  uart.write(kIer, kElsi);
  receive(uart, {'x'});
  uart.receive_break();
  EXPECT_EQ(uart.read(kLsr) & (kBi | kFifoError), kFifoError);
  uart.read(kRbr);
  EXPECT_EQ(uart.read(kIir), kIirLineStatus | kIirFifos);
  EXPECT_EQ(uart.read(kLsr) & (kBi | kFifoError), kBi | kFifoError);
  EXPECT_EQ(uart.read(kLsr) & (kBi | kFifoError), 0);
  EXPECT_EQ(uart.read(kRbr), 0);
}

// --- modem ---

TEST(Uart16550Test, LoopbackReturnsBytes) {
  Uart16550 uart;
  uart.write(kMcr, kLoop);
  uart.write(kThr, 0x5a);
  EXPECT_TRUE(sent(uart).empty());
  EXPECT_EQ(uart.read(kLsr) & (kDr | kThre), kDr | kThre);
  EXPECT_EQ(uart.read(kRbr), 0x5a);
}

TEST(Uart16550Test, LoopbackHearsNothingFromOutside) {
  Uart16550 uart;
  uart.write(kMcr, kLoop);
  EXPECT_EQ(uart.receive_space(), 0U);
  receive(uart, {'x'});
  uart.receive_break();
  EXPECT_EQ(uart.read(kLsr) & kDr, 0);
}

TEST(Uart16550Test, LoopbackConnectsOutputsToInputs) {
  Uart16550 uart;
  uart.write(kMcr, kLoop);
  uart.read(kMsr);
  const std::pair<uint8_t, uint8_t> pairs[] = {{kRts, kCts}, {kDtr, kDsr}, {kOut1, kRi}, {kOut2, kDcd}};
  for (const auto& [output, input] : pairs) {
    uart.write(kMcr, static_cast<uint8_t>(kLoop | output));
    EXPECT_EQ(uart.read(kMsr) & 0xf0, input);
  }
}

TEST(Uart16550Test, ModemChangesLeaveMarksAndInterrupt) {
  Uart16550 uart;
  uart.write(kIer, kEdssi);
  uart.set_modem_lines(kDsr | kDcd | kRi);
  EXPECT_EQ(uart.read(kIir), kIirModemStatus);
  EXPECT_EQ(uart.read(kMsr), kDsr | kDcd | kRi | kDcts);
  EXPECT_FALSE(uart.interrupt());
}

TEST(Uart16550Test, RingLeavesAMarkOnlyWhenItEnds) {
  Uart16550 uart;
  uart.set_modem_lines(kCts | kDsr | kDcd | kRi);
  EXPECT_EQ(uart.read(kMsr) & 0x0f, 0);
  uart.set_modem_lines(kCts | kDsr | kDcd);
  EXPECT_EQ(uart.read(kMsr) & 0x0f, kTeri);
}

TEST(Uart16550Test, Out2ConnectsTheInterrupt) {
  Uart16550 uart;
  uart.write(kIer, kEtbei);
  EXPECT_FALSE(uart.interrupt_connected());
  uart.write(kMcr, kOut2);
  EXPECT_TRUE(uart.interrupt_connected());
  uart.write(kMcr, kOut2 | kLoop);
  EXPECT_FALSE(uart.interrupt_connected());
}

TEST(Uart16550Test, CharacterTimeFollowsTheFormat) {
  Uart16550 uart;
  uart.write(kLcr, kDlab);
  uart.write(kDll, 1);
  uart.write(kDlm, 0);
  uart.write(kLcr, 0x03);  // 8N1: ten bits
  EXPECT_EQ(uart.character_ns(), 10 * 1'000'000'000LL / 115'200);
  uart.write(kLcr, 0x03 | kParity | kStopBits);
  EXPECT_EQ(uart.character_ns(), 12 * 1'000'000'000LL / 115'200);
}

TEST(Uart16550Test, ZeroDivisorHasATime) {
  Uart16550 uart;
  uart.write(kLcr, kDlab);
  uart.write(kDll, 0);
  EXPECT_GT(uart.character_ns(), 0);
}

TEST(Uart16550Test, RefusesImpossibleStates) {
  Uart16550 uart;
  const auto refused = [&](auto change) {
    Uart16550::State state = uart.state();
    change(state);
    return !uart.set_state(state);
  };
  EXPECT_TRUE(refused([](auto& s) { s.rx.count = 17; }));
  EXPECT_TRUE(refused([](auto& s) { s.rx.count = 2; }));  // without FIFOs
  EXPECT_TRUE(refused([](auto& s) { s.tx.count = 255; }));
  EXPECT_TRUE(refused([](auto& s) { s.ier = 0x10; }));
  EXPECT_TRUE(refused([](auto& s) { s.fcr = 0xc0; }));
  EXPECT_TRUE(refused([](auto& s) { s.fcr = 0x03; }));
  EXPECT_TRUE(refused([](auto& s) { s.mcr = 0x20; }));
  EXPECT_TRUE(refused([](auto& s) { s.rx.errors[3] = 0x01; }));
  EXPECT_TRUE(refused([](auto& s) { s.timeout_pending = true; }));
  EXPECT_FALSE(refused([](auto& s) { s.fcr = 0x01, s.rx.count = 16; }));
}

}  // namespace
}  // namespace kite::devices

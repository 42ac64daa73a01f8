#include "devices/xhci/xhci.h"

#include <gtest/gtest.h>

#include "devices/test_device.h"
#include "devices/test_ports.h"
#include "devices/usb/test_usb.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace xhci;
using Bytes = std::vector<uint8_t>;

class Messages final : public bus::MsiSink {
 public:
  bool send_msi(uint64_t, uint32_t data) override { return sent.push_back(data), true; }
  std::vector<uint32_t> sent;
};

class XhciTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kRam = 2 << 20, kBar = 0xd0000000;
  static constexpr uint64_t kContexts = 0x1000, kCommands = 0x2000, kTable = 0x3000, kEvents = 0x4000, kInput = 0x5000,
                            kOutput = 0x6000, kControlRing = 0x7000, kInRing = 0x8000, kOutRing = 0x9000,
                            kData = 0x10000;
  static constexpr uint32_t kRingSize = 16;
  static constexpr unsigned kInIndex = 3, kOutIndex = 4;

  XhciTest() {
    auto block = RamBlock::create("ram", kRam);
    EXPECT_TRUE(block);
    ram_ = *block;
    memory_.map(0, Region::ram("ram", ram_));
    device_.reset();
    xhci_.reset();
    EXPECT_TRUE(pci_.attach(xhci_, 2, 0));
    xhci_.config_write(0x10, 4, kBar);
    xhci_.config_write(0x04, 2, 6);
    memory_.commit();
  }
  ~XhciTest() override { xhci_.usb().detach(device_); }

  uint32_t in(uint64_t reg) { return memory_.in(kBar + reg, 4); }
  void out(uint64_t reg, uint64_t value, unsigned size = 4) { memory_.out(kBar + reg, value, size); }
  uint32_t op(uint64_t reg) { return in(kOperational + reg); }
  template <class T>
  void put(uint64_t address, T value) {
    std::memcpy(ram_->host() + address, &value, sizeof value);
  }
  template <class T>
  T get(uint64_t address) {
    return load<T>(ram_->host() + address);
  }
  void start() {
    out(kOperational + CONFIG, kSlots);
    out(kOperational + DCBAAP, kContexts, 8);
    out(kOperational + CRCR, kCommands | kRingCycle, 8);
    put(kTable, kEvents);
    put(kTable + 8, kRingSize);
    out(kSet + ERSTSZ, 1);
    out(kSet + ERDP, kEvents, 8);
    out(kSet + ERSTBA, kTable, 8);
    out(kSet + IMAN, kEnable);
    out(kOperational + USBCMD, kRun | kInterruptsOn);
  }
  // The next event; type 0: there is none. The ring's end is taken care of.
  Trb event() {
    const auto trb = get<Trb>(kEvents + taken_ % kRingSize * kTrbBytes);
    const bool cycle = taken_ / kRingSize % 2 == 0;
    if (((trb.control & kCycle) != 0) != cycle) return {};
    ++taken_;
    out(kSet + ERDP, (kEvents + taken_ % kRingSize * kTrbBytes) | kHandlerBusy, 8);
    return trb;
  }
  static unsigned code(const Trb& trb) { return trb.status >> 24; }
  // Runs a command; answers its completion code.
  unsigned command(uint32_t type, uint64_t parameter = 0, uint32_t control = 0) {
    put(kCommands + commands_ * kTrbBytes, Trb{parameter, 0, type << 10 | control | kCycle});
    ++commands_;
    out(kDoorbells, 0);
    while (true) {
      const Trb trb = event();
      if (trb.type() == 0 || trb.type() == kCommandEvent) return code(trb);
    }
  }
  void context(uint64_t base, unsigned index, std::array<uint32_t, 5> words) {
    for (unsigned word = 0; word < words.size(); ++word) put(base + index * kContextBytes + word * 4, words[word]);
  }
  void input(uint32_t drop, uint32_t add) {
    std::memset(ram_->host() + kInput, 0, 33 * kContextBytes);
    put(kInput, drop);
    put(kInput + 4, add);
  }
  static std::array<uint32_t, 5> endpoint(uint32_t type, uint64_t ring) {
    return {0, type << 3 | 64u << 16, static_cast<uint32_t>(ring) | 1, 0, 0};
  }
  void plug_in() {
    start();
    ASSERT_TRUE(xhci_.usb().attach(device_, "1"));
    out(kOperational + kPortRegisters, kPower | kPortReset);
    EXPECT_EQ(command(kEnableSlot), kSuccess);
    put(kContexts + 8, kOutput);
    input(0, 3);
    context(kInput, 1, {1u << kEntriesShift, 1u << kRootPortShift, 0, 0, 0});
    context(kInput, 2, endpoint(xhci::kControl, kControlRing));
    ASSERT_EQ(command(kAddressDevice, kInput, 1u << 24), kSuccess);
    ASSERT_TRUE(usb_configure(device_));
    input(0, 1 | 1u << kInIndex | 1u << kOutIndex);
    context(kInput, 1, {4u << kEntriesShift, 1u << kRootPortShift, 0, 0, 0});
    context(kInput, 1 + kInIndex, endpoint(xhci::kBulkIn, kInRing));
    context(kInput, 1 + kOutIndex, endpoint(xhci::kBulkOut, kOutRing));
    ASSERT_EQ(command(kConfigureEndpoint, kInput, 1u << 24), kSuccess);
  }
  void transfer(uint64_t ring, unsigned at, uint64_t parameter, uint32_t status, uint32_t control) {
    put(ring + at * kTrbBytes, Trb{parameter, status, control | kCycle});
  }
  void ring(unsigned index) { out(kDoorbells + 4, index); }
  uint32_t endpoint_state(unsigned index) { return get<uint32_t>(kOutput + index * kContextBytes) & 7; }

  static constexpr uint64_t kSet = kRuntime + kInterrupterSets;
  TestSpace ports_, memory_{uint64_t{1} << 36};
  std::shared_ptr<RamBlock> ram_;
  GuestMemory guest_memory_{memory_.space()};
  ManualClock clock_;
  FakeLines lines_;
  Messages messages_;
  bus::PciBus pci_{memory_.root(), ports_.root(), lines_, bus::PciBus::Config{.msi = &messages_}};
  Xhci xhci_{"xhci", {.bus_name = "usb.0"}, guest_memory_, clock_};
  FakeUsbDevice device_{{usb::Speed::kHigh}};
  unsigned taken_ = 0, commands_ = 0;
};

TEST_F(XhciTest, TellsWhatItIs) {
  EXPECT_EQ(in(CAPLENGTH), 0x01000040u);
  EXPECT_EQ(memory_.in(kBar, 1), 0x40u);
  EXPECT_EQ(in(HCSPARAMS1), 8u << 24 | 16u << 8 | 64u);
  EXPECT_EQ(in(kExtended), 0x02000402u);
  EXPECT_EQ(in(kExtended + 8), 0x0401u);
  EXPECT_EQ(in(kExtended + 16), 0x03000002u);
  EXPECT_EQ(in(kExtended + 24), 0x0405u);
  EXPECT_EQ(op(USBSTS), kHalted);
  EXPECT_EQ(op(PAGESIZE), 1u);
}

TEST_F(XhciTest, CommandsRunAndInterrupt) {
  start();
  EXPECT_EQ(op(USBSTS), 0u);
  EXPECT_FALSE(lines_.level(bus::PciBus::pirq_of(2, 1)));
  put(kCommands, Trb{0, 0, kNoOpCommand << 10 | kCycle});
  out(kDoorbells, 0);
  EXPECT_TRUE(lines_.level(bus::PciBus::pirq_of(2, 1)));
  EXPECT_EQ(op(USBSTS), kEventInterrupt);
  out(kSet + IMAN, kPending | kEnable);
  EXPECT_FALSE(lines_.level(bus::PciBus::pirq_of(2, 1)));
  const Trb done = event();
  EXPECT_EQ(done.type(), kCommandEvent);
  EXPECT_EQ(done.parameter, kCommands);
  EXPECT_EQ(code(done), kSuccess);
  commands_ = 1;
  EXPECT_EQ(command(40), kTrbError);
  EXPECT_EQ(command(kDisableSlot, 0, 1u << 24), kSlotNotEnabled);
}

TEST_F(XhciTest, LinksAreFollowedAndTurnTheCycle) {
  start();
  put(kCommands, Trb{kCommands + 0x100, 0, kLink << 10 | kCycle | kToggle});
  put(kCommands + 0x100, Trb{0, 0, kNoOpCommand << 10});  // the other cycle
  put(kCommands + 0x110, Trb{0, 0, kCycle});
  out(kDoorbells, 0);
  EXPECT_EQ(code(event()), kSuccess);
  EXPECT_EQ(event().type(), 0u);
}

TEST_F(XhciTest, ARingOfLinksStopsTheController) {
  start();
  put(kCommands, Trb{kCommands, 0, kLink << 10 | kCycle});
  out(kDoorbells, 0);
  EXPECT_EQ(op(USBSTS), kHalted | kControllerError);
  out(kOperational + USBCMD, kRun);
  EXPECT_EQ(op(USBSTS), kHalted | kControllerError);
  out(kOperational + USBCMD, kHcReset);
  EXPECT_EQ(op(USBSTS), kHalted);
}

TEST_F(XhciTest, PortsTellOfPlugs) {
  start();
  ASSERT_TRUE(xhci_.usb().attach(device_, "2"));
  const uint64_t port = kOperational + kPortRegisters + kPortStride;
  EXPECT_EQ(in(port), kConnected | kConnectChange | kPower | 3u << kSpeedShift | kPolling << kLinkShift);
  const Trb told = event();
  EXPECT_EQ(told.type(), kPortEvent);
  EXPECT_EQ(told.parameter, uint64_t{2} << 24);
  out(port, kPower | kConnectChange | kPortReset);
  EXPECT_EQ(in(port), kConnected | kResetChange | kEnabled | kPower | 3u << kSpeedShift);
  EXPECT_EQ(event().type(), kPortEvent);
  xhci_.usb().detach(device_);
  EXPECT_EQ(in(port), kConnectChange | kPower | kRxDetect << kLinkShift);
  EXPECT_EQ(event().type(), kPortEvent);
}

TEST_F(XhciTest, FastDevicesComeUpOnTheirOwnPorts) {
  FakeUsbDevice fast{{usb::Speed::kHigh, usb::Speed::kSuper}};
  fast.reset();
  ASSERT_TRUE(xhci_.usb().attach(fast, "1"));
  EXPECT_EQ(in(kOperational + kPortRegisters + 4 * kPortStride),
            kConnected | kConnectChange | kEnabled | kPower | 4u << kSpeedShift);
  xhci_.usb().detach(fast);
}

TEST_F(XhciTest, ADeviceIsAddressedAndSpokenTo) {
  plug_in();
  EXPECT_EQ(device_.address(), 1);
  EXPECT_EQ(get<uint32_t>(kOutput + 12), 1u | uint32_t{kSlotConfigured} << kSlotStateShift);
  EXPECT_EQ(endpoint_state(1), kRunning);
  EXPECT_EQ(endpoint_state(kInIndex), kRunning);
  // GET_DESCRIPTOR(DEVICE): setup, data, status.
  transfer(kControlRing, 0, 0x0012'0000'0100'0680, 8, kSetupStage << 10 | kImmediate | 3u << 16);
  transfer(kControlRing, 1, kData, 64, kDataStage << 10 | kDirectionIn | kShortInterrupts);
  transfer(kControlRing, 2, 0, 0, kStatusStage << 10 | kOnCompletion);
  ring(1);
  const Trb short_one = event();
  EXPECT_EQ(code(short_one), kShortPacket);
  EXPECT_EQ(short_one.status & 0xffffff, 64u - 18);
  EXPECT_EQ(short_one.parameter, kControlRing + kTrbBytes);
  EXPECT_EQ(code(event()), kSuccess);
  EXPECT_EQ(get<uint16_t>(kData), 0x0112);
}

TEST_F(XhciTest, AStallHaltsUntilTheEndpointIsReset) {
  plug_in();
  transfer(kControlRing, 0, 0x0012'0000'7700'0680, 8, kSetupStage << 10 | kImmediate | 3u << 16);
  transfer(kControlRing, 1, kData, 18, kDataStage << 10 | kDirectionIn);
  ring(1);
  const Trb stalled = event();
  EXPECT_EQ(code(stalled), kStallError);
  EXPECT_EQ(stalled.parameter, kControlRing + kTrbBytes);
  EXPECT_EQ(endpoint_state(1), kEndpointHalted);
  EXPECT_EQ(command(kSetDequeue, kControlRing | 1, 1u << 24 | 1u << 16), kContextStateError);
  EXPECT_EQ(command(kResetEndpoint, 0, 1u << 24 | 1u << 16), kSuccess);
  EXPECT_EQ(endpoint_state(1), kEndpointStopped);
  EXPECT_EQ(command(kSetDequeue, (kControlRing + 0x200) | 1, 1u << 24 | 1u << 16), kSuccess);
  transfer(kControlRing + 0x200, 0, 0, 0, xhci::kNoOp << 10 | kOnCompletion);
  ring(1);
  EXPECT_EQ(code(event()), kSuccess);
}

TEST_F(XhciTest, PartsMakeOneTransfer) {
  plug_in();
  std::memcpy(ram_->host() + kData, "abcdef", 6);
  transfer(kOutRing, 0, kData, 4, kNormal << 10 | kChain);
  transfer(kOutRing, 1, kData + 4, 2, kNormal << 10 | kChain);
  ring(kOutIndex);
  EXPECT_TRUE(device_.taken.empty());  // its last part is not there yet
  transfer(kOutRing, 2, 0x6867, 2, kNormal << 10 | kImmediate | kOnCompletion);
  ring(kOutIndex);
  EXPECT_EQ(device_.taken, (Bytes{'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}));
  EXPECT_EQ(code(event()), kSuccess);
  EXPECT_EQ(event().type(), 0u);
}

TEST_F(XhciTest, WhatTheDeviceIsNotReadyForWaits) {
  plug_in();
  transfer(kInRing, 0, kData, 8, kNormal << 10 | kOnCompletion | kShortInterrupts);
  ring(kInIndex);
  EXPECT_EQ(event().type(), 0u);
  device_.to_give = {1, 2, 3};
  device_.endpoint_ready(0x81);
  const Trb done = event();
  EXPECT_EQ(code(done), kShortPacket);
  EXPECT_EQ(done.status & 0xffffff, 5u);
  EXPECT_EQ(done.control >> 16, 1u << 8 | kInIndex);
  EXPECT_EQ(get<uint32_t>(kData) & 0xffffff, 0x030201u);
}

TEST_F(XhciTest, AWaitingTransferIsToldOfWhenItsEndpointStops) {
  plug_in();
  transfer(kInRing, 0, kData, 8, kNormal << 10 | kOnCompletion);
  ring(kInIndex);
  put(kCommands + commands_ * kTrbBytes, Trb{0, 0, kStopEndpoint << 10 | 1u << 24 | kInIndex << 16 | kCycle});
  ++commands_;
  out(kDoorbells, 0);
  const Trb stopped = event();
  EXPECT_EQ(stopped.type(), kTransferEvent);
  EXPECT_EQ(code(stopped), kStopped);
  EXPECT_EQ(stopped.parameter, kInRing);
  EXPECT_EQ(stopped.status & 0xffffff, 8u);
  EXPECT_EQ(event().type(), kCommandEvent);
  EXPECT_EQ(endpoint_state(kInIndex), kEndpointStopped);
  EXPECT_EQ(get<uint64_t>(kOutput + kInIndex * kContextBytes + 8), kInRing | 1);
  device_.to_give = {1};
  device_.endpoint_ready(0x81);
  EXPECT_EQ(event().type(), 0u);
  ring(kInIndex);
  EXPECT_EQ(code(event()), kShortPacket);
}

TEST_F(XhciTest, EventDataTellsOfTheWholeTransfer) {
  plug_in();
  device_.to_give = Bytes(10, 7);
  transfer(kInRing, 0, kData, 8, kNormal << 10 | kChain);
  transfer(kInRing, 1, kData + 8, 8, kNormal << 10 | kChain);
  transfer(kInRing, 2, 0x1122334455667788, 0, kEventDataTrb << 10 | kOnCompletion);
  ring(kInIndex);
  const Trb told = event();
  EXPECT_EQ(told.parameter, 0x1122334455667788u);
  EXPECT_EQ(told.status & 0xffffff, 10u);
  EXPECT_EQ(code(told), kShortPacket);
  EXPECT_NE(told.control & kEventData, 0u);
}

// A driver that takes no events: transfers wait, none is lost.
TEST_F(XhciTest, TransfersWaitForRoomInTheEventRing) {
  plug_in();
  const unsigned before = taken_;
  for (unsigned at = 0; at < 30; ++at) transfer(kOutRing, at, kData, 1, kNormal << 10 | kOnCompletion);
  ring(kOutIndex);
  EXPECT_LT(device_.taken.size(), 16u);
  unsigned told = 0;
  while (event().type() == kTransferEvent) ++told;
  EXPECT_EQ(told, 30u);
  EXPECT_EQ(taken_ - before, 30u);
  EXPECT_EQ(device_.taken.size(), 30u);
}

TEST_F(XhciTest, AnEndlessRingLetsOthersHaveTheirTurn) {
  plug_in();
  transfer(kOutRing, 0, kData, 1, kNormal << 10);
  transfer(kOutRing, 1, kOutRing, 0, kLink << 10);
  ring(kOutIndex);
  EXPECT_EQ(device_.taken.size(), 1024u);
  clock_.advance(125'000);
  EXPECT_EQ(device_.taken.size(), 2048u);
  EXPECT_EQ(command(kStopEndpoint, 0, 1u << 24 | kOutIndex << 16), kSuccess);
  clock_.advance(1'000'000);
  EXPECT_EQ(device_.taken.size(), 2048u);
}

TEST_F(XhciTest, AChainWithoutEndAndTooManyBytesAreErrors) {
  plug_in();
  transfer(kOutRing, 0, kData, 0x1ffff, kNormal << 10 | kChain);
  transfer(kOutRing, 1, kOutRing, 0, kLink << 10 | kChain);
  ring(kOutIndex);
  EXPECT_EQ(endpoint_state(kOutIndex), xhci::kEndpointError);
  EXPECT_TRUE(device_.taken.empty());
  for (unsigned at = 0; at < 200; ++at)
    transfer(kInRing, at, kData, 0x1ffff, kNormal << 10 | (at < 199 ? kChain : kOnCompletion));
  device_.to_give = {1};
  ring(kInIndex);
  EXPECT_EQ(endpoint_state(kInIndex), xhci::kEndpointError);
  EXPECT_EQ(op(USBSTS) & kHalted, 0u);
}

TEST_F(XhciTest, BuffersOutsideOfMemoryAreErrors) {
  plug_in();
  transfer(kOutRing, 0, uint64_t{1} << 40, 8, kNormal << 10);
  ring(kOutIndex);
  EXPECT_EQ(code(event()), kDataBufferError);
  EXPECT_EQ(endpoint_state(kOutIndex), kEndpointHalted);
  put(kContexts + 8, uint64_t{1} << 40);
  EXPECT_EQ(command(kResetDevice, 0, 1u << 24), kSuccess);
  EXPECT_EQ(command(kEvaluateContext, uint64_t{1} << 40, 1u << 24), 0u);
  EXPECT_EQ(op(USBSTS) & (kHalted | kSystemError), kHalted | kSystemError);
}

TEST_F(XhciTest, BadContextsAreRefused) {
  plug_in();
  input(0, 1 | 1u << 6);
  context(kInput, 1, {6u << kEntriesShift, 0, 0, 0, 0});
  context(kInput, 7, endpoint(kIsochOut, kOutRing));
  EXPECT_EQ(command(kConfigureEndpoint, kInput, 1u << 24), kResourceError);
  context(kInput, 7, endpoint(kBulkIn, kOutRing));  // the wrong direction
  EXPECT_EQ(command(kConfigureEndpoint, kInput, 1u << 24), kParameterError);
  context(kInput, 7, endpoint(kBulkOut, kOutRing));
  put(kInput + 7 * kContextBytes, 1u << 10);  // streams
  EXPECT_EQ(command(kConfigureEndpoint, kInput, 1u << 24), kParameterError);
  EXPECT_EQ(endpoint_state(6), xhci::kDisabled);
  EXPECT_EQ(command(kEnableSlot), kSuccess);
  input(0, 3);
  context(kInput, 1, {0, 1u << kRootPortShift, 0, 0, 0});  // the port has a slot
  context(kInput, 2, endpoint(xhci::kControl, kControlRing));
  EXPECT_EQ(command(kAddressDevice, kInput, 2u << 24), kParameterError);
  context(kInput, 1, {0, 99u << kRootPortShift, 0, 0, 0});
  EXPECT_EQ(command(kAddressDevice, kInput, 2u << 24), kParameterError);
  context(kInput, 1, {0, 3u << kRootPortShift, 0, 0, 0});  // nobody there
  EXPECT_EQ(command(kAddressDevice, kInput, 2u << 24), kTransactionError);
  EXPECT_EQ(command(kStopEndpoint, 0, 2u << 24 | 9u << 16), kEndpointNotEnabled);
}

TEST_F(XhciTest, AGoneDeviceIsATransactionError) {
  plug_in();
  transfer(kInRing, 0, kData, 8, kNormal << 10 | kOnCompletion);
  xhci_.usb().detach(device_);
  ring(kInIndex);
  Trb trb = event();
  while (trb.type() == kPortEvent) trb = event();
  EXPECT_EQ(code(trb), kTransactionError);
  EXPECT_EQ(command(kDisableSlot, 0, 1u << 24), kSuccess);
}

TEST_F(XhciTest, MessagesInterruptOnceUntilTheHandlerIsDone) {
  start();
  out(kMsixTable, 0xfee00000, 8);
  out(kMsixTable + 8, 0x41);
  out(kMsixTable + 12, 0);
  xhci_.config_write(0x92, 2, 0x8000);
  commands_ = 2;
  put(kCommands, Trb{0, 0, kNoOpCommand << 10 | kCycle});
  put(kCommands + kTrbBytes, Trb{0, 0, kNoOpCommand << 10 | kCycle});
  out(kDoorbells, 0);
  EXPECT_EQ(messages_.sent, (std::vector<uint32_t>{0x41}));
  EXPECT_EQ(in(kSet + IMAN), kEnable);
  EXPECT_EQ(event().type(), kCommandEvent);  // one is left
  EXPECT_EQ(messages_.sent.size(), 2u);
  EXPECT_EQ(event().type(), kCommandEvent);
  EXPECT_EQ(messages_.sent.size(), 2u);
}

TEST_F(XhciTest, StateTravels) {
  plug_in();
  transfer(kInRing, 0, kData, 8, kNormal << 10 | kOnCompletion);
  ring(kInIndex);
  const auto state = saved_state(xhci_);
  Xhci other("xhci", {.bus_name = "usb.0"}, guest_memory_, clock_);
  FakeUsbDevice same{{usb::Speed::kHigh}};
  ASSERT_TRUE(other.usb().attach(same, "1"));
  ASSERT_TRUE(restore_state(other, state));
  EXPECT_EQ(saved_state(other), state);
  for (const auto& [field, at, value] :
       {std::tuple<uint16_t, size_t, uint8_t>{1, 3, 0xff}, {2, 0, 1}, {4, 1, 0}, {5, 0, 2}, {5, 1, 4}, {5, 2, 9}})
    EXPECT_FALSE(restore_state(other, with_patched_field(state, field, at, value, 1))) << field << " " << at;
  EXPECT_EQ(saved_state(other), state);
  other.usb().detach(same);
}

}  // namespace
}  // namespace kite::devices

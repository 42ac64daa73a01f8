#include "devices/i8042/i8042.h"

#include "devices/test_device.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace i8042_regs;

using Bytes = std::vector<uint8_t>;
constexpr Key kA = 0x1e;

class I8042Test : public ::testing::Test {
 protected:
  I8042::Wiring wiring() {
    return {.keyboard_irq = lines_.line(1), .mouse_irq = lines_.line(12), .reset = [this] { ++resets_; }};
  }
  void command(uint8_t value) { write_reg(device_.command_region(), 0, value); }
  void data(uint8_t value) { write_reg(device_.data_region(), 0, value); }
  void set_command_byte(uint8_t value) {
    command(kWriteRam);
    data(value);
  }
  uint8_t status() { return static_cast<uint8_t>(read_reg(device_.command_region(), 0)); }
  uint8_t read() { return static_cast<uint8_t>(read_reg(device_.data_region(), 0)); }
  Bytes drain() {
    Bytes bytes;
    while ((status() & kObf) != 0) bytes.push_back(read());
    return bytes;
  }
  Bytes answer(uint8_t to) {
    command(to);
    return drain();
  }

  FakeLines lines_;
  int resets_ = 0;
  I8042 device_{"i8042", wiring()};
};

TEST_F(I8042Test, StatusAfterReset) { EXPECT_EQ(status(), kSysFlag | kUnlocked); }

TEST_F(I8042Test, TestsPass) {
  EXPECT_EQ(answer(kSelfTest), Bytes{0x55});
  EXPECT_EQ(answer(kKeyboardTest), Bytes{0x00});
  EXPECT_EQ(answer(kAuxTest), Bytes{0x00});
}

TEST_F(I8042Test, StatusTellsCommandFromData) {
  command(kWriteAux);
  EXPECT_EQ(status() & kLastWasCommand, kLastWasCommand);
  data(0xf2);
  EXPECT_EQ(status() & kLastWasCommand, 0);
}

TEST_F(I8042Test, CommandByteIsReadAndWritten) {
  set_command_byte(0x47);
  EXPECT_EQ(answer(kReadRam), Bytes{0x47});
}

TEST_F(I8042Test, SystemFlagFollowsTheCommandByte) {
  set_command_byte(0x41);
  EXPECT_EQ(status() & kSysFlag, 0);
  answer(kSelfTest);
  EXPECT_EQ(status() & kSysFlag, kSysFlag);
}

TEST_F(I8042Test, RamKeepsBytes) {
  command(kWriteRam + 0x1f);
  data(0x99);
  EXPECT_EQ(answer(kReadRam + 0x1f), Bytes{0x99});
}

TEST_F(I8042Test, InterfacesShowInTheCommandByte) {
  command(kKeyboardDisable);
  command(kAuxDisable);
  EXPECT_EQ(answer(kReadRam)[0] & (kCcbKeyboardOff | kCcbAuxOff), kCcbKeyboardOff | kCcbAuxOff);
  command(kKeyboardEnable);
  command(kAuxEnable);
  EXPECT_EQ(answer(kReadRam)[0] & (kCcbKeyboardOff | kCcbAuxOff), 0);
}

TEST_F(I8042Test, OutputPortShowsA20AndBuffers) {
  EXPECT_EQ(answer(kReadOutputPort), Bytes{kOutNotReset | kOutA20});
  command(kDisableA20);
  EXPECT_EQ(answer(kReadOutputPort), Bytes{kOutNotReset});
  command(kEnableA20);
  EXPECT_EQ(answer(kReadOutputPort), Bytes{kOutNotReset | kOutA20});
}

TEST_F(I8042Test, OutputPortIsWritten) {
  command(kWriteOutputPort);
  data(0x01);
  EXPECT_EQ(answer(kReadOutputPort), Bytes{kOutNotReset});
  EXPECT_EQ(resets_, 0);
}

TEST_F(I8042Test, OutputPortBitZeroResets) {
  command(kWriteOutputPort);
  data(0x02);
  EXPECT_EQ(resets_, 1);
}

TEST_F(I8042Test, PulseOfBitZeroResets) {
  command(0xfe);
  EXPECT_EQ(resets_, 1);
}

TEST_F(I8042Test, PulseOfOtherBitsDoesNot) {
  command(0xff);
  command(0xfd);
  EXPECT_EQ(resets_, 0);
}

TEST_F(I8042Test, InputPortsAnswer) {
  EXPECT_EQ(answer(kReadInputPort), Bytes{0x80});
  EXPECT_EQ(answer(kReadTestInputs), Bytes{0x00});
}

TEST_F(I8042Test, UnknownCommandIsIgnored) { EXPECT_TRUE(answer(0xb0).empty()); }

TEST_F(I8042Test, CommandDropsOneThatWaitsForData) {
  command(kWriteRam);
  EXPECT_EQ(answer(kSelfTest), Bytes{0x55});
  data(0xf2);  // for the keyboard now
  EXPECT_EQ(drain(), (Bytes{0xfa, 0xab, 0x41}));
}

// --- keyboard ---

TEST_F(I8042Test, KeyInterruptsByteByByte) {
  device_.key_event(0xe01d, true);
  EXPECT_EQ(lines_.take_rises(1), 1);
  EXPECT_EQ(read(), 0xe0);
  EXPECT_EQ(lines_.take_rises(1), 1);
  EXPECT_EQ(read(), 0x1d);
  EXPECT_FALSE(lines_.level(1));
}

TEST_F(I8042Test, TranslationJoinsTheBreakPrefix) {
  device_.key_event(kA, true);
  device_.key_event(kA, false);
  EXPECT_EQ(drain(), (Bytes{0x1e, 0x9e}));
}

TEST_F(I8042Test, WithoutTranslationTheCodesAreRaw) {
  set_command_byte(kCcbKeyboardIrq);
  device_.key_event(kA, false);
  EXPECT_EQ(drain(), (Bytes{0xf0, 0x1c}));
}

TEST_F(I8042Test, NoInterruptWhenItIsOff) {
  set_command_byte(kCcbTranslate);
  device_.key_event(kA, true);
  EXPECT_FALSE(lines_.level(1));
  EXPECT_EQ(status() & kObf, kObf);
}

TEST_F(I8042Test, EnablingTheInterruptShowsAWaitingByte) {
  set_command_byte(kCcbTranslate);
  device_.key_event(kA, true);
  set_command_byte(kCcbTranslate | kCcbKeyboardIrq);
  EXPECT_TRUE(lines_.level(1));
}

TEST_F(I8042Test, DisabledKeyboardHoldsItsBytes) {
  command(kKeyboardDisable);
  device_.key_event(kA, true);
  EXPECT_EQ(status() & kObf, 0);
  command(kKeyboardEnable);
  EXPECT_EQ(drain(), Bytes{0x1e});
}

TEST_F(I8042Test, SendingEnablesTheKeyboard) {
  command(kKeyboardDisable);
  data(0xee);
  EXPECT_EQ(drain(), Bytes{0xee});
}

TEST_F(I8042Test, LedsAreForTheHost) {
  data(0xed);
  data(0x02);
  EXPECT_EQ(device_.leds(), 2);
}

TEST_F(I8042Test, WrittenKeyboardBufferComesBack) {
  command(kWriteKeyboardBuffer);
  data(0x5c);
  EXPECT_TRUE(lines_.level(1));
  EXPECT_EQ(status() & (kObf | kAuxObf), kObf);
  EXPECT_EQ(read(), 0x5c);
}

// --- mouse ---

TEST_F(I8042Test, MouseAnswersOnItsOwnInterrupt) {
  set_command_byte(kCcbAuxIrq);
  command(kWriteAux);
  data(0xf2);
  EXPECT_TRUE(lines_.level(12));
  EXPECT_FALSE(lines_.level(1));
  EXPECT_EQ(status() & (kObf | kAuxObf), kObf | kAuxObf);
  EXPECT_EQ(drain(), (Bytes{0xfa, 0x00}));
}

TEST_F(I8042Test, WrittenAuxBufferComesBack) {
  set_command_byte(kCcbAuxIrq);
  command(kWriteAuxBuffer);
  data(0x5a);
  EXPECT_TRUE(lines_.level(12));
  EXPECT_EQ(status() & kAuxObf, kAuxObf);
  EXPECT_EQ(read(), 0x5a);
  EXPECT_EQ(status() & (kObf | kAuxObf), 0);
}

TEST_F(I8042Test, MouseMovementReachesTheGuest) {
  command(kWriteAux);
  data(0xf4);
  drain();
  device_.mouse_event(1, 2, 0, 4);
  EXPECT_EQ(drain(), (Bytes{0x0c, 1, 2}));
}

TEST_F(I8042Test, DisabledMouseHoldsItsBytes) {
  command(kWriteAux);
  data(0xf4);
  drain();
  command(kAuxDisable);
  device_.mouse_event(1, 2, 0, 0);
  EXPECT_EQ(status() & kObf, 0);
  command(kAuxEnable);
  EXPECT_EQ(drain().size(), 3U);
}

// --- lifecycle ---

TEST_F(I8042Test, ResetLowersTheLines) {
  device_.key_event(kA, true);
  device_.reset();
  EXPECT_FALSE(lines_.level(1));
  EXPECT_EQ(status(), kSysFlag | kUnlocked);
}

TEST_F(I8042Test, FloodOfCommandsIsBounded) {
  for (int i = 0; i < 1000; ++i) command(kSelfTest);
  EXPECT_LE(drain().size(), 5U);
}

TEST_F(I8042Test, StateTravelsInTheMiddleOfAKey) {
  device_.key_event(0xe01d, false);
  device_.key_event(kA, true);
  EXPECT_EQ(read(), 0xe0);
  data(0xed);
  command(kWriteAux);
  FakeLines lines;
  I8042 other("i8042", {.keyboard_irq = lines.line(1), .mouse_irq = lines.line(12), .reset = [] {}});
  ASSERT_TRUE(restore_state(other, saved_state(device_)));
  EXPECT_TRUE(lines.level(1));
  write_reg(other.data_region(), 0, 0xf2);  // the mouse's, as the command before said
  data(0xf2);
  Bytes bytes, expected = drain();
  while ((read_reg(other.command_region(), 0) & kObf) != 0)
    bytes.push_back(static_cast<uint8_t>(read_reg(other.data_region(), 0)));
  EXPECT_EQ(bytes, expected);
  EXPECT_EQ(bytes, (Bytes{0x9d, 0xfa, 0x1e, 0xfa, 0x00}));
}

TEST_F(I8042Test, RefusesImpossibleStates) {
  const auto good = saved_state(device_);
  const auto refused = [&](uint16_t field, size_t at, uint64_t value, size_t size) {
    return !restore_state(device_, with_patched_field(good, field, at, value, size));
  };
  EXPECT_TRUE(refused(1, 0, 0x80, 1));         // command byte
  EXPECT_TRUE(refused(3, 0, 0x40, 1));         // status
  EXPECT_TRUE(refused(4, 0, 0x10, 1));         // output port
  EXPECT_TRUE(refused(5, 0, 0xaa, 1));         // a command without data
  EXPECT_TRUE(refused(7, 0, 5, 1));            // answers
  EXPECT_TRUE(refused(8, 0, 2, 1));            // break prefix
  EXPECT_TRUE(refused(33, 0, 17, 1));          // keyboard answers
  EXPECT_TRUE(refused(35, 0, 129, 1));         // scan codes
  EXPECT_TRUE(refused(36, 0, 0xf4, 1));        // keyboard command without data
  EXPECT_TRUE(refused(38, 0, 0, 1));           // scan set
  EXPECT_TRUE(refused(41, 0, 2, 1));           // scanning
  EXPECT_TRUE(refused(67, 0, 65, 1));          // packets
  EXPECT_TRUE(refused(68, 0, 0x80000000, 4));  // movement
  EXPECT_TRUE(refused(75, 0, 1, 1));           // mouse id
  EXPECT_TRUE(refused(77, 0, 4, 1));           // resolution
  EXPECT_TRUE(refused(82, 0, 255, 1));         // scaling
  EXPECT_EQ(status(), kSysFlag | kUnlocked);
}

}  // namespace
}  // namespace kite::devices

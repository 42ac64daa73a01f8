#include "devices/serial/isa_serial.h"

#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace uart_regs;

class IsaSerialTest : public ::testing::Test {
 protected:
  IsaSerialTest() {
    write(kMcr, kOut2 | kDtr | kRts);
    write(kLcr, 0x03);
  }
  void write(unsigned reg, uint8_t value) { write_reg(uart_.region(), reg, value); }
  uint8_t read(unsigned reg) { return static_cast<uint8_t>(read_reg(uart_.region(), reg)); }

  ManualClock clock_;
  FakeLines lines_;
  FakeChardev host_;
  IsaSerial uart_{"serial0", lines_.line(), clock_, &host_};
};

TEST_F(IsaSerialTest, WrittenBytesReachTheHost) {
  for (const char letter : std::string("hello")) write(kThr, static_cast<uint8_t>(letter));
  EXPECT_EQ(host_.output(), "hello");
  EXPECT_EQ(read(kLsr), kThre | kTemt);
}

TEST_F(IsaSerialTest, FullHostKeepsTheTransmitterBusy) {
  host_.set_room(0);
  write(kThr, 'a');
  EXPECT_EQ(read(kLsr) & kThre, 0);
  host_.set_room(5);
  EXPECT_EQ(read(kLsr) & kThre, kThre);
  EXPECT_EQ(host_.output(), "a");
}

TEST_F(IsaSerialTest, ThreInterruptWaitsForTheHost) {
  host_.set_room(0);
  write(kIer, kEtbei);
  read(kIir);
  write(kThr, 'a');
  EXPECT_FALSE(lines_.level());
  host_.set_room(5);
  EXPECT_TRUE(lines_.level());
}

TEST_F(IsaSerialTest, ShortWriteKeepsOrder) {
  write(kFcr, kFifoEnable);
  host_.set_room(2);
  for (const char letter : std::string("abcdef")) write(kThr, static_cast<uint8_t>(letter));
  EXPECT_EQ(host_.output(), "ab");
  host_.set_room(100);
  EXPECT_EQ(host_.output(), "abcdef");
}

TEST_F(IsaSerialTest, ClosedHostLosesBytesAndNeverBlocks) {
  host_.set_room(0);
  write(kThr, 'a');
  host_.set_open(false);
  EXPECT_EQ(read(kLsr) & kThre, kThre);
  write(kThr, 'b');
  EXPECT_EQ(read(kLsr) & kThre, kThre);
  EXPECT_EQ(host_.output(), "");
}

TEST_F(IsaSerialTest, WithoutAChardevBytesGoNowhere) {
  IsaSerial lonely("serial1", lines_.line(1), clock_, nullptr);
  write_reg(lonely.region(), kThr, 'x');
  EXPECT_EQ(read_reg(lonely.region(), kLsr), uint64_t{kThre | kTemt});
}

TEST_F(IsaSerialTest, InputInterrupts) {
  write(kIer, kErbfi);
  host_.type("x");
  EXPECT_TRUE(lines_.level());
  EXPECT_EQ(read(kRbr), 'x');
  EXPECT_FALSE(lines_.level());
}

TEST_F(IsaSerialTest, InputWaitsForRoomAndLosesNothing) {
  std::string text;
  host_.type("abcde");
  while ((read(kLsr) & kDr) != 0) text += static_cast<char>(read(kRbr));
  EXPECT_EQ(text, "abcde");
}

TEST_F(IsaSerialTest, InputFillsTheFifo) {
  write(kFcr, kFifoEnable);
  host_.type(std::string(20, 'z'));
  EXPECT_EQ(host_.waiting_input().size(), 4U);
  read(kRbr);
  EXPECT_EQ(host_.waiting_input().size(), 3U);
}

TEST_F(IsaSerialTest, LoopbackHoldsInputUntilItEnds) {
  write(kMcr, kLoop);
  host_.type("x");
  EXPECT_EQ(host_.waiting_input(), "x");
  write(kMcr, kOut2);
  EXPECT_EQ(read(kRbr), 'x');
}

TEST_F(IsaSerialTest, TimeoutComesAfterFourCharacters) {
  write(kFcr, kFifoEnable | 3u << kTriggerShift);
  write(kIer, kErbfi);
  host_.type("x");
  const int64_t character = 10 * 12 * 1'000'000'000LL / 115'200;  // 9600 baud, 8N1
  clock_.advance(4 * character - 1);
  EXPECT_FALSE(lines_.level());
  clock_.advance(1);
  EXPECT_TRUE(lines_.level());
  EXPECT_EQ(read(kIir), kIirTimeout | kIirFifos);
}

TEST_F(IsaSerialTest, ArrivalRestartsTheTimeout) {
  write(kFcr, kFifoEnable | 3u << kTriggerShift);
  write(kIer, kErbfi);
  host_.type("x");
  clock_.advance(4'000'000);
  host_.type("y");
  clock_.advance(4'000'000);
  EXPECT_FALSE(lines_.level());
}

TEST_F(IsaSerialTest, BreakFromTheHost) {
  write(kIer, kElsi);
  host_.send_break();
  EXPECT_TRUE(lines_.level());
  EXPECT_EQ(read(kLsr) & kBi, kBi);
}

TEST_F(IsaSerialTest, StoppedMachineTakesNoInput) {
  uart_.stop();
  host_.type("x");
  EXPECT_EQ(read(kLsr) & kDr, 0);
  uart_.start();
  EXPECT_EQ(read(kRbr), 'x');
}

TEST_F(IsaSerialTest, ResetLowersTheLineAndTakesNewInput) {
  write(kIer, kErbfi);
  host_.type("xy");
  uart_.reset();
  EXPECT_FALSE(lines_.level());
  EXPECT_EQ(read(kRbr), 'y');
}

TEST_F(IsaSerialTest, UnplugsItselfAtTheEnd) {
  FakeChardev host;
  {
    const IsaSerial gone("serial2", lines_.line(2), clock_, &host);
  }
  EXPECT_EQ(host.client(), nullptr);
}

TEST_F(IsaSerialTest, StateTravelsInTheMiddleOfATimeout) {
  write(kFcr, kFifoEnable | 3u << kTriggerShift);
  write(kIer, kErbfi);
  host_.type("xyz");
  clock_.advance(1'000'000);
  FakeLines lines;
  IsaSerial other("serial0", lines.line(), clock_, nullptr);
  ASSERT_TRUE(restore_state(other, saved_state(uart_)));
  const int64_t deadline = 4 * (10 * 12 * 1'000'000'000LL / 115'200);
  clock_.advance_to(deadline - 1);
  EXPECT_FALSE(lines.level() || lines_.level());
  clock_.advance_to(deadline);
  EXPECT_TRUE(lines.level() && lines_.level());
  for (const char letter : std::string("xyz")) EXPECT_EQ(read_reg(other.region(), kRbr), static_cast<uint8_t>(letter));
}

TEST_F(IsaSerialTest, StateTravelsWithBytesOnTheirWay) {
  write(kFcr, kFifoEnable);
  host_.set_room(1);
  for (const char letter : std::string("abc")) write(kThr, static_cast<uint8_t>(letter));
  FakeChardev host;
  IsaSerial other("serial0", lines_.line(1), clock_, &host);
  ASSERT_TRUE(restore_state(other, saved_state(uart_)));
  other.start();
  EXPECT_EQ(host.output(), "bc");
}

TEST_F(IsaSerialTest, RefusesImpossibleStates) {
  write(kScr, 0x77);
  const auto good = saved_state(uart_);
  EXPECT_FALSE(restore_state(uart_, with_patched_field(good, 14, 0, 17, 1)));     // received bytes
  EXPECT_FALSE(restore_state(uart_, with_patched_field(good, 9, 0, 2, 1)));       // a flag that is neither
  EXPECT_FALSE(restore_state(uart_, with_patched_field(good, 17, 0, ~0ULL, 8)));  // a deadline before time
  EXPECT_EQ(read(kScr), 0x77);
}

}  // namespace
}  // namespace kite::devices

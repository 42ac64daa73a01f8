#include "devices/i8042/ps2_mouse.h"

#include <gtest/gtest.h>

#include <vector>

namespace kite::devices {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes drain(Ps2Mouse& mouse) {
  Bytes bytes;
  while (mouse.has_output()) bytes.push_back(mouse.read());
  return bytes;
}

Bytes answer(Ps2Mouse& mouse, std::initializer_list<uint8_t> written) {
  for (const uint8_t byte : written) mouse.write(byte);
  return drain(mouse);
}

void turn_wheel_on(Ps2Mouse& mouse) { answer(mouse, {0xf3, 200, 0xf3, 100, 0xf3, 80}); }

TEST(Ps2MouseTest, ResetPassesItsTestAndNamesItself) {
  Ps2Mouse mouse;
  EXPECT_EQ(answer(mouse, {0xff}), (Bytes{0xfa, 0xaa, 0x00}));
}

TEST(Ps2MouseTest, SilentUntilEnabled) {
  Ps2Mouse mouse;
  mouse.move(5, 5, 0, 1);
  EXPECT_FALSE(mouse.has_output());
}

TEST(Ps2MouseTest, ReportsMovement) {
  Ps2Mouse mouse;
  answer(mouse, {0xf4});
  mouse.move(5, -3, 0, 0);
  EXPECT_EQ(drain(mouse), (Bytes{0x28, 5, 0xfd}));
}

TEST(Ps2MouseTest, ReportsButtons) {
  Ps2Mouse mouse;
  answer(mouse, {0xf4});
  mouse.move(0, 0, 0, 0x05);
  EXPECT_EQ(drain(mouse), (Bytes{0x0d, 0, 0}));
}

TEST(Ps2MouseTest, QuickClickIsNotLost) {
  Ps2Mouse mouse;
  answer(mouse, {0xf4});
  mouse.move(1, 0, 0, 0);
  mouse.move(0, 0, 0, 1);
  mouse.move(0, 0, 0, 0);
  EXPECT_EQ(drain(mouse), (Bytes{0x08, 1, 0, 0x09, 0, 0, 0x08, 0, 0}));
}

TEST(Ps2MouseTest, MovementAddsUpWhileAPacketWaits) {
  Ps2Mouse mouse;
  answer(mouse, {0xf4});
  for (int i = 0; i < 10; ++i) mouse.move(2, 0, 0, 0);
  EXPECT_EQ(drain(mouse), (Bytes{0x08, 2, 0, 0x08, 18, 0}));
}

TEST(Ps2MouseTest, LongMovementTakesSeveralPackets) {
  Ps2Mouse mouse;
  answer(mouse, {0xf4});
  mouse.move(300, -300, 0, 0);
  EXPECT_EQ(drain(mouse), (Bytes{0x28, 255, 1, 0x28, 45, 0xd3}));
}

TEST(Ps2MouseTest, HugeMovementIsBounded) {
  Ps2Mouse mouse;
  answer(mouse, {0xf4});
  for (int i = 0; i < 100; ++i) mouse.move(INT32_MAX, INT32_MIN, INT32_MAX, 0);
  EXPECT_LT(drain(mouse).size(), 2000U);
}

TEST(Ps2MouseTest, WheelNeedsItsKnock) {
  Ps2Mouse mouse;
  turn_wheel_on(mouse);
  EXPECT_EQ(answer(mouse, {0xf2}), (Bytes{0xfa, 0x03}));
  answer(mouse, {0xf4});
  mouse.move(0, 0, -1, 0);
  EXPECT_EQ(drain(mouse), (Bytes{0x08, 0, 0, 0xff}));
}

TEST(Ps2MouseTest, FiveButtonsNeedASecondKnock) {
  Ps2Mouse mouse;
  turn_wheel_on(mouse);
  answer(mouse, {0xf3, 200, 0xf3, 200, 0xf3, 80});
  EXPECT_EQ(answer(mouse, {0xf2}), (Bytes{0xfa, 0x04}));
  answer(mouse, {0xf4});
  mouse.move(0, 0, -1, 0x18);
  EXPECT_EQ(drain(mouse), (Bytes{0x08, 0, 0, 0x3f}));
}

TEST(Ps2MouseTest, OtherRatesAreNoKnock) {
  Ps2Mouse mouse;
  answer(mouse, {0xf3, 200, 0xf3, 100, 0xf3, 60, 0xf3, 80});
  EXPECT_EQ(answer(mouse, {0xf2}), (Bytes{0xfa, 0x00}));
}

TEST(Ps2MouseTest, StatusTellsSettings) {
  Ps2Mouse mouse;
  answer(mouse, {0xe8, 3, 0xf3, 40, 0xe7, 0xf4});
  mouse.move(0, 0, 0, 0x02);
  EXPECT_EQ(answer(mouse, {0xe9}), (Bytes{0xfa, 0x31, 3, 40}));
}

TEST(Ps2MouseTest, RefusesAResolutionThatDoesNotExist) {
  Ps2Mouse mouse;
  EXPECT_EQ(answer(mouse, {0xe8, 4}), (Bytes{0xfa, 0xfe}));
  EXPECT_EQ(mouse.state().resolution, 2);
}

TEST(Ps2MouseTest, RemoteModeReportsOnRequest) {
  Ps2Mouse mouse;
  answer(mouse, {0xf0});
  mouse.move(7, 0, 0, 1);
  EXPECT_FALSE(mouse.has_output());
  EXPECT_EQ(answer(mouse, {0xeb}), (Bytes{0xfa, 0x09, 7, 0}));
}

TEST(Ps2MouseTest, WrapModeEchoes) {
  Ps2Mouse mouse;
  answer(mouse, {0xee});
  EXPECT_EQ(answer(mouse, {0xf4, 0x55}), (Bytes{0xf4, 0x55}));
  EXPECT_EQ(answer(mouse, {0xec}), Bytes{0xfa});
  EXPECT_EQ(answer(mouse, {0xf2}), (Bytes{0xfa, 0x00}));
}

TEST(Ps2MouseTest, ScalingStretchesMovement) {
  Ps2Mouse mouse;
  answer(mouse, {0xe7, 0xf4});
  mouse.move(3, -2, 0, 0);
  EXPECT_EQ(drain(mouse), (Bytes{0x28, 3, 0xff}));
  mouse.move(10, 5, 0, 0);
  EXPECT_EQ(drain(mouse), (Bytes{0x08, 20, 9}));
}

TEST(Ps2MouseTest, DefaultsDisableReporting) {
  Ps2Mouse mouse;
  answer(mouse, {0xf4, 0xf6});
  mouse.move(1, 1, 0, 0);
  EXPECT_FALSE(mouse.has_output());
}

TEST(Ps2MouseTest, UnknownCommandAsksForResend) {
  Ps2Mouse mouse;
  EXPECT_EQ(answer(mouse, {0xed}), Bytes{0xfe});
}

TEST(Ps2MouseTest, ResendsTheLastByte) {
  Ps2Mouse mouse;
  turn_wheel_on(mouse);
  answer(mouse, {0xf2});
  EXPECT_EQ(answer(mouse, {0xfe}), Bytes{0x03});
}

}  // namespace
}  // namespace kite::devices

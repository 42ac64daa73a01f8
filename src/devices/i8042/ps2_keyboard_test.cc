#include "devices/i8042/ps2_keyboard.h"

#include <gtest/gtest.h>

#include <vector>

namespace kite::devices {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes drain(Ps2Keyboard& keyboard) {
  Bytes bytes;
  while (keyboard.has_output()) bytes.push_back(keyboard.read());
  return bytes;
}

Bytes answer(Ps2Keyboard& keyboard, std::initializer_list<uint8_t> written) {
  for (const uint8_t byte : written) keyboard.write(byte);
  return drain(keyboard);
}

constexpr Key kA = 0x1e;

TEST(Ps2KeyboardTest, ResetPassesItsTest) {
  Ps2Keyboard keyboard;
  EXPECT_EQ(answer(keyboard, {0xff}), (Bytes{0xfa, 0xaa}));
}

TEST(Ps2KeyboardTest, IdentifiesItself) {
  Ps2Keyboard keyboard;
  EXPECT_EQ(answer(keyboard, {0xf2}), (Bytes{0xfa, 0xab, 0x83}));
}

TEST(Ps2KeyboardTest, Echoes) {
  Ps2Keyboard keyboard;
  EXPECT_EQ(answer(keyboard, {0xee}), Bytes{0xee});
}

TEST(Ps2KeyboardTest, TakesLeds) {
  Ps2Keyboard keyboard;
  EXPECT_EQ(answer(keyboard, {0xed, 0x05}), (Bytes{0xfa, 0xfa}));
  EXPECT_EQ(keyboard.state().leds, 5);
}

TEST(Ps2KeyboardTest, TakesTypematicRate) {
  Ps2Keyboard keyboard;
  EXPECT_EQ(answer(keyboard, {0xf3, 0x20}), (Bytes{0xfa, 0xfa}));
  EXPECT_EQ(keyboard.state().typematic, 0x20);
}

TEST(Ps2KeyboardTest, ChoosesAndTellsTheScanSet) {
  Ps2Keyboard keyboard;
  EXPECT_EQ(answer(keyboard, {0xf0, 0x03}), (Bytes{0xfa, 0xfa}));
  EXPECT_EQ(answer(keyboard, {0xf0, 0x00}), (Bytes{0xfa, 0xfa, 0x03}));
}

TEST(Ps2KeyboardTest, RefusesAScanSetThatDoesNotExist) {
  Ps2Keyboard keyboard;
  EXPECT_EQ(answer(keyboard, {0xf0, 0x04}), (Bytes{0xfa, 0xfe}));
  EXPECT_EQ(keyboard.state().scan_set, 2);
}

TEST(Ps2KeyboardTest, CommandTakesThePlaceOfAnArgument) {
  Ps2Keyboard keyboard;
  EXPECT_EQ(answer(keyboard, {0xed, 0xf2}), (Bytes{0xfa, 0xfa, 0xab, 0x83}));
  EXPECT_EQ(keyboard.state().leds, 0);
}

TEST(Ps2KeyboardTest, UnknownByteAsksForResend) {
  Ps2Keyboard keyboard;
  EXPECT_EQ(answer(keyboard, {0x12}), Bytes{0xfe});
}

TEST(Ps2KeyboardTest, AcceptsKeyTypesOfSetThree) {
  Ps2Keyboard keyboard;
  EXPECT_EQ(answer(keyboard, {0xf8}), Bytes{0xfa});
  EXPECT_EQ(answer(keyboard, {0xfb, 0x1c}), (Bytes{0xfa, 0xfa}));
}

TEST(Ps2KeyboardTest, ResendsTheLastByte) {
  Ps2Keyboard keyboard;
  answer(keyboard, {0xf2});
  EXPECT_EQ(answer(keyboard, {0xfe}), Bytes{0x83});
}

TEST(Ps2KeyboardTest, KeyMakesAndBreaks) {
  Ps2Keyboard keyboard;
  EXPECT_TRUE(keyboard.key_event(kA, true));
  EXPECT_TRUE(keyboard.key_event(kA, false));
  EXPECT_EQ(drain(keyboard), (Bytes{0x1c, 0xf0, 0x1c}));
}

TEST(Ps2KeyboardTest, DisabledKeyboardLosesKeys) {
  Ps2Keyboard keyboard;
  answer(keyboard, {0xf5});
  EXPECT_FALSE(keyboard.key_event(kA, true));
  answer(keyboard, {0xf4});
  EXPECT_TRUE(keyboard.key_event(kA, true));
}

TEST(Ps2KeyboardTest, DefaultsKeepScanning) {
  Ps2Keyboard keyboard;
  answer(keyboard, {0xf0, 0x01});
  EXPECT_EQ(answer(keyboard, {0xf6}), Bytes{0xfa});
  EXPECT_EQ(keyboard.state().scan_set, 2);
  EXPECT_TRUE(keyboard.key_event(kA, true));
}

TEST(Ps2KeyboardTest, AnswersGoBeforeKeys) {
  Ps2Keyboard keyboard;
  keyboard.key_event(kA, true);
  EXPECT_EQ(answer(keyboard, {0xee}), (Bytes{0xee, 0x1c}));
}

TEST(Ps2KeyboardTest, FullBufferTakesWholeKeysOrNone) {
  Ps2Keyboard keyboard;
  int taken = 0;
  while (keyboard.key_event(0xe01d, false)) ++taken;  // three bytes each
  EXPECT_EQ(taken, 42);
  EXPECT_EQ(drain(keyboard).size(), 126U);
}

TEST(Ps2KeyboardTest, FloodOfCommandsIsBounded) {
  Ps2Keyboard keyboard;
  for (int i = 0; i < 1000; ++i) keyboard.write(0xf2);
  EXPECT_LE(drain(keyboard).size(), 16U);
}

TEST(Ps2KeyboardTest, UnknownKeyIsRefused) {
  Ps2Keyboard keyboard;
  EXPECT_FALSE(keyboard.key_event(0x7777, true));
}

// --- scan codes ---

Bytes codes(Key key, bool down, uint8_t set) {
  const ScanSequence sequence = scan_sequence(key, down, set);
  return {sequence.bytes, sequence.bytes + sequence.count};
}

TEST(ScancodesTest, NamesFindKeys) {
  EXPECT_EQ(key_from_name("ret"), Key{0x1c});
  EXPECT_EQ(key_from_name("ctrl_r"), Key{0xe01d});
  EXPECT_EQ(key_from_name("pause"), kKeyPause);
  EXPECT_FALSE(key_from_name("nokey"));
}

TEST(ScancodesTest, ExtendedKeysHaveAPrefix) {
  EXPECT_EQ(codes(0xe01d, true, 1), (Bytes{0xe0, 0x1d}));
  EXPECT_EQ(codes(0xe01d, false, 1), (Bytes{0xe0, 0x9d}));
  EXPECT_EQ(codes(0xe01d, true, 2), (Bytes{0xe0, 0x14}));
  EXPECT_EQ(codes(0xe01d, false, 2), (Bytes{0xe0, 0xf0, 0x14}));
  EXPECT_EQ(codes(0xe01d, false, 3), (Bytes{0xf0, 0x58}));
}

TEST(ScancodesTest, PauseBreaksAtOnce) {
  EXPECT_EQ(codes(kKeyPause, true, 2), (Bytes{0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77}));
  EXPECT_EQ(codes(kKeyPause, true, 1), (Bytes{0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5}));
  EXPECT_TRUE(codes(kKeyPause, false, 2).empty());
  EXPECT_EQ(codes(kKeyPause, true, 3), Bytes{0x62});
}

TEST(ScancodesTest, PrintScreenHasAShiftOfItsOwn) {
  EXPECT_EQ(codes(kKeyPrintScreen, true, 2), (Bytes{0xe0, 0x12, 0xe0, 0x7c}));
  EXPECT_EQ(codes(kKeyPrintScreen, false, 2), (Bytes{0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12}));
  EXPECT_EQ(codes(kKeyPrintScreen, false, 1), (Bytes{0xe0, 0xb7, 0xe0, 0xaa}));
}

TEST(ScancodesTest, SetThreeLacksMultimediaKeys) { EXPECT_TRUE(codes(0xe020, true, 3).empty()); }

// The controller's table and the keyboard's two sets say the same of every key.
TEST(ScancodesTest, TranslatedSetTwoIsSetOne) {
  unsigned keys = 0;
  for (uint32_t key = 0; key < 0x10000; ++key) {
    for (const bool down : {true, false}) {
      Bytes translated;
      bool breaks = false;
      for (const uint8_t code : codes(static_cast<Key>(key), down, 2)) {
        if (code == 0xf0) {
          breaks = true;
          continue;
        }
        translated.push_back(static_cast<uint8_t>(translate_set2(code) | (breaks ? 0x80 : 0)));
        breaks = false;
      }
      EXPECT_EQ(translated, codes(static_cast<Key>(key), down, 1)) << std::hex << key;
      if (down && !translated.empty()) ++keys;
    }
  }
  EXPECT_GT(keys, 110U);
}

}  // namespace
}  // namespace kite::devices

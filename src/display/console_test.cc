#include "display/console.h"

#include <gtest/gtest.h>

namespace kite::display {
namespace {

class FakeSource final : public Source {
 public:
  Mode draw(Surface& surface, bool all) override {
    ++draws;
    all_asked += all;
    if (surface.width() != width) surface.resize(width, 2);
    surface.put_row(0, std::vector<uint32_t>{color});
    return mode;
  }
  void watched(bool on) override { looked_at = on; }
  uint32_t width = 4, color = 0;
  Mode mode = Mode::kText;
  int draws = 0, all_asked = 0;
  bool looked_at = false;
};

class FakeSink final : public Sink {
 public:
  void resized(const Surface& surface) override { width = surface.width(); }
  void changed(const Surface&, std::span<const Rect> rects) override { last.assign(rects.begin(), rects.end()); }
  void mode_changed(Mode now) override { mode = now; }
  void tablet_changed(bool there) override { tablet = there; }
  void leds_changed(uint8_t lit) override { leds = lit; }
  uint32_t width = 0;
  Mode mode = Mode::kBlank;
  bool tablet = false;
  uint8_t leds = 0;
  std::vector<Rect> last;
};

class FakeKeyboard final : public Keyboard {
 public:
  void key(KeyNumber number, bool down) override { events.push_back(down ? number : -int{number}); }
  uint8_t leds() override { return lit; }
  std::vector<int> events;
  uint8_t lit = 0;
};

class FakePointer final : public Pointer {
 public:
  void move(int32_t dx, int32_t dy, int32_t dz, uint8_t) override { last = {dx, dy, dz}; }
  std::array<int, 3> last{};
};

class FakeTablet final : public Tablet {
 public:
  void place(uint16_t x, uint16_t y, int32_t dz, uint8_t buttons) override { last = {x, y, dz, buttons}; }
  std::array<int, 4> last{};
};

class ConsoleTest : public ::testing::Test {
 protected:
  ManualClock clock_;
  Console console_{clock_};
  FakeSource source_;
  FakeSink sink_;
};

TEST_F(ConsoleTest, NobodyLooksNothingIsDrawn) {
  console_.add_source(source_);
  clock_.advance(10 * Console::kRefreshNs);
  EXPECT_EQ(source_.draws, 0);
  EXPECT_FALSE(source_.looked_at);
}

TEST_F(ConsoleTest, ASinkSeesSizeModeAndChanges) {
  console_.add_source(source_);
  console_.add_sink(sink_);
  EXPECT_TRUE(source_.looked_at);
  EXPECT_EQ(sink_.width, 4U);
  EXPECT_EQ(sink_.mode, Mode::kText);
  source_.color = 9;
  clock_.advance(Console::kRefreshNs);
  EXPECT_EQ(sink_.last, (std::vector<Rect>{{0, 0, 1, 1}}));
  source_.width = 6;
  source_.mode = Mode::kGraphics;
  clock_.advance(Console::kRefreshNs);
  EXPECT_EQ(sink_.width, 6U);
  EXPECT_EQ(sink_.mode, Mode::kGraphics);
}

TEST_F(ConsoleTest, DrawsThirtyTimesASecondAtMost) {
  console_.add_source(source_);
  console_.add_sink(sink_);
  source_.draws = 0;
  clock_.advance(1'000'000'000);
  EXPECT_EQ(source_.draws, 30);
  console_.remove_sink(sink_);
  source_.draws = 0;
  clock_.advance(1'000'000'000);
  EXPECT_EQ(source_.draws, 0);
  EXPECT_FALSE(source_.looked_at);
}

TEST_F(ConsoleTest, LookingOnceDrawsEverything) {
  console_.add_source(source_);
  source_.color = 3;
  EXPECT_EQ(console_.look().row(0)[0], 3U);
  EXPECT_EQ(source_.all_asked, 1);
}

TEST_F(ConsoleTest, AConsoleWithoutASourceIsBlack) {
  console_.add_sink(sink_);
  EXPECT_EQ(console_.look().row(0)[0], 0U);
  EXPECT_EQ(sink_.width, 640U);
}

TEST_F(ConsoleTest, KeysArePressedTogetherAndOneChordAfterTheOther) {
  FakeKeyboard keyboard;
  console_.set_keyboard(&keyboard);
  console_.press_keys({29, 56, 83});
  console_.press_keys({30});
  EXPECT_EQ(keyboard.events, (std::vector<int>{29, 56, 83}));
  clock_.advance(Console::kHoldNs);
  EXPECT_EQ(keyboard.events, (std::vector<int>{29, 56, 83, -83, -56, -29}));
  clock_.advance(2 * Console::kHoldNs);
  EXPECT_EQ(keyboard.events, (std::vector<int>{29, 56, 83, -83, -56, -29, 30, -30}));
}

TEST_F(ConsoleTest, SinksHearOfATabletAndOfTheKeyboardsLights) {
  FakeKeyboard keyboard;
  FakeTablet tablet;
  console_.set_keyboard(&keyboard);
  console_.add_source(source_);
  console_.set_tablet(&tablet);
  console_.add_sink(sink_);
  EXPECT_TRUE(sink_.tablet);
  keyboard.lit = kLedCaps;
  clock_.advance(Console::kRefreshNs);
  EXPECT_EQ(sink_.leds, kLedCaps);
  console_.set_tablet(nullptr);
  EXPECT_FALSE(sink_.tablet);
}

TEST_F(ConsoleTest, MovementHasAnEnd) {
  FakePointer pointer;
  console_.set_pointer(&pointer);
  console_.move(INT32_MIN, INT32_MAX, INT32_MIN, 0);
  EXPECT_EQ(pointer.last, (std::array<int, 3>{-Console::kMostMove, Console::kMostMove, -Console::kMostMove}));
}

TEST_F(ConsoleTest, ATabletsButtonsAreLetGoOfWhereItIs) {
  FakeTablet tablet;
  console_.set_tablet(&tablet);
  console_.place(place_on(639, 640), place_on(-5, 480), 1, kButtonLeft);
  EXPECT_EQ(tablet.last, (std::array<int, 4>{kMostPlace, 0, 1, kButtonLeft}));
  console_.let_go_of_buttons();
  EXPECT_EQ(tablet.last, (std::array<int, 4>{kMostPlace, 0, 0, 0}));
}

}  // namespace
}  // namespace kite::display

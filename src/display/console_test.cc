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

TEST_F(ConsoleTest, ASourceThatIsNotShownCanBeLookedAtByItsDevice) {
  FakeSource second;
  second.width = 7;
  second.color = 5;
  console_.add_source(source_, "first");
  console_.add_source(second, "second");
  const Surface* const surface = console_.look_at("second");
  ASSERT_NE(surface, nullptr);
  EXPECT_EQ(surface->width(), 7U);
  EXPECT_EQ(surface->row(0)[0], 5U);
  EXPECT_EQ(console_.look_at("first"), &console_.look());
  EXPECT_EQ(console_.look_at("third"), nullptr);
  console_.remove_source(source_);
  EXPECT_EQ(console_.look().width(), 7U);
  console_.remove_source(second);
}

TEST_F(ConsoleTest, AConsoleWithoutASourceIsBlack) {
  console_.add_sink(sink_);
  EXPECT_EQ(console_.look().row(0)[0], 0U);
  EXPECT_EQ(sink_.width, 640U);
}

TEST_F(ConsoleTest, KeysArePressedTogetherAndOneChordAfterTheOther) {
  FakeKeyboard keyboard;
  console_.add_keyboard(keyboard);
  console_.press_keys({29, 56, 83});
  console_.press_keys({30});
  EXPECT_EQ(keyboard.events, (std::vector<int>{29, 56, 83}));
  clock_.advance(Console::kHoldNs);
  EXPECT_EQ(keyboard.events, (std::vector<int>{29, 56, 83, -83, -56, -29}));
  clock_.advance(2 * Console::kHoldNs);
  EXPECT_EQ(keyboard.events, (std::vector<int>{29, 56, 83, -83, -56, -29, 30, -30}));
}

class FakePointer final : public Pointer {
 public:
  explicit FakePointer(bool absolute) : absolute_(absolute) {}
  void move(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons) override { told.push_back({dx, dy, dz, buttons}); }
  void place(int32_t x, int32_t y, int32_t dz, uint8_t buttons) override { told.push_back({x, y, dz, buttons}); }
  [[nodiscard]] bool absolute() const override { return absolute_; }
  [[nodiscard]] bool ready() const override { return is_ready; }
  [[nodiscard]] std::string_view pointer_name() const override { return absolute_ ? "tablet" : "mouse"; }
  std::vector<std::array<int, 4>> take() { return std::exchange(told, {}); }
  bool is_ready = true;
  std::vector<std::array<int, 4>> told;

 private:
  const bool absolute_;
};
using Told = std::vector<std::array<int, 4>>;

TEST_F(ConsoleTest, ATabletThatIsUsedGetsThePlace) {
  FakePointer mouse{false}, tablet{true};
  console_.add_pointer(mouse);
  console_.add_pointer(tablet);
  tablet.is_ready = false;
  console_.point_at(10, 10, 0, 0);
  console_.point_at(13, 8, 0, kButtonLeft);
  EXPECT_EQ(mouse.take(), (Told{{3, -2, 0, kButtonLeft}}));
  tablet.is_ready = true;
  console_.point_at(639, 479, 0, kButtonLeft);
  console_.point_at(0, 240, 1, 0);
  EXPECT_EQ(tablet.take(), (Told{{0x7fff, 0x7fff, 0, kButtonLeft}, {0, 0x4021, 1, 0}}));
  EXPECT_TRUE(mouse.take().empty());
  console_.point_at(100'000, 0, 0, 0);  // beyond the screen
  EXPECT_EQ(tablet.take(), (Told{{0x7fff, 0, 0, 0}}));
}

TEST_F(ConsoleTest, MovementGoesToTheMouseAndClicksToTheFirstInLine) {
  FakePointer mouse{false}, tablet{true};
  console_.add_pointer(mouse);
  console_.add_pointer(tablet);
  console_.point({.dx = 4, .dy = 5, .dz = 1, .buttons = kButtonRight});
  EXPECT_EQ(mouse.take(), (Told{{4, 5, 0, 0}}));
  EXPECT_EQ(tablet.take(), (Told{{0, 0, 1, kButtonRight}}));
  EXPECT_TRUE(console_.choose_pointer(1));
  console_.point({.x = 7, .buttons = 0});
  EXPECT_EQ(tablet.take(), (Told{{7, 0, 0, 0}}));
  EXPECT_EQ(mouse.take(), (Told{{0, 0, 0, 0}}));  // the button is up
  EXPECT_FALSE(console_.choose_pointer(9));
  const auto all = console_.pointers();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_TRUE(all[0].current && !all[0].absolute && all[0].name == "mouse");
  EXPECT_TRUE(!all[1].current && all[1].absolute && all[1].number == 2);
  console_.remove_pointer(mouse);
  EXPECT_FALSE(console_.takes_movement());
  EXPECT_TRUE(console_.takes_places());
}

TEST_F(ConsoleTest, SinksHearOfATabletThatIsUsedAndOfTheKeyboardsLights) {
  FakeKeyboard keyboard;
  FakePointer tablet{true};
  tablet.is_ready = false;
  console_.add_keyboard(keyboard);
  console_.add_pointer(tablet);
  console_.add_source(source_);
  console_.add_sink(sink_);
  EXPECT_FALSE(sink_.tablet);
  keyboard.lit = kLedCaps;
  tablet.is_ready = true;
  clock_.advance(Console::kRefreshNs);
  EXPECT_EQ(sink_.leds, kLedCaps);
  EXPECT_TRUE(sink_.tablet);
  console_.remove_pointer(tablet);
  clock_.advance(Console::kRefreshNs);
  EXPECT_FALSE(sink_.tablet);
}

TEST_F(ConsoleTest, MovementHasAnEnd) {
  FakePointer mouse{false};
  console_.add_pointer(mouse);
  console_.point({.dx = INT32_MIN, .dy = INT32_MAX, .dz = INT32_MIN});
  constexpr int32_t kMost = Console::kMostMove;
  EXPECT_EQ(mouse.take(), (Told{{-kMost, kMost, -kMost, 0}}));
}

// What a machine that stands still cannot take is lost, but for what was down before: nothing stays pressed for ever.
TEST_F(ConsoleTest, AStoppedMachineIsNotTypedAt) {
  FakeKeyboard keyboard;
  console_.add_keyboard(keyboard);
  console_.key(0x1e, true);
  console_.key(0x2a, true);
  console_.set_running(false);
  console_.key(0x2a, false);
  console_.key(0x2a, true);
  console_.key(0x30, true);
  console_.key(0x30, false);
  console_.press_keys({0x31});
  clock_.advance(Console::kHoldNs);
  EXPECT_EQ(keyboard.events, (std::vector<int>{0x1e, 0x2a}));
  console_.set_running(true);
  EXPECT_EQ(keyboard.events, (std::vector<int>{0x1e, 0x2a, -0x2a}));
  console_.key(0x1e, false);
  EXPECT_EQ(keyboard.events.back(), -0x1e);
}

TEST_F(ConsoleTest, AStoppedMachineIsNotClickedAt) {
  FakePointer mouse{false};
  console_.add_pointer(mouse);
  console_.point({.buttons = kButtonLeft | kButtonRight});
  mouse.take();
  console_.set_running(false);
  console_.point({.dx = 5, .buttons = kButtonLeft | kButtonMiddle});
  console_.point({.dz = 1, .buttons = kButtonLeft | kButtonRight});
  EXPECT_EQ(mouse.take(), Told{});
  console_.set_running(true);
  EXPECT_EQ(mouse.take(), (Told{{0, 0, 0, kButtonLeft}}));
  console_.set_running(false);
  console_.set_running(true);
  EXPECT_EQ(mouse.take(), Told{});
}

}  // namespace
}  // namespace kite::display

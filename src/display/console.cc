#include "display/console.h"

#include <algorithm>

namespace kite::display {

namespace {

constexpr uint32_t kFirstWidth = 640, kFirstHeight = 480;

}  // namespace

Console::Console(Clock& clock)
    : clock_(clock), refresh_timer_(clock, [this] { refresh(false); }), chord_timer_(clock, [this] { next_chord(); }) {
  surface_.resize(kFirstWidth, kFirstHeight);
}

Console::~Console() = default;

void Console::add_source(Source& source) {
  sources_.push_back(&source);
  watch();
}

void Console::remove_source(Source& source) {
  std::erase(sources_, &source);
  watch();
}

void Console::add_sink(Sink& sink) {
  sinks_.push_back(&sink);
  sink.mode_changed(mode_);
  sink.tablet_changed(has_tablet());
  sink.leds_changed(leds_);
  sink.resized(surface_);
  watch();
}

void Console::remove_sink(Sink& sink) {
  std::erase(sinks_, &sink);
  watch();
}

void Console::watch() {
  const bool looked_at = !sinks_.empty() && !sources_.empty();
  if (!sources_.empty()) sources_.front()->watched(looked_at);
  if (!looked_at) return refresh_timer_.disarm();
  refresh(true);
}

const Surface& Console::look() {
  refresh(true);
  return surface_;
}

void Console::refresh(bool all) {
  if (sources_.empty()) return;
  const uint32_t width = surface_.width(), height = surface_.height();
  const Mode before = mode_;
  mode_ = sources_.front()->draw(surface_, all);
  const std::vector<Rect> rects = surface_.take_damage();
  const bool resized = surface_.width() != width || surface_.height() != height;
  for (Sink* const sink : sinks_) {
    if (mode_ != before) sink->mode_changed(mode_);
    if (resized)
      sink->resized(surface_);
    else if (!rects.empty())
      sink->changed(surface_, rects);
  }
  if (sinks_.empty()) return;
  look_at_leds();
  refresh_timer_.arm_at(clock_.now() + kRefreshNs);
}

// --- input

void Console::set_tablet(Tablet* tablet) {
  tablet_ = tablet;
  for (Sink* const sink : sinks_) sink->tablet_changed(has_tablet());
}

void Console::look_at_leds() {
  const uint8_t leds = keyboard_ == nullptr ? uint8_t{0} : keyboard_->leds();
  if (leds == leds_) return;
  leds_ = leds;
  for (Sink* const sink : sinks_) sink->leds_changed(leds);
}

void Console::key(KeyNumber key, bool down) {
  if (keyboard_ != nullptr) keyboard_->key(key, down);
}

void Console::move(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons) {
  buttons_ = buttons;
  const auto cut = [](int32_t distance) { return std::clamp(distance, -kMostMove, kMostMove); };
  if (pointer_ != nullptr) pointer_->move(cut(dx), cut(dy), cut(dz), buttons);
}

void Console::place(uint16_t x, uint16_t y, int32_t dz, uint8_t buttons) {
  x_ = x;
  y_ = y;
  buttons_ = buttons;
  if (tablet_ != nullptr) tablet_->place(x, y, dz, buttons);
}

void Console::let_go_of_buttons() {
  if (buttons_ == 0) return;
  if (tablet_ != nullptr)
    place(x_, y_, 0, 0);
  else
    move(0, 0, 0, 0);
}

void Console::press_keys(std::vector<KeyNumber> keys, int64_t hold_ns) {
  if (keys.empty()) return;
  chords_.push_back({.keys = std::move(keys), .hold_ns = hold_ns});
  if (chords_.size() == 1) next_chord();
}

void Console::next_chord() {
  if (held_) {
    const std::vector<KeyNumber>& keys = chords_.front().keys;
    std::for_each(keys.rbegin(), keys.rend(), [this](KeyNumber number) { key(number, false); });
    chords_.pop_front();
    held_ = false;
    // What follows at once would find a keyboard's small buffer full.
    if (!chords_.empty()) chord_timer_.arm_at(clock_.now() + kHoldNs / 5);
    return;
  }
  if (chords_.empty()) return;
  for (const KeyNumber number : chords_.front().keys) key(number, true);
  held_ = true;
  chord_timer_.arm_at(clock_.now() + chords_.front().hold_ns);
}

}  // namespace kite::display

#include "display/console.h"

#include <algorithm>
#include <utility>

namespace kite::display {

namespace {

constexpr uint32_t kFirstWidth = 640, kFirstHeight = 480;

}  // namespace

Console::Console(Clock& clock)
    : clock_(clock), refresh_timer_(clock, [this] { refresh(false); }), chord_timer_(clock, [this] { next_chord(); }) {
  surface_.resize(kFirstWidth, kFirstHeight);
}

Console::~Console() = default;

void Console::add_source(Source& source, std::string device) {
  screens_.push_back({.source = &source, .device = std::move(device)});
  watch();
}

void Console::remove_source(Source& source) {
  std::erase_if(screens_, [&](const Screen& screen) { return screen.source == &source; });
  watch();
}

void Console::add_sink(Sink& sink) {
  sinks_.push_back(&sink);
  sink.mode_changed(mode_);
  sink.tablet_changed(tablet_);
  sink.leds_changed(leds_);
  sink.resized(surface_);
  watch();
}

void Console::remove_sink(Sink& sink) {
  std::erase(sinks_, &sink);
  watch();
}

void Console::watch() {
  const bool looked_at = !sinks_.empty() && !screens_.empty();
  if (!screens_.empty()) screens_.front().source->watched(looked_at);
  if (!looked_at) return refresh_timer_.disarm();
  refresh(true);
}

const Surface& Console::look() {
  refresh(true);
  return surface_;
}

const Surface* Console::look_at(std::string_view device) {
  const auto at = std::ranges::find(screens_, device, &Screen::device);
  if (at == screens_.end()) return nullptr;
  if (at == screens_.begin()) return &look();
  other_.resize(kFirstWidth, kFirstHeight);
  at->source->draw(other_, true);
  return &other_;
}

void Console::refresh(bool all) {
  if (screens_.empty()) return;
  const uint32_t width = surface_.width(), height = surface_.height();
  const Mode before = mode_;
  mode_ = screens_.front().source->draw(surface_, all);
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
  look_at_devices();
  refresh_timer_.arm_at(clock_.now() + kRefreshNs);
}

// --- input

Keyboard* Console::first_keyboard() const {
  const auto ready = std::ranges::find_if(keyboards_, [](const Keyboard* keyboard) { return keyboard->ready(); });
  return ready == keyboards_.end() ? nullptr : *ready;
}

// Devices do not tell what has become of them: sinks hear of it at the next refresh.
void Console::look_at_devices() {
  Keyboard* const keyboard = first_keyboard();
  const uint8_t leds = keyboard == nullptr ? uint8_t{0} : keyboard->leds();
  if (std::exchange(leds_, leds) != leds)
    for (Sink* const sink : sinks_) sink->leds_changed(leds);
  const bool tablet = takes_places();
  if (std::exchange(tablet_, tablet) != tablet)
    for (Sink* const sink : sinks_) sink->tablet_changed(tablet);
}

bool Console::takes_keys() const { return first_keyboard() != nullptr; }

void Console::set_running(bool running) {
  if (std::exchange(running_, running) == running) return;
  if (!running) {
    still_held_ = buttons_;
    return;
  }
  for (const KeyNumber number : std::exchange(let_go_, {})) key(number, false);
  if (still_held_ != buttons_) point({.buttons = still_held_});
}

void Console::key(KeyNumber key, bool down) {
  if (!running_) {
    if (!down && down_.erase(key) != 0) let_go_.push_back(key);
    return;
  }
  if (down)
    down_.insert(key);
  else
    down_.erase(key);
  if (Keyboard* const keyboard = first_keyboard()) keyboard->key(key, down);
}

void Console::add_pointer(Pointer& pointer) { hands_.insert(hands_.begin(), {&pointer, next_hand_++}); }

void Console::remove_pointer(Pointer& pointer) {
  std::erase_if(hands_, [&](const Hand& hand) { return hand.pointer == &pointer; });
}

std::vector<Console::PointerInfo> Console::pointers() const {
  const Pointer* const current = first_ready();
  std::vector<PointerInfo> all;
  for (const auto& [pointer, number] : hands_)
    all.push_back({.number = number,
                   .name = pointer->pointer_name(),
                   .absolute = pointer->absolute(),
                   .current = pointer == current});
  std::ranges::sort(all, {}, &PointerInfo::number);
  return all;
}

bool Console::choose_pointer(unsigned number) {
  const auto at = std::ranges::find(hands_, number, &Hand::number);
  if (at == hands_.end()) return false;
  std::rotate(hands_.begin(), at, at + 1);
  last_pixel_.reset();
  return true;
}

Pointer* Console::first_ready() const {
  const auto at = std::ranges::find_if(hands_, [](const Hand& hand) { return hand.pointer->ready(); });
  return at == hands_.end() ? nullptr : at->pointer;
}

Pointer* Console::first_ready(bool absolute) const {
  const auto at = std::ranges::find_if(
      hands_, [&](const Hand& hand) { return hand.pointer->ready() && hand.pointer->absolute() == absolute; });
  return at == hands_.end() ? nullptr : at->pointer;
}

void Console::point(const PointerChange& wanted) {
  if (!running_) {
    still_held_ &= wanted.buttons;
    return;
  }
  const auto cut = [](int32_t distance) { return std::clamp(distance, -kMostMove, kMostMove); };
  PointerChange change = wanted;
  for (int32_t* const distance : {&change.dx, &change.dy, &change.dz}) *distance = cut(*distance);
  Pointer* const first = first_ready();
  const bool pressed = change.buttons != buttons_ || change.dz != 0;
  const bool moved = change.dx != 0 || change.dy != 0, placed = change.x || change.y;
  buttons_ = change.buttons;
  place_x_ = change.x.value_or(place_x_);
  place_y_ = change.y.value_or(place_y_);
  const auto tell = [&](Pointer* pointer, bool goes) {
    if (pointer == nullptr || (!goes && !(pressed && pointer == first))) return;
    const int32_t dz = pointer == first ? change.dz : 0;
    const uint8_t buttons = pointer == first ? change.buttons : uint8_t{0};
    if (pointer->absolute())
      pointer->place(place_x_, place_y_, dz, buttons);
    else
      pointer->move(change.dx, change.dy, dz, buttons);
  };
  tell(first_ready(false), moved);
  tell(first_ready(true), placed);
}

void Console::point_at(uint32_t x, uint32_t y, int32_t dz, uint8_t buttons) {
  const Pointer* const first = first_ready();
  const auto before = std::exchange(last_pixel_, std::pair(x, y));
  PointerChange change{.dz = dz, .buttons = buttons};
  if (first != nullptr && first->absolute()) {
    change.x = place_on(x, surface_.width());
    change.y = place_on(y, surface_.height());
  } else if (before) {
    change.dx = static_cast<int32_t>(x) - static_cast<int32_t>(before->first);
    change.dy = static_cast<int32_t>(y) - static_cast<int32_t>(before->second);
  }
  point(change);
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

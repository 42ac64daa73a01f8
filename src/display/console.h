// Console: the machine's screen, keyboard and pointer, between the devices and whoever looks. The device that shows
// pictures is its Source; sinks (VNC, SPICE) listen. The source is asked for what has changed some 30 times a second
// while somebody looks, and not otherwise. Main executor's thread, all of it.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "async/clock.h"
#include "async/executor.h"
#include "display/input.h"
#include "display/surface.h"

namespace kite::display {

enum class Mode : uint8_t { kBlank, kText, kGraphics };

// A video device.
class Source {
 public:
  virtual ~Source() = default;
  // Draws into `surface`, which gets the size that the mode has. With `all` everything; else at least what has changed
  // since the last call. Takes the device's lock for no longer than its registers need.
  virtual Mode draw(Surface& surface, bool all) = 0;
  // Somebody looks from now on, or nobody: whether to keep account of what changes.
  virtual void watched(bool on) = 0;
};

// Whoever looks.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void resized(const Surface& surface) = 0;  // everything has changed
  virtual void changed(const Surface& surface, std::span<const Rect> rects) = 0;
  virtual void mode_changed(Mode) {}
  virtual void tablet_changed(bool) {}  // whether the guest uses an absolute pointer
  virtual void leds_changed(uint8_t) {}
};

class Console {
 public:
  static constexpr int64_t kRefreshNs = 33'000'000;
  static constexpr int64_t kHoldNs = 100'000'000;  // how long press_keys() holds, and waits before the next

  static constexpr int32_t kMostMove = 0xffff;

  // The clock is the host's, and attached to an executor.
  explicit Console(Clock& clock);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // The first source is the one that is shown. It is forgotten before it goes. `device` is the path of its device.
  void add_source(Source& source, std::string device = {});
  void remove_source(Source& source);
  [[nodiscard]] bool has_source() const { return !screens_.empty(); }
  void add_sink(Sink& sink);
  void remove_sink(Sink& sink);

  // The screen as it is now.
  const Surface& look();
  // What this device has for the screen, whether or not it is shown; null: it is no source. Until the next call.
  const Surface* look_at(std::string_view device);
  [[nodiscard]] const Surface& surface() const { return surface_; }
  [[nodiscard]] Mode mode() const { return mode_; }

  // Keyboards and pointers; each is forgotten before it goes. Of those that the guest uses, the first in line gets what
  // is typed and clicked: the last to be added, or whom choose_pointer() has put in front.
  void add_keyboard(Keyboard& keyboard) { keyboards_.insert(keyboards_.begin(), &keyboard); }
  void remove_keyboard(Keyboard& keyboard) { std::erase(keyboards_, &keyboard); }
  void add_pointer(Pointer& pointer);
  void remove_pointer(Pointer& pointer);
  struct PointerInfo {
    unsigned number = 0;  // its own for as long as it is there
    std::string_view name;
    bool absolute = false, current = false;
  };
  [[nodiscard]] std::vector<PointerInfo> pointers() const;  // by number
  bool choose_pointer(unsigned number);                     // false: there is none of this number

  // Whether somebody is there for it.
  [[nodiscard]] bool takes_keys() const;
  [[nodiscard]] bool takes_clicks() const { return first_ready() != nullptr; }
  [[nodiscard]] bool takes_movement() const { return first_ready(false) != nullptr; }
  [[nodiscard]] bool takes_places() const { return first_ready(true) != nullptr; }

  // Whether the machine runs, as it does at first. One that stands still is not typed or clicked at; what was down
  // before and is let go of meanwhile is let go of once it runs again.
  void set_running(bool running);
  [[nodiscard]] bool running() const { return running_; }
  void key(KeyNumber key, bool down);
  // What has changed about the pointer. Movement goes to the first relative pointer in line, a place to the first
  // absolute one, wheel and buttons to the first of all.
  struct PointerChange {
    int32_t dx = 0, dy = 0, dz = 0;
    std::optional<int32_t> x = {}, y = {};  // 0 to kPlaceMost
    uint8_t buttons = 0;                    // as they are now
  };
  void point(const PointerChange& change);  // of movement at most kMostMove either way
  // The pointer is at this pixel of the screen: what a remote desktop knows. Becomes a place where the first pointer in
  // line is absolute, else movement since the last time.
  void point_at(uint32_t x, uint32_t y, int32_t dz, uint8_t buttons);
  void forget_place() { last_pixel_.reset(); }  // the next pixel is no movement
  [[nodiscard]] uint8_t buttons() const { return buttons_; }
  // Presses these together, in their order, and lets go of them `hold_ns` later; after what was asked for before.
  void press_keys(std::vector<KeyNumber> keys, int64_t hold_ns = kHoldNs);

 private:
  struct Chord {
    std::vector<KeyNumber> keys;
    int64_t hold_ns;
  };
  void refresh(bool all);
  void look_at_devices();
  void watch();
  void next_chord();
  [[nodiscard]] Keyboard* first_keyboard() const;
  [[nodiscard]] Pointer* first_ready() const;
  [[nodiscard]] Pointer* first_ready(bool absolute) const;

  Clock& clock_;
  struct Screen {
    Source* source;
    std::string device;
  };
  std::vector<Screen> screens_;
  std::vector<Sink*> sinks_;
  std::vector<Keyboard*> keyboards_;
  struct Hand {
    Pointer* pointer;
    unsigned number;
  };
  std::vector<Hand> hands_;
  unsigned next_hand_ = 1;
  bool running_ = true;
  std::set<KeyNumber> down_;       // as the keyboards were told
  std::vector<KeyNumber> let_go_;  // of these, while the machine stood still
  uint8_t buttons_ = 0;            // as the pointers were told
  uint8_t still_held_ = 0;         // of them, while the machine stands still
  uint8_t leds_ = 0;               // as the sinks know them
  bool tablet_ = false;            // so do they
  int32_t place_x_ = 0, place_y_ = 0;
  std::optional<std::pair<uint32_t, uint32_t>> last_pixel_;
  Surface surface_;
  Surface other_;  // of a source that is not shown
  Mode mode_ = Mode::kBlank;
  std::deque<Chord> chords_;  // the first is down while `held_`
  bool held_ = false;
  Timer refresh_timer_, chord_timer_;
};

}  // namespace kite::display

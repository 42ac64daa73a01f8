// Console: the machine's screen, keyboard and pointer, between the devices and whoever looks. The device that shows
// pictures is its Source; sinks (VNC, SPICE) listen. The source is asked for what has changed some 30 times a second
// while somebody looks, and not otherwise. Main executor's thread, all of it.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
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
  virtual void tablet_changed(bool) {}  // whether there is one
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

  // The first source is the one that is shown. It is forgotten before it goes.
  void add_source(Source& source);
  void remove_source(Source& source);
  [[nodiscard]] bool has_source() const { return !sources_.empty(); }
  void add_sink(Sink& sink);
  void remove_sink(Sink& sink);

  // The screen as it is now.
  const Surface& look();
  [[nodiscard]] const Surface& surface() const { return surface_; }
  [[nodiscard]] Mode mode() const { return mode_; }

  void set_keyboard(Keyboard* keyboard) { keyboard_ = keyboard; }
  void set_pointer(Pointer* pointer) { pointer_ = pointer; }
  void set_tablet(Tablet* tablet);
  [[nodiscard]] bool has_tablet() const { return tablet_ != nullptr; }
  void key(KeyNumber key, bool down);
  void move(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons);   // of movement at most kMostMove either way
  void place(uint16_t x, uint16_t y, int32_t dz, uint8_t buttons);  // only with a tablet
  [[nodiscard]] uint8_t buttons() const { return buttons_; }
  void let_go_of_buttons();
  // Presses these together, in their order, and lets go of them `hold_ns` later; after what was asked for before.
  void press_keys(std::vector<KeyNumber> keys, int64_t hold_ns = kHoldNs);

 private:
  struct Chord {
    std::vector<KeyNumber> keys;
    int64_t hold_ns;
  };
  void refresh(bool all);
  void look_at_leds();
  void watch();
  void next_chord();

  Clock& clock_;
  std::vector<Source*> sources_;
  std::vector<Sink*> sinks_;
  Keyboard* keyboard_ = nullptr;
  Pointer* pointer_ = nullptr;
  Tablet* tablet_ = nullptr;
  uint16_t x_ = 0, y_ = 0;  // the tablet's last place
  uint8_t buttons_ = 0;
  uint8_t leds_ = 0;  // as the sinks know them
  Surface surface_;
  Mode mode_ = Mode::kBlank;
  std::deque<Chord> chords_;  // the first is down while `held_`
  bool held_ = false;
  Timer refresh_timer_, chord_timer_;
};

}  // namespace kite::display

// Human interface devices: usb-kbd, usb-mouse, usb-tablet. [HID] 1.11. One interface with one interrupt endpoint that
// brings reports; a keyboard takes its lamps by a request. Events wait in a short queue until the guest asks.
#pragma once

#include <atomic>
#include <deque>

#include "async/clock.h"
#include "devices/usb/usb_device.h"
#include "display/input.h"

namespace kite::devices {

class UsbHid : public UsbDevice {
 public:
  // The guest has set the device up: events are for it.
  [[nodiscard]] bool in_use() const { return in_use_.load(std::memory_order_relaxed); }

  void stop() override { idle_timer_.disarm(); }
  void start() override { arm_idle(); }

 protected:
  struct Shape {
    std::string path, product;
    uint16_t product_id;
    uint8_t subclass, protocol;  // 1: speaks a boot protocol too; 1 keyboard, 2 mouse
    uint8_t report_bytes;        // the longest report
    std::vector<uint8_t> report_descriptor;
  };
  UsbHid(const Shape& shape, Clock& clock);

  // With lock_ held. The next report that is due: what has happened, or the state as it is.
  [[nodiscard]] virtual std::vector<uint8_t> report() const = 0;
  [[nodiscard]] virtual bool has_event() const = 0;
  virtual void take_event() = 0;  // the next report shows what it did
  virtual bool set_report(std::span<const uint8_t> data) { return (void)data, false; }
  virtual void forget_events() = 0;
  [[nodiscard]] bool boot_protocol() const { return hid_.boot_protocol; }
  // Main thread, lock_ not held: an event is in the queue.
  void told() { endpoint_ready(kReportEndpoint); }

  static constexpr uint8_t kReportEndpoint = 0x81;
  static constexpr size_t kMostEvents = 16;  // that wait

  std::optional<std::vector<uint8_t>> class_in(const usb::Setup& setup) override;
  bool class_out(const usb::Setup& setup, std::span<const uint8_t> data) override;
  std::optional<std::vector<uint8_t>> interface_descriptor(uint8_t kind, uint8_t index) override;
  UsbAnswer data_in(uint8_t endpoint, std::span<uint8_t> to) override;
  UsbAnswer data_out(uint8_t, std::span<const uint8_t>) override { return {.outcome = UsbOutcome::kSilent}; }
  [[nodiscard]] bool has_endpoint(uint8_t endpoint) const override { return endpoint == kReportEndpoint; }
  void function_reset() override;
  void save_function(StateWriter& writer) override;
  void restore_function(StateReader& reader) override;
  void apply_function() override;
  void applied() override { arm_idle(); }
  // The events and what they led to, as fields from 20 on.
  virtual void save_events(StateWriter& writer) = 0;
  virtual void restore_events(StateReader& reader) = 0;
  virtual void apply_events() = 0;

 private:
  static UsbDescriptors descriptors(const Shape& shape);
  [[nodiscard]] int64_t idle_ns() const { return int64_t{hid_.idle} * 4'000'000; }
  [[nodiscard]] bool idle_over() const { return hid_.idle != 0 && clock_.now() >= hid_.last_report + idle_ns(); }
  void arm_idle();

  // Static configuration and wiring.
  const Shape shape_;
  Clock& clock_;
  std::atomic<bool> in_use_{false};

  // State.
  struct State {
    uint8_t idle = 0;  // in 4 ms; 0: reports come only when something has happened
    bool boot_protocol = false;
    int64_t last_report = 0;
  };
  State hid_, restored_;
  Timer idle_timer_;
};

class UsbKeyboard final : public UsbHid, public display::Keyboard {
 public:
  UsbKeyboard(std::string path, Clock& clock);

  void key(display::KeyNumber key, bool down) override;
  [[nodiscard]] bool ready() const override { return in_use(); }
  [[nodiscard]] uint8_t leds() override;

 private:
  [[nodiscard]] std::vector<uint8_t> report() const override;
  [[nodiscard]] bool has_event() const override { return !keys_.events.empty(); }
  void take_event() override;
  bool set_report(std::span<const uint8_t> data) override;
  void forget_events() override;
  void save_events(StateWriter& writer) override;
  void restore_events(StateReader& reader) override;
  void apply_events() override;

  static constexpr size_t kKeysInReport = 6;
  static constexpr uint8_t kUp = 0x80;
  struct Keys {
    uint8_t modifiers = 0, leds = 0;
    std::vector<uint8_t> down;                  // usages, in the order in which they went down
    std::deque<std::array<uint8_t, 2>> events;  // usage, and whether it went up
  };
  Keys keys_, restored_keys_;
};

// A mouse, or with absolute coordinates a tablet.
class UsbPointer final : public UsbHid, public display::Pointer {
 public:
  UsbPointer(std::string path, bool tablet, Clock& clock);

  void move(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons) override;
  void place(int32_t x, int32_t y, int32_t dz, uint8_t buttons) override;
  [[nodiscard]] bool ready() const override { return in_use(); }
  [[nodiscard]] bool absolute() const override { return tablet_; }
  [[nodiscard]] std::string_view pointer_name() const override { return product(); }

 private:
  [[nodiscard]] std::vector<uint8_t> report() const override;
  [[nodiscard]] bool has_event() const override { return !queue_.events.empty(); }
  void take_event() override;
  void forget_events() override;
  void save_events(StateWriter& writer) override;
  void restore_events(StateReader& reader) override;
  void apply_events() override;

  // Where a tablet is; how far a mouse has yet to go.
  struct Event {
    int32_t x = 0, y = 0, z = 0;
    uint8_t buttons = 0;
  };
  void add(const Event& event);
  [[nodiscard]] static Event step_of(const Event& event);

  const bool tablet_;
  struct Queue {
    Event shown;  // by the last report
    std::deque<Event> events;
  };
  Queue queue_, restored_queue_;
};

}  // namespace kite::devices

// Device: the one lifecycle. Constructed by the board with its wiring, reset, started; stopped (after stop() returns no
// completion and no timer touches the guest); saved and restored while stopped. Each device has a lock of its own; the
// functions below take it, callers hold none.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/clock.h"
#include "bus/irq_line.h"
#include "memory/guest_memory.h"
#include "memory/region.h"
#include "object/live_property.h"
#include "state/codec.h"
#include "support/result.h"

namespace kite::bus {

class Device {
 public:
  explicit Device(std::string path) : path_(std::move(path)) {}
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // Unique within the machine: "pit", "serial0", "pci/00:01.3".
  [[nodiscard]] const std::string& path() const { return path_; }

  virtual void reset() = 0;  // power-on state; output lines go to their reset levels
  virtual void start() {}
  virtual void stop() {}
  // One section named path(). restore() rejects impossible states through the reader and then changes nothing.
  virtual void save(StateWriter& writer) = 0;
  virtual void restore(StateReader& reader) = 0;

  // What a monitor can ask and tell it while it lives. They hold for as long as the device. Main executor's thread.
  [[nodiscard]] virtual std::vector<LiveProperty> live_properties() { return {}; }

 private:
  std::string path_;
};

}  // namespace kite::bus

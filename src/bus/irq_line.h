// IrqLine: one wire from a device to whatever is at the other end (an interrupt controller's input, a PCI pin). A small
// value; copying it copies the end of the wire, not the wire. Level-sensitive: set(true) twice is once. The sink
// decides about edges. Lock order: device -> interrupt controller, so a device may drive a line with its own lock held.
#pragma once

#include <cstdint>

namespace kite::bus {

class IrqSink {
 public:
  virtual ~IrqSink() = default;
  // Any thread.
  virtual void set_irq(uint32_t line, bool level) = 0;
};

class IrqLine {
 public:
  IrqLine() = default;  // connected to nothing
  IrqLine(IrqSink& sink, uint32_t line) : sink_(&sink), line_(line) {}
  void set(bool level) const {
    if (sink_ != nullptr) sink_->set_irq(line_, level);
  }
  void raise() const { set(true); }
  void lower() const { set(false); }
  void pulse() const {
    set(true);
    set(false);
  }
  [[nodiscard]] bool connected() const { return sink_ != nullptr; }

 private:
  IrqSink* sink_ = nullptr;
  uint32_t line_ = 0;
};

}  // namespace kite::bus

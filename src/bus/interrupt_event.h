// InterruptEvent: an eventfd whose signal is an interrupt, so that whoever serves a device (another thread, another
// process) raises it without the device. With KVM the kernel delivers it (irqfd); elsewhere the machine's executor
// does.
#pragma once

#include <cstdint>
#include <memory>

#include "support/result.h"

namespace kite::bus {

class InterruptEvent {
 public:
  virtual ~InterruptEvent() = default;  // whoever signals has stopped
  // Signalled by eventfd_write(); several signals may become one interrupt.
  [[nodiscard]] virtual int fd() const = 0;
  // While it is off (an MSI-X vector that the guest masked) signals wait; one of them is delivered when it goes on. On
  // at first.
  virtual Result<> set_enabled(bool enabled) = 0;
  // Message events: sends this from now on.
  virtual Result<> set_message(uint64_t address, uint32_t data) = 0;
};

// The board makes these. Any thread may call; the events may be destroyed on any thread but within Executor callbacks
// of others.
class InterruptEvents {
 public:
  virtual ~InterruptEvents() = default;
  // Each signal sends the message-signalled interrupt.
  virtual Result<std::unique_ptr<InterruptEvent>> make_message_event(uint64_t address, uint32_t data) = 0;
  // Each signal is a pulse on global system interrupt `gsi` (0-23).
  virtual Result<std::unique_ptr<InterruptEvent>> make_line_event(uint32_t gsi) = 0;
};

}  // namespace kite::bus

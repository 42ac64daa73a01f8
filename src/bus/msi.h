// Message-signalled interrupts: a device writes `data` to `address`, and what listens there interrupts a processor.
// The board gives every PCI bus its sink: ApicBus, or an accelerator with interrupt controllers of its own.
// Message format: [SDM 3A 11.11].
#pragma once

#include <cstdint>

namespace kite::bus {

class MsiSink {
 public:
  virtual ~MsiSink() = default;
  // Any thread, with a device's lock held or not (lock order: device, then interrupt controller). Answers whether at
  // least one processor took the message; what is no message at all is dropped.
  virtual bool send_msi(uint64_t address, uint32_t data) = 0;
};

}  // namespace kite::bus

// ApicCpu: what a local APIC does to its processor. The machine implements it over whatever runs the vCPU.
#pragma once

#include <cstdint>

namespace kite::devices {

// Any thread, and with an interrupt controller's lock held: implementations take no lock (an atomic OR, then a wake).
class ApicCpu {
 public:
  virtual ~ApicCpu() = default;
  virtual void interrupt() = 0;           // look at LocalApic::has_interrupt()
  virtual void nmi() = 0;                 // an NMI arrived
  virtual void smi() = 0;                 // a system-management interrupt arrived
  virtual void init() = 0;                // INIT; the processor calls LocalApic::reset(false) when it takes it
  virtual void sipi(uint8_t vector) = 0;  // start-up at vector << 12
  // What to add to clock ticks at the TSC's rate to get this processor's IA32_TSC. Asked on the processor's own thread.
  [[nodiscard]] virtual int64_t tsc_offset() const { return 0; }
};

}  // namespace kite::devices

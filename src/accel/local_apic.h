// LocalApic: the interrupt side of one CPU, as the accelerator sees it. The implementation lives in devices/apic; a KVM
// with an in-kernel interrupt controller has none.
#pragma once

#include <cstdint>
#include <optional>

namespace kite {

// The 8259 pair as a processor sees it: the INT output and the interrupt acknowledge cycle.
class ExtInt {
 public:
  virtual ~ExtInt() = default;
  // Any thread, no lock: the level of INT.
  [[nodiscard]] virtual bool pending() const = 0;
  // The INTA cycle; answers the vector, that of a spurious interrupt when the request went away. Takes the 8259's lock.
  virtual uint8_t acknowledge() = 0;
};

class LocalApic {
 public:
  virtual ~LocalApic() = default;

  // Any thread: whether acknowledge() would find something now.
  [[nodiscard]] virtual bool has_interrupt() const = 0;
  // vCPU thread, when the CPU takes an external interrupt: the vector with the highest priority above TPR/PPR, moved
  // from IRR to ISR, or the 8259's through LINT0. Nothing when it went away meanwhile.
  virtual std::optional<uint8_t> acknowledge() = 0;

  // IA32_APIC_BASE. A write that the architecture forbids answers false (#GP).
  [[nodiscard]] virtual uint64_t base() const = 0;
  virtual bool set_base(uint64_t value) = 0;
  // Register page, for accesses inside base()..+0xfff while enabled in xAPIC mode; vCPU thread. 32-bit registers at
  // multiples of 16; other offsets and sizes behave as the SDM leaves undefined: they read 0 and ignore writes.
  virtual uint32_t mmio_read(uint32_t offset) = 0;
  virtual void mmio_write(uint32_t offset, uint32_t value) = 0;
  // x2APIC MSRs 0x800-0x8ff. False: #GP.
  virtual bool msr_read(uint32_t index, uint64_t& value) = 0;
  virtual bool msr_write(uint32_t index, uint64_t value) = 0;
  // CR8: bits 7:4 of TPR.
  [[nodiscard]] virtual uint8_t cr8() const = 0;
  virtual void set_cr8(uint8_t value) = 0;
  // IA32_TSC_DEADLINE; 0 disarms. Ignored unless the timer is in that mode.
  [[nodiscard]] virtual uint64_t tsc_deadline() const = 0;
  virtual void set_tsc_deadline(uint64_t value) = 0;
  // INIT, or power-on: back to the reset state (INIT keeps the id and APIC base).
  virtual void reset(bool power_on) = 0;
};

}  // namespace kite

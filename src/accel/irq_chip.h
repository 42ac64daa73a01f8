// IrqChip: the interrupt hardware that an accelerator has of its own (KVM's, in the kernel), as the board and the
// devices' buses use it. A board asks has_io_controllers() once, while it is built: its own 8259 pair and IOAPIC, or
// these. Local APICs are always the accelerator's where there is an IrqChip; where there is none, everything is the
// board's.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "support/result.h"

namespace kite {

// An MSI: what is written where [SDM 3A 11.11].
struct MsiWrite {
  uint64_t address = 0;
  uint32_t data = 0;
  bool operator==(const MsiWrite&) const = default;
};

class IrqChip {
 public:
  virtual ~IrqChip() = default;

  // True: the 8259 pair (ports 0x20, 0xa0, 0x4d0) and the IOAPIC (0xfec00000) are here too, and lines reach them
  // through set_line(). False: they are the board's, which sends messages and names its redirection table by set_pin().
  [[nodiscard]] virtual bool has_io_controllers() const = 0;
  // With has_io_controllers: the 8254 (ports 0x40-0x43, 0x61) is here too, and drives GSI 0 by itself.
  [[nodiscard]] virtual bool has_timer() const = 0;

  // --- any thread, no lock of a device's is needed and none is taken ---
  // has_io_controllers: the level of a global system interrupt, 0-23. 0-15 are the 8259's inputs as well; 0 is the
  // IOAPIC's input 2.
  virtual void set_line(uint32_t gsi, bool level) = 0;
  // Answers whether at least one processor took the message.
  virtual bool send_msi(const MsiWrite& message) = 0;

  // --- routes: an MSI under a number, for attach_event() ---
  virtual Result<uint32_t> add_route(const MsiWrite& message) = 0;
  virtual Result<> change_route(uint32_t gsi, const MsiWrite& message) = 0;
  virtual void remove_route(uint32_t gsi) = 0;
  // A signal of `event_fd` is an edge at `gsi` (a route's, or a line's). With `resample_fd` it raises a level instead,
  // which falls when the guest acknowledges; that is then signalled. Refused where the kernel cannot.
  virtual Result<> attach_event(int event_fd, uint32_t gsi, int resample_fd = -1) = 0;
  virtual void detach_event(int event_fd, uint32_t gsi) = 0;

  // --- without has_io_controllers ---
  // What input `pin` of the board's IOAPIC sends; nothing while it is masked. The ends of level-triggered interrupts
  // (data bit 15) are reported to the listener.
  virtual void set_pin(uint32_t pin, const std::optional<MsiWrite>& message) = 0;
  // Called on a vCPU's thread. Set while the machine is built.
  virtual void set_eoi_listener(std::function<void(uint8_t vector)> listener) = 0;

  // --- machine stopped (or being built) ---
  // Power-on state of the controllers and the timer; the local APICs are reset with their vCPUs.
  virtual void reset() = 0;
  // As firmware leaves it all, for boards without: local APICs in virtual wire mode ([MP 1.4] 3.6.2.2:
  // software-enabled, LINT0 = ExtINT on the bootstrap processor, LINT1 = NMI); the 8259 pair at vectors 0x08 and 0x70
  // with everything but the cascade masked and these inputs level-triggered; the 8254's counter 0 at 18.2 Hz.
  virtual void program_as_firmware(uint16_t level_triggered) = 0;
  // has_timer: the HPET's legacy replacement silences the 8254 on line 0. Any thread.
  virtual void set_timer_silenced(bool silenced) = 0;
  // Everything that reset() resets, in the accelerator's form. set_state() takes only what get_state() of the same
  // accelerator gave, and changes nothing otherwise.
  [[nodiscard]] virtual Result<std::vector<uint8_t>> get_state() = 0;
  virtual Result<> set_state(const std::vector<uint8_t>& state) = 0;
};

}  // namespace kite

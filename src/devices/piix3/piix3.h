// 82371SB PIIX3 function 0: PCI to ISA bridge, 00:01.0, 8086:7000. [PIIX3] Intel 290550-002.
//
// Steers PIRQA..D to the sixteen ISA interrupts and joins them with the ISA sources of the same interrupt (a shared
// line is high while any of its sources is). Owns the reset control register at port 0xcf9; that port lies inside the
// host bridge's configuration address register, so the host bridge passes byte accesses on to reset_control().
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>

#include "bus/irq_line.h"
#include "bus/pci.h"
#include "devices/pci_host/reset_control.h"

namespace kite::devices {

class Piix3 final : public bus::PciDevice, public bus::IrqSink {
 public:
  struct Wiring {
    std::array<bus::IrqLine, 16> isa_irqs;  // to the interrupt controllers
    std::function<void(ResetKind)> reset;   // called with no lock held, on the writing vCPU's thread
  };
  Piix3(std::string path, Wiring wiring);

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // The sink for PciBus: lines 0..3 are PIRQA..D; 16..31 the ISA sources of interrupts 0..15. Others are ignored.
  void set_irq(uint32_t line, bool level) override;
  // For an ISA device, or the SCI, that may share `irq` (0..15) with PCI.
  [[nodiscard]] bus::IrqLine isa_source(uint32_t irq) { return {*this, kIsaSource + irq}; }
  // One byte: port 0xcf9.
  [[nodiscard]] IoHandler& reset_control() { return reset_control_; }

 protected:
  void config_written(uint16_t offset, unsigned size, uint32_t value) override;

 private:
  static constexpr uint32_t kIsaSource = 16;
  void set_reset_values();
  void load_routes();    // config_lock_ held
  void drive_changed();  // lock_ held

  // Wiring.
  Wiring wiring_;
  ResetControl reset_control_;

  // State; the rest is in the configuration space, under config_lock_.
  struct State {              // besides reset_control_'s
    uint8_t pirq_levels = 0;  // one bit a PIRQ
    uint16_t isa_levels = 0;  // one bit an ISA interrupt's own source
  };
  std::mutex lock_;  // taken after config_lock_, before the interrupt controllers'
  State state_;
  std::array<uint8_t, 4> routes_{};  // PIRQRC as last written. Derived from the configuration space
  uint16_t driven_ = 0;              // levels last given to isa_irqs. Derived
};

}  // namespace kite::devices

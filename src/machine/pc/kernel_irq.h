// The board's side of interrupt hardware that the accelerator has: local APICs alone, or with the 8259 pair, the IOAPIC
// and the 8254. The accelerator's part is reset and saved as one device.
#pragma once

#include <vector>

#include "accel/irq_chip.h"
#include "accel/vcpu.h"
#include "bus/device.h"
#include "devices/apic/apic_bus.h"
#include "devices/ioapic/io_apic.h"

namespace kite::machine {

class KernelIrq final : public bus::Device, public devices::RemoteApics, public devices::PinListener {
 public:
  // `vcpus` is filled while the machine is built and outlives this.
  KernelIrq(IrqChip& chip, const std::vector<Vcpu*>& vcpus) : Device("irqchip"), chip_(chip), vcpus_(vcpus) {}

  // bus::Device.
  void reset() override { chip_.reset(); }
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // devices::RemoteApics.
  bool send_msi(uint64_t address, uint32_t data) override { return chip_.send_msi({.address = address, .data = data}); }
  void set_intr(bool level) override;
  void nmi() override;

  // devices::PinListener.
  void pin_changed(unsigned input, const std::optional<devices::ApicMessage>& message) override;

 private:
  // Wiring. The state is the accelerator's.
  IrqChip& chip_;
  const std::vector<Vcpu*>& vcpus_;
};

}  // namespace kite::machine

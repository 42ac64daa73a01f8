// ACPI PCI hot-plug registers of virtual PCs, at port 0xae00 beside the PIIX4. No chip has them: the interface is that
// of QEMU's docs/specs/acpi_pci_hotplug, which firmware and tests written for that machine know. All are 32 bits wide,
// one bit a slot where nothing else is said, and tell of the bus that kBus selects.
#pragma once

#include <cstdint>

namespace kite::devices::acpi_pci_hotplug_regs {

enum Reg : uint8_t {
  kUp = 0x00,     // r   functions came to the slot; a read clears it
  kDown = 0x04,   // r   the slot is to be let go
  kEject = 0x08,  // w   the slot has been let go; reads 0, the features beyond these registers
  kRmv = 0x0c,    // r   what is in the slot can be removed
  kBus = 0x10,    // rw  number of the bus, all 32 bits
};
inline constexpr uint16_t kPort = 0xae00;
inline constexpr uint64_t kSize = 0x14;
inline constexpr unsigned kGpe = 1;  // the general purpose event that asks the system to look

}  // namespace kite::devices::acpi_pci_hotplug_regs

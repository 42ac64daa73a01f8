// ACPI tables [ACPI 6.4] for the boards: RSDP, RSDT/XSDT, FADT, FACS, DSDT (our own AML, built here), MADT, HPET, MCFG.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kite::boot {

struct AcpiConfig {
  uint32_t cpu_count = 1;
  bool hpet = false;
  uint8_t serial_ports = 0;  // bit 0: COM1 exists .. bit 3: COM4
  uint16_t pm_base = 0x600;  // PIIX4 PM I/O base
  uint16_t sci_irq = 9;
  uint64_t pci_hole_start = 0;  // 32-bit window for BARs
  uint64_t pci_hole_end = 0;    // exclusive
};

// A blob to be placed at `address` (16-byte aligned, below 4 GiB), with all pointers final, and the RSDP apart, for
// 0xE0000-0xFFFFF.
struct AcpiTables {
  std::vector<uint8_t> blob;
  std::vector<uint8_t> rsdp;
};
AcpiTables build_acpi(const AcpiConfig& config, uint64_t address);

}  // namespace kite::boot

// ACPI tables [ACPI 6.4] for the i440FX board: RSDP, RSDT and XSDT, FADT, FACS, DSDT (our own AML, built here), MADT,
// HPET.
#pragma once

#include <cstdint>
#include <vector>

namespace kite::boot {

inline constexpr uint32_t kHpetBase = 0xfed00000;
inline constexpr uint32_t kMostCpus = 4096;

struct AcpiConfig {
  uint32_t cpu_count = 1;  // 1..kMostCpus; APIC ids are 0..cpu_count-1
  bool hpet = false;
  bool vga = false;          // false: systems need not probe for one
  uint8_t serial_ports = 0;  // bit 0: COM1 exists .. bit 3: COM4
  uint16_t pm_base = 0x600;  // PIIX4 PM I/O base
  uint16_t sci_irq = 9;
  uint64_t pci_hole_start = 0;    // 32-bit window for BARs
  uint64_t pci_hole_end = 0;      // exclusive
  uint64_t pci_hole64_start = 0;  // window for BARs above 4 GiB; none while it is empty
  uint64_t pci_hole64_end = 0;    // exclusive
};

// A blob to be placed at `address` (16-byte aligned, below 4 GiB), with all pointers final, and the RSDP apart, for
// 0xE0000-0xFFFFF.
struct AcpiTables {
  std::vector<uint8_t> blob;
  std::vector<uint8_t> rsdp;
};
AcpiTables build_acpi(const AcpiConfig& config, uint64_t address);

}  // namespace kite::boot

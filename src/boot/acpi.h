// ACPI tables [ACPI 6.4] for the PC boards: RSDP, RSDT and XSDT, FADT, FACS, DSDT (our own AML, built here), MADT,
// HPET, MCFG, SRAT and SLIT.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "support/result.h"
#include "x86/topology.h"

namespace kite::boot {

inline constexpr uint32_t kHpetBase = 0xfed00000;
inline constexpr uint32_t kMostCpus = 4096;

enum class AcpiChipset : uint8_t {
  kPiix,  // PIIX3 and PIIX4: general purpose events at 0xafe0, four interrupt links
  kIch9,  // events in the power management block, eight links and APIC routing, PCI Express
};

// A PCI bus in what ACPI's hot-plug serves (devices/acpi_pci_hotplug), and the buses behind its bridges.
struct HotplugBus {
  uint8_t bridge = 0;              // devfn of the bridge that leads to it; means nothing for the root bus
  std::optional<uint32_t> number;  // its number in the registers; none: only buses behind it have one
  uint32_t slots = 0;              // which can be filled and ejected, a bit each
  std::vector<HotplugBus> behind = {};
};

// Which NUMA node CPUs and memory belong to, and how far the nodes are from each other.
struct AcpiNuma {
  struct Memory {
    uint64_t base, bytes;
    uint32_t node;
  };
  std::vector<uint32_t> node_of_cpu = {};  // by index
  std::vector<Memory> memory = {};
  std::vector<uint8_t> distances = {};  // nodes times nodes; none: nothing is told
};

struct AcpiConfig {
  AcpiChipset chipset = AcpiChipset::kPiix;
  uint32_t cpu_count = 1;          // 1..kMostCpus
  x86::CpuTopology topology = {};  // which has their APIC ids
  AcpiNuma numa = {};
  bool hpet = false;
  bool vga = false;          // false: systems need not probe for one
  uint8_t serial_ports = 0;  // bit 0: COM1 exists .. bit 3: COM4
  uint16_t pm_base = 0x600;  // power management I/O base
  uint16_t sci_irq = 9;
  uint8_t acpi_enable = 0, acpi_disable = 0;  // commands to port 0xb2; both 0: the machine is always in ACPI mode
  bool suspend_to_ram = false;                // offers \_S3
  bool suspend_to_disk = false;               // offers \_S4
  uint64_t pci_hole_start = 0;                // 32-bit window for BARs
  uint64_t pci_hole_end = 0;                  // exclusive
  uint64_t pci_hole64_start = 0;              // window for BARs above 4 GiB; none while it is empty
  uint64_t pci_hole64_end = 0;                // exclusive
  uint64_t ecam_base = 0;                     // memory-mapped configuration space; inside the 32-bit window
  uint64_t ecam_bytes = 0;                    // 1 MiB a bus; 0: there is none
  std::optional<HotplugBus> hotplug = {};     // the root bus; kPiix only
  std::vector<std::vector<uint8_t>> user_tables = {};  // -acpitable: whole, with their checksums
};

// All tables in one blob, with the RSDP apart (it belongs into 0xE0000-0xFFFFF). As built, the pointers are offsets in
// the blob and the checksums 0, as some firmware wants to find them; place_acpi() or the firmware's loader
// (boot/acpi_loader.h) makes them addresses.
struct AcpiTables {
  struct Link {  // a pointer
    uint32_t offset;
    uint8_t size;  // 4 or 8 bytes
  };
  struct Sum {  // a checksum byte at `offset` over [start, start + length)
    uint32_t offset, start, length;
  };
  std::vector<uint8_t> blob, rsdp;
  std::vector<Link> links, rsdp_links;  // both point into the blob
  std::vector<Sum> sums, rsdp_sums;
  uint32_t facs = 0;  // its offset: the waking vector is there
};
AcpiTables build_acpi(const AcpiConfig& config);
// Makes the pointers final for a blob at `address` (a multiple of 64, below 4 GiB). Once.
void place_acpi(AcpiTables& tables, uint64_t address);

// A whole table of the user's (-acpitable): header, length, checksum. The error tells what is wrong.
Result<> check_acpi_table(const std::vector<uint8_t>& table);

}  // namespace kite::boot

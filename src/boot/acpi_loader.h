// The script by which firmware places ACPI tables that it takes from fw_cfg: 128-byte commands that allocate a file's
// memory, turn offsets between files into addresses and mend checksums. [FW_CFG] "etc/table-loader", as SeaBIOS and
// OVMF read it.
#pragma once

#include <cstdint>
#include <vector>

#include "boot/acpi.h"

namespace kite::boot {

inline constexpr const char* kAcpiTablesFile = "etc/acpi/tables";
inline constexpr const char* kAcpiRsdpFile = "etc/acpi/rsdp";
inline constexpr const char* kAcpiLoaderFile = "etc/table-loader";

// For tables as build_acpi() made them, in the two files above.
std::vector<uint8_t> acpi_loader_script(const AcpiTables& tables);

}  // namespace kite::boot

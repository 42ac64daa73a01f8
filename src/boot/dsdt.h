// The DSDT: what an operating system cannot find by probing.
#pragma once

#include <cstdint>
#include <vector>

#include "boot/acpi.h"

namespace kite::boot {

// The definition block's AML, without the table header.
std::vector<uint8_t> build_dsdt_code(const AcpiConfig& config);
// Of boards with an ICH9; build_dsdt_code() calls it.
std::vector<uint8_t> build_q35_dsdt_code(const AcpiConfig& config);

}  // namespace kite::boot

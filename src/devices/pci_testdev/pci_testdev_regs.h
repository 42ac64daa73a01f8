// pci-testdev's header at the start of each BAR. [PCI-TESTDEV] QEMU's docs/specs/pci-testdev.txt. Little-endian.
#pragma once

#include <cstdint>

namespace kite::devices::pci_testdev_regs {

enum Field : uint8_t {
  kTest = 0,    // -w  1 byte: selects a test and clears its count; a number without a test selects none
  kWidth = 1,   // r-  1 byte: size of the test's access; 0 when no test is selected
  kOffset = 4,  // r-  4 bytes: where in the BAR the test writes
  kData = 8,    // r-  4 bytes: what it writes
  kCount = 12,  // r-  4 bytes: writes that matched
  kName = 16,   // r-  zero-terminated
};

inline constexpr uint64_t kMemorySize = 4096;
inline constexpr uint64_t kPortSize = 256;
// Where the tests' targets start, past the header.
inline constexpr uint32_t kMemoryTargets = 2048;
inline constexpr uint32_t kPortTargets = 128;

}  // namespace kite::devices::pci_testdev_regs

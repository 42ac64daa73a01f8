// Registers of the processors, as firmware and ACPI find out which there are. [ACPI_CPU_HOTPLUG] QEMU's
// docs/specs/acpi_cpu_hotplug.rst, the interface that it calls modern. All refer to the selected processor; what is
// read of one that cannot be is 0.
#pragma once

#include <cstdint>

namespace kite::devices::acpi_cpus_regs {

enum Reg : uint8_t {
  kSelector = 0x00,      // wo  32 bits: the number of a processor
  kCommandData2 = 0x00,  // ro  32 bits: what the command answers besides kCommandData
  kStatus = 0x04,        // ro  8 bits
  kControl = 0x04,       // wo  8 bits: acknowledges events
  kCommand = 0x05,       // wo  8 bits
  kCommandData = 0x08,   // rw  32 bits: the command's answer; what the system says of an event
};
inline constexpr uint64_t kSize = 12;
inline constexpr uint16_t kIch9Port = 0x0cd8;

// STATUS.
inline constexpr uint8_t kEnabled = 1u << 0;

// COMMAND.
inline constexpr uint8_t kNextEvent = 0;  // selects the next processor that comes or goes; answers which is selected
inline constexpr uint8_t kEventOfSystem = 1, kStatusOfSystem = 2;  // _OST
inline constexpr uint8_t kArchId = 3;                              // answers its local APIC's id
inline constexpr uint8_t kLastCommand = kArchId;

}  // namespace kite::devices::acpi_cpus_regs

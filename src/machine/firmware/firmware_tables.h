// What firmware reads of a PC board: the fw_cfg files and the CMOS bytes. Both boards fill in the facts and call these
// once their devices exist.
#pragma once

#include <cstdint>
#include <vector>

#include "boot/acpi.h"
#include "boot/loader.h"
#include "devices/fw_cfg/fw_cfg.h"
#include "devices/rtc/rtc.h"
#include "machine/machine_config.h"
#include "support/result.h"
#include "x86/cpuid.h"

namespace kite::machine {

struct FirmwareFacts {
  const MachineConfig& config;
  const x86::CpuSpec& cpu;
  const char* product;                    // "Standard PC (i440FX + PIIX, 1996)"
  uint64_t ram_low = 0, ram_high = 0;     // bytes from 0; from 4 GiB
  boot::AcpiConfig acpi;                  // as for a direct start
  std::vector<boot::E820Entry> reserved;  // besides RAM (ECAM on the q35)
  uint64_t reserved_memory_end = 0;       // etc/reserved-memory-end: 64-bit BARs begin above; 0: end of RAM
};

// Numbered keys and files: identity, memory map, CPUs, boot menu, ACPI tables with their loader script, SMBIOS,
// -fw_cfg files, the kernel for the option ROM when firmware starts it.
Result<> fill_fw_cfg(devices::FwCfg& fw_cfg, const FirmwareFacts& facts, bool firmware_starts);

// Memory sizes, CPU count, equipment and boot order as a PC's firmware finds them in CMOS.
void fill_cmos(devices::Rtc& rtc, const FirmwareFacts& facts);
// The boot order bytes alone; at the first reset -boot once= gives way to order=.
void set_boot_order(devices::Rtc& rtc, const BootConfig& boot, const std::string& order);

}  // namespace kite::machine

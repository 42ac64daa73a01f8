// What firmware reads of a PC board: the fw_cfg keys and files, and the CMOS bytes. PcChassis fills in the facts and
// calls these once every device exists.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "boot/acpi.h"
#include "boot/loader.h"
#include "devices/fw_cfg/fw_cfg.h"
#include "devices/rtc/rtc.h"
#include "machine/firmware/boot_order.h"
#include "machine/machine_config.h"
#include "machine/numa.h"
#include "support/result.h"
#include "x86/cpuid.h"

namespace kite::machine {

struct FirmwareFacts {
  const MachineConfig& config;
  const x86::CpuSpec& cpu;
  const NumaLayout& numa;
  std::string product;                 // "Standard PC (i440FX + PIIX, 1996)"
  uint64_t ram_low = 0, ram_high = 0;  // bytes from 0; from 4 GiB
  uint8_t floppies = 0;                // Fdc::cmos_types()
  // Asked when the tables are made and again when firmware reads them, with the fw_cfg device's lock held: by then it
  // has put the power management registers where it wants them.
  std::function<boot::AcpiConfig()> acpi;
  std::vector<boot::E820Entry> reserved;  // besides RAM (ECAM on the q35)
};

// Identity, memory map, CPUs, boot menu and order, ACPI tables with their loader script, SMBIOS, -fw_cfg files.
Result<> fill_fw_cfg(devices::FwCfg& fw_cfg, const FirmwareFacts& facts, const BootOrder& order);
// "bootorder" and "bios-geometry" as they are now: again at every reset.
Result<> tell_boot_order(devices::FwCfg& fw_cfg, const BootConfig& boot, const BootOrder& order);

// A kernel given by -kernel, for firmware to start: the kernel keys, and the option ROM at the head of the boot order.
Result<> offer_kernel(devices::FwCfg& fw_cfg, const FirmwareFacts& facts, BootOrder& order);

// Memory sizes, CPU count and equipment as a PC's firmware finds them in CMOS, and the boot order.
void fill_cmos(devices::Rtc& rtc, const FirmwareFacts& facts);
// The boot order alone; after the first reset -boot once= gives way to order=.
void set_boot_order(devices::Rtc& rtc, const BootConfig& boot, const std::string& order);

}  // namespace kite::machine

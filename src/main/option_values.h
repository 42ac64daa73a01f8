// Options whose values have a form of their own.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "main/options.h"

namespace kite::main {

Result<> apply_machine(OptionContext& context, std::string_view text);
Result<> apply_accel(OptionContext& context, std::string_view text);
// Shared by -accel and -machine (accel_options.cc): "kvm:jit" is added to what was chosen before; on, split or off.
Result<> add_accelerators(OptionContext& context, std::string_view list);
Result<> set_kernel_irqchip(OptionContext& context, std::string_view option, std::string_view value);
Result<> apply_cpu(OptionContext& context, std::string_view text);
Result<> apply_smp(OptionContext& context, std::string_view text);
Result<> apply_memory(OptionContext& context, std::string_view text);
Result<> apply_numa(OptionContext& context, std::string_view text);  // numa_options.cc
Result<> apply_watchdog_action(OptionContext& context, std::string_view text);
Result<> apply_rtc(OptionContext& context, std::string_view text);
Result<> apply_uuid(OptionContext& context, std::string_view text);
Result<> apply_name(OptionContext& context, std::string_view text);
Result<> apply_boot(OptionContext& context, std::string_view text);
Result<> apply_mon(OptionContext& context, std::string_view text);

// host_options.cc: what the process asks of its host, and gives up.
Result<> apply_overcommit(OptionContext& context, std::string_view text);
Result<> apply_msg(OptionContext& context, std::string_view text);
Result<> apply_add_fd(OptionContext& context, std::string_view text);
Result<> apply_audiodev(OptionContext& context, std::string_view text);
Result<> apply_sandbox(OptionContext& context, std::string_view text);

// display_options.cc
Result<> apply_vga(OptionContext& context, std::string_view text);
Result<> apply_display(OptionContext& context, std::string_view text);
Result<> apply_vnc(OptionContext& context, std::string_view text);
// spice_options.cc
Result<> apply_spice(OptionContext& context, std::string_view text);

// drive_options.cc
Result<> apply_drive(OptionContext& context, std::string_view text);
Result<> apply_blockdev(OptionContext& context, std::string_view text);
// -hda, -cdrom, -fda...: `place` are the settings that the option stands for, before file=.
Result<> apply_disk(OptionContext& context, std::string_view option, std::string_view place, std::string_view file);

// net_options.cc
Result<> apply_netdev(OptionContext& context, std::string_view text);
Result<> apply_nic(OptionContext& context, std::string_view text);
Result<> apply_net(OptionContext& context, std::string_view text);
Result<> apply_redir(OptionContext& context, std::string_view text);

// firmware_options.cc
Result<> apply_pflash(OptionContext& context, std::string_view text);
// -drive if=pflash,...: `pairs` are all of the option's settings.
Result<> apply_flash(OptionContext& context, std::string_view option,
                     const std::vector<std::pair<std::string, std::string>>& pairs);
Result<> apply_fw_cfg(OptionContext& context, std::string_view text);
Result<> apply_acpi_table(OptionContext& context, std::string_view text);
Result<> apply_smbios(OptionContext& context, std::string_view text);
// "550e8400-e29b-41d4-a716-446655440000"; `option` is for the message.
Result<std::array<uint8_t, 16>> parse_uuid(std::string_view option, std::string_view text);

}  // namespace kite::main

// Options whose values have a form of their own.
#pragma once

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
Result<> apply_rtc(OptionContext& context, std::string_view text);
Result<> apply_uuid(OptionContext& context, std::string_view text);
Result<> apply_name(OptionContext& context, std::string_view text);
Result<> apply_boot(OptionContext& context, std::string_view text);
Result<> apply_mon(OptionContext& context, std::string_view text);

}  // namespace kite::main

// Options whose values have a form of their own.
#pragma once

#include "main/options.h"

namespace kite::main {

Result<> apply_machine(OptionContext& context, std::string_view text);
Result<> apply_accel(OptionContext& context, std::string_view text);
Result<> apply_cpu(OptionContext& context, std::string_view text);
Result<> apply_smp(OptionContext& context, std::string_view text);
Result<> apply_memory(OptionContext& context, std::string_view text);
Result<> apply_rtc(OptionContext& context, std::string_view text);
Result<> apply_uuid(OptionContext& context, std::string_view text);
Result<> apply_name(OptionContext& context, std::string_view text);
Result<> apply_boot(OptionContext& context, std::string_view text);
Result<> apply_mon(OptionContext& context, std::string_view text);

}  // namespace kite::main

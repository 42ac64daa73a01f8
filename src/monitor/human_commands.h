// The human monitor's commands, as one table; also what QMP's human-monitor-command runs. Main executor's thread.
#pragma once

#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"

namespace kite::monitor {

// Answers what is to be shown, with a newline at its end unless empty.
std::string run_human_command(MonitorContext& context, std::string_view line);

}  // namespace kite::monitor

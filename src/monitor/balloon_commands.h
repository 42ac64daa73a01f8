// The memory balloon in the monitors. Main executor's thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"

namespace kite::monitor {

// balloon, query-balloon.
std::span<const QmpCommand> balloon_commands();

// For people.
std::string info_balloon(MonitorContext& context, std::string_view rest);
std::string human_balloon(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

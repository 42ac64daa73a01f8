// CPUs and memory as the board has them: who is where, and what backs it. Main executor's thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"

namespace kite::monitor {

// query-cpus-fast, query-hotpluggable-cpus, query-memdev, query-memory-size-summary.
std::span<const QmpCommand> memory_commands();

// For people.
std::string info_numa(MonitorContext& context, std::string_view rest);
std::string info_memdev(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

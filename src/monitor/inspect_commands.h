// The guest's memory, for people and for files: memsave, pmemsave, x, xp. A machine that runs stands still meanwhile.
// Main executor's thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"

namespace kite::monitor {

std::span<const QmpCommand> inspect_commands();

// For people.
std::string human_memsave(MonitorContext& context, std::string_view rest);
std::string human_pmemsave(MonitorContext& context, std::string_view rest);
std::string human_x(MonitorContext& context, std::string_view rest);
std::string human_xp(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

// Screen, keyboard and mouse in the monitors; who looks at them from elsewhere is in display_servers.h. Main executor's
// thread.
#pragma once

#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"

namespace kite::monitor {

// The commands, as part of the table in qmp_commands.cc.
std::span<const QmpCommand> display_commands();

// For people; each ends with a newline unless it is empty.
std::string human_screendump(MonitorContext& context, std::string_view rest);
std::string human_sendkey(MonitorContext& context, std::string_view rest);
std::string human_mouse_move(MonitorContext& context, std::string_view rest);
std::string human_mouse_button(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

// Mice, tablets and keyboards in the monitors, and what is on USB. Main executor's thread.
#pragma once

#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"

namespace kite::monitor {

// The commands, as part of the table in qmp_commands.cc.
std::span<const QmpCommand> input_commands();

// For people; each ends with a newline unless it is empty.
std::string info_mice(MonitorContext& context, std::string_view rest);
std::string info_usb(MonitorContext& context, std::string_view rest);
std::string human_mouse_move(MonitorContext& context, std::string_view rest);
std::string human_mouse_button(MonitorContext& context, std::string_view rest);
std::string human_mouse_set(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

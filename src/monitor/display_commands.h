// Screen, keyboard and mouse in the monitors; who looks at them from elsewhere is in display_servers.h. Main executor's
// thread.
#pragma once

#include <string>
#include <string_view>

#include "display/input.h"
#include "monitor/qmp_commands.h"

namespace kite::monitor {

// The commands, as part of the table in qmp_commands.cc.
std::span<const QmpCommand> display_commands();

// A key as the protocol has it: {"type": "qcode"|"number", "data": ...}.
std::expected<display::KeyNumber, QmpError> key_of(const Json& value);

// For people; each ends with a newline unless it is empty.
std::string human_screendump(MonitorContext& context, std::string_view rest);
std::string human_sendkey(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

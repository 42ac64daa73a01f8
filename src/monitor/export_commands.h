// Disks that the NBD server gives to clients outside: the server, and what it exports. Main executor's thread; exports
// live on the block thread.
#pragma once

#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"

namespace kite::monitor {

// The commands, as part of the table in qmp_commands.cc.
std::span<const QmpCommand> export_commands();

// For people; each ends with a newline unless it is empty.
std::string human_nbd_server_start(MonitorContext& context, std::string_view rest);
std::string human_nbd_server_add(MonitorContext& context, std::string_view rest);
std::string human_nbd_server_remove(MonitorContext& context, std::string_view rest);
std::string human_nbd_server_stop(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

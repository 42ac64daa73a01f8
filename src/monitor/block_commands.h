// Disks in the monitors: what they are, what they did, media that come and go. Main executor's thread; nodes are looked
// at on the block thread.
#pragma once

#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"

namespace kite::monitor {

// The commands, as part of the table in qmp_commands.cc.
std::span<const QmpCommand> block_commands();

// For people; each ends with a newline unless it is empty.
std::string info_block(MonitorContext& context, std::string_view rest);
std::string info_blockstats(MonitorContext& context, std::string_view rest);
std::string human_drive_add(MonitorContext& context, std::string_view rest);
std::string human_drive_del(MonitorContext& context, std::string_view rest);
std::string human_eject(MonitorContext& context, std::string_view rest);
std::string human_change(MonitorContext& context, std::string_view rest);
std::string human_block_resize(MonitorContext& context, std::string_view rest);
// disk_io_command.cc: "[-d] DEVICE COMMAND": a few commands of the I/O tool on an image in use.
std::string human_disk_io(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

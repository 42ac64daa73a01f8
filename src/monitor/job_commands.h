// Block jobs and external snapshots in the monitors. Main executor's thread; jobs live on the block thread.
#pragma once

#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"

namespace kite::monitor {

// The commands, as part of the table in qmp_commands.cc.
std::span<const QmpCommand> job_commands();
std::span<const QmpCommand> start_job_commands();  // start_job_commands.cc: those that begin one
std::span<const QmpCommand> bitmap_commands();     // bitmap_commands.cc: dirty bitmaps
std::span<const QmpCommand> backup_commands();     // backup_commands.cc: blockdev-backup, drive-backup
std::span<const QmpCommand>
snapshot_commands();  // snapshot_commands.cc: external snapshots, transactions, blockdev-reopen

// For people; each ends with a newline unless it is empty.
std::string info_block_jobs(MonitorContext& context, std::string_view rest);
std::string human_job_cancel(MonitorContext& context, std::string_view rest);
std::string human_job_complete(MonitorContext& context, std::string_view rest);
std::string human_job_pause(MonitorContext& context, std::string_view rest);
std::string human_job_resume(MonitorContext& context, std::string_view rest);
std::string human_job_set_speed(MonitorContext& context, std::string_view rest);
std::string human_drive_backup(MonitorContext& context, std::string_view rest);
std::string human_snapshot_blkdev(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

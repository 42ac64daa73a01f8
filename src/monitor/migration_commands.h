// Commands for machines that go out, come in, or are kept in their images. Main executor's thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"

namespace kite::monitor {

std::span<const QmpCommand> migration_commands();

// The human monitor's.
std::string human_migrate(MonitorContext& context, std::string_view rest);
std::string human_migrate_cancel(MonitorContext& context, std::string_view rest);
std::string human_migrate_continue(MonitorContext& context, std::string_view rest);
std::string human_migrate_incoming(MonitorContext& context, std::string_view rest);
std::string human_migrate_set_capability(MonitorContext& context, std::string_view rest);
std::string human_migrate_set_parameter(MonitorContext& context, std::string_view rest);
std::string human_savevm(MonitorContext& context, std::string_view rest);
std::string human_loadvm(MonitorContext& context, std::string_view rest);
std::string human_delvm(MonitorContext& context, std::string_view rest);
std::string info_migrate(MonitorContext& context, std::string_view rest);
std::string info_migrate_capabilities(MonitorContext& context, std::string_view rest);
std::string info_migrate_parameters(MonitorContext& context, std::string_view rest);
std::string info_snapshots(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

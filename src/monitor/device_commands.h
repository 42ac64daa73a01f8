// Devices in the monitors: what is on the PCI buses, adding and removing. Main executor's thread.
#pragma once

#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"

namespace kite::monitor {

QmpReply query_pci(MonitorContext& context, const Json& arguments);
// `arguments`: driver, id and the type's properties.
QmpReply device_add(MonitorContext& context, const Json& arguments);
QmpReply device_del(MonitorContext& context, const Json& arguments);

// For people; each ends with a newline unless it is empty.
std::string info_pci(MonitorContext& context, std::string_view rest);
std::string info_qtree(MonitorContext& context, std::string_view rest);
std::string human_device_add(MonitorContext& context, std::string_view rest);
std::string human_device_del(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

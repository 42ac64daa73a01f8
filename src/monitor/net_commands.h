// The network in the monitors: back ends that come and go, links, port forwards. Main executor's thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"
#include "monitor/qmp_events.h"

namespace kite::monitor {

// set_link, netdev_add, netdev_del.
std::span<const QmpCommand> net_commands();

// What QMP announces of a -netdev stream whose other end has come or gone.
PeerEvent stream_event(const net::StreamBackend& backend);
std::span<const PeerEventSpec> stream_events();

// For people; each ends with a newline unless it is empty.
std::string info_network(MonitorContext& context, std::string_view rest);
std::string info_usernet(MonitorContext& context, std::string_view rest);
std::string human_set_link(MonitorContext& context, std::string_view rest);
std::string human_netdev_add(MonitorContext& context, std::string_view rest);
std::string human_netdev_del(MonitorContext& context, std::string_view rest);
std::string human_hostfwd_add(MonitorContext& context, std::string_view rest);
std::string human_hostfwd_remove(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

// VNC and SPICE in the monitors: who is connected, passwords, events. Main executor's thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "monitor/qmp_commands.h"
#include "monitor/qmp_events.h"

namespace kite::monitor {

// The commands, as part of the table in qmp_commands.cc.
std::span<const QmpCommand> display_server_commands();

// What QMP announces of clients.
PeerEvent vnc_event(const display::VncServer& server, display::ClientEvent event,
                    const display::VncServer::Client& client);
PeerEvent spice_event(const display::SpiceDisplay& server, display::ClientEvent event,
                      const display::SpiceChannel& channel);
std::span<const PeerEventSpec> display_events();

// For people; each ends with a newline unless it is empty.
std::string info_vnc(MonitorContext& context, std::string_view rest);
std::string info_spice(MonitorContext& context, std::string_view rest);
std::string human_set_password(MonitorContext& context, std::string_view rest);
std::string human_expire_password(MonitorContext& context, std::string_view rest);
// "change vnc password NEW", which `change` passes on when its first word is vnc.
std::string human_change_vnc(MonitorContext& context, std::string_view rest);

}  // namespace kite::monitor

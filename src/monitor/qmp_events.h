// The events that a QMP monitor announces, as one table: their names, what they carry, and how it is made.
#pragma once

#include <span>
#include <string_view>

#include "monitor/qmp_commands.h"

namespace kite::monitor {

struct EventSpec {
  machine::MachineEvent::Kind kind;
  std::string_view name;
  std::span<const ArgumentSpec> members = {};  // of "data"; none: there is no "data"
  Json (*data)(const machine::MachineEvent& event) = nullptr;
};

std::span<const EventSpec> qmp_events();

// Events that are not the machine's, but of who is connected to it.
struct PeerEventSpec {
  std::string_view name;
  std::span<const ArgumentSpec> members;
};
struct PeerEvent {
  std::string_view name;
  Json data;
};
// {"event": NAME, "data": {...}} without its time.
Json event_json(const machine::MachineEvent& event);

}  // namespace kite::monitor

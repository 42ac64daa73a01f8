// The machine as a tree of objects with properties: qom-list, qom-get, qom-set. There are the machine itself, the
// devices that a user has added and named (/machine/peripheral/ID), and the CPUs (/machine/unattached/device[N]).
// A device shows what it was made with, and its live properties. Main executor's thread.
#pragma once

#include "monitor/qmp_commands.h"

namespace kite::monitor {

std::span<const QmpCommand> qom_commands();

}  // namespace kite::monitor

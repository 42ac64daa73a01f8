// What there is to choose from, for clients that ask before they start a machine: types and their properties, boards,
// CPU models, options of the command line. Main executor's thread.
#pragma once

#include "monitor/qmp_commands.h"

namespace kite::monitor {

std::span<const QmpCommand> type_commands();

}  // namespace kite::monitor

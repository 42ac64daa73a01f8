// query-qmp-schema: what commands and events there are and what they take, made from the tables that the monitor itself
// goes by. Clients look a feature up by its path: a command, its argument, one of the values that it can have.
#pragma once

#include "monitor/qmp_commands.h"

namespace kite::monitor {

QmpReply query_qmp_schema(MonitorContext& context, const Json& arguments);

}  // namespace kite::monitor

// What the program counts, through the monitor: query-stats, query-stats-schemas, "info stats". Main executor's thread.
#pragma once

#include <string>
#include <string_view>

#include "metrics/metrics.h"
#include "monitor/qmp_error.h"

namespace kite::monitor {

// `arguments` as QMP has them, types of the top level checked.
QmpReply query_stats(const metrics::Registry& registry, const Json& arguments);
QmpReply query_stats_schemas(const metrics::Registry& registry, const Json& arguments);
// "[vm|vcpu] [NAME,...|*] [PROVIDER]"
std::string info_stats(const metrics::Registry& registry, std::string_view arguments);

// The name under which clients know CPU `index`.
std::string vcpu_path(size_t index);

}  // namespace kite::monitor

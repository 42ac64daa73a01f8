// How fast the guest writes its memory, in the monitors: calc-dirty-rate, query-dirty-rate. Main executor's thread.
#pragma once

#include <string>
#include <string_view>

#include "machine/dirty_rate.h"
#include "monitor/qmp_error.h"

namespace kite::monitor {

// `arguments` as QMP has them, types checked.
QmpReply calc_dirty_rate(machine::DirtyRate& rate, const Json& arguments);
QmpReply query_dirty_rate(const machine::DirtyRate& rate);

// For people. "[-b] SECONDS [SAMPLES]": with -b the dirty log, else samples.
std::string human_calc_dirty_rate(machine::DirtyRate& rate, std::string_view arguments);
std::string info_dirty_rate(const machine::DirtyRate& rate);

}  // namespace kite::monitor

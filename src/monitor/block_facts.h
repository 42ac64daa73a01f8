// What there is to say about drives and nodes, as JSON in the words of query-block and its relatives. Main executor's
// thread; the block thread is waited for.
#pragma once

#include "devices/storage/removable.h"
#include "machine/drive_store.h"
#include "machine/machine.h"
#include "monitor/qmp_error.h"

namespace kite::monitor {

// What device a drive is in, when its medium can be taken out.
devices::Removable* removable_of(machine::Machine& machine, const machine::DriveStore::Entry& entry);

Json blocks_json(machine::Machine& machine);                    // query-block
Json named_nodes_json(machine::DriveStore& store, bool flat);   // query-named-block-nodes
Json block_stats_json(machine::DriveStore& store, bool nodes);  // query-blockstats

}  // namespace kite::monitor

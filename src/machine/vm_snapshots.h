// Snapshots of a whole machine inside its qcow2 images: each disk's contents, and in one of the images also the RAM and
// the state of everything else, as snapshot/stream.h has them. Main executor's thread; the machine stands still
// meanwhile and then goes on as before.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "machine/machine.h"
#include "support/result.h"

namespace kite::machine {

// Replaces a snapshot of this name. Refused, and nothing changed, when a disk that can be written holds no snapshots.
Result<> save_vm(Machine& machine, std::string_view name);
// Back to it: disks, RAM, devices. After an error in the middle the machine is reset and stands still.
Result<> load_vm(Machine& machine, std::string_view name);
// On all disks that have it.
Result<> delete_vm(Machine& machine, std::string_view name);

struct VmSnapshot {
  std::string id, name;
  uint64_t state_bytes = 0;
  uint32_t date_seconds = 0;  // since 1970
  uint64_t clock_ns = 0;      // guest time
};
// Those that load_vm() can go back to.
Result<std::vector<VmSnapshot>> vm_snapshots(Machine& machine);
// "vm-20261130112509", from the host's time: what a snapshot without a name is called.
std::string unnamed_snapshot();

}  // namespace kite::machine

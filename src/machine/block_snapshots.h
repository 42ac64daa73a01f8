// External snapshots of a machine's disks, several of them at one moment. Main executor's thread; the machine runs on,
// and its requests wait meanwhile.
#pragma once

#include <string>
#include <vector>

#include "machine/drive_store.h"
#include "support/result.h"

namespace kite::machine {

// One part of a transaction.
struct SnapshotAction {
  enum class Kind : uint8_t {
    kOverlay,     // the node `overlay` comes above
    kNewOverlay,  // an image in `filename` does
    kInternal,    // a snapshot inside of the image
    kAbort,       // fails, and with it all others
  } kind = Kind::kOverlay;
  std::string name;     // of a drive or a node
  std::string overlay;  // kOverlay: a node; kNewOverlay: how it will be called, or ""; kInternal: the snapshot
  // kNewOverlay
  std::string filename = {};
  std::string format = "qcow2";
  bool existing = false;  // the file holds an image already
};

// All or none.
Result<> take_snapshots(DriveStore& store, const std::vector<SnapshotAction>& actions);

}  // namespace kite::machine

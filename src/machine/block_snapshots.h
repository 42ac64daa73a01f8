// Snapshots of a machine's disks as parts of a transaction. Main executor's thread.
#pragma once

#include <memory>
#include <string>

#include "machine/block_transaction.h"

namespace kite::machine {

struct SnapshotRequest {
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

std::unique_ptr<BlockAction> snapshot_action(DriveStore& store, SnapshotRequest request);

}  // namespace kite::machine

// Changes of a machine's disks that happen at one moment, all of them or none ([QAPI] transaction.json). The machine
// runs on, and its requests wait meanwhile.
#pragma once

#include <memory>
#include <vector>

#include "block/overlay.h"
#include "machine/drive_store.h"
#include "support/result.h"

namespace kite::machine {

// What the actions of one transaction have in common; on the block thread.
struct BlockTogether {
  block::BlockGraph& graph;
  block::JobTable& jobs;
  std::vector<block::OverlayPlan> overlays{};  // that come above others when all is prepared
  std::vector<const block::BlockNode*> taken{};

  // An error when an earlier action is about to change what is above this node.
  Result<> not_taken(block::BlockNode& node) const;
  Result<> take(block::BlockNode& node);
};

class BlockAction {
 public:
  virtual ~BlockAction() = default;
  // On the block thread; nobody has requests under way. Everything that can fail; later actions see what this did.
  virtual Task<Result<>> prepare(BlockTogether& together) = 0;
  // It counts; or what prepare() did, whole or in part, is undone, last action first.
  virtual Task<void> finish(BlockTogether& together, bool done) = 0;
};

// Main executor's thread.
Result<> run_together(DriveStore& store, std::vector<std::unique_ptr<BlockAction>> actions);

}  // namespace kite::machine

#include "machine/block_transaction.h"

#include <algorithm>
#include <ranges>

#include "block/chain.h"

namespace kite::machine {

Result<> BlockTogether::not_taken(block::BlockNode& node) const {
  if (std::ranges::find(taken, block::skip_filters(&node)) == taken.end()) return {};
  return fail("Node '{}' is named twice", block::skip_filters(&node)->name());
}

Result<> BlockTogether::take(block::BlockNode& node) {
  KITE_TRY(not_taken(node));
  taken.push_back(block::skip_filters(&node));
  return {};
}

namespace {

using Actions = std::vector<std::unique_ptr<BlockAction>>;

Task<Result<>> run_all(block::BlockGraph& graph, block::JobTable& jobs, Actions actions) {
  BlockTogether together{.graph = graph, .jobs = jobs};
  Result<> done;
  size_t prepared = 0;
  while (done && prepared < actions.size()) done = co_await actions[prepared++]->prepare(together);
  if (done) done = co_await block::put_overlays(together.overlays);
  if (done) {
    for (const auto& action : actions) co_await action->finish(together, true);
  } else {
    while (prepared != 0) co_await actions[--prepared]->finish(together, false);
  }
  co_return done;
}

}  // namespace

Result<> run_together(DriveStore& store, Actions actions) {
  if (!store.active()) return fail("the images belong to another process: the machine is migrating");
  store.quiesce();
  store.quiesce_exports();
  Result<> done = store.run(run_all(store.graph(), store.jobs(), std::move(actions)));
  store.take_new_lengths();
  store.release_exports();
  store.release_all();
  return done;
}

}  // namespace kite::machine

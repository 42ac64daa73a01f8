#include <algorithm>

#include "block/filters/filters.h"
#include "block/timed.h"

namespace kite::block {

Task<Result<NodePtr>> ThrottleNode::open(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  KITE_CO_ASSIGN(NodePtr below, co_await graph.open_child(options.take_child("file"), config, "file"));
  std::shared_ptr<ThrottleNode> node(new ThrottleNode(graph.executor(), "throttle", std::move(config)));
  KITE_CO_ASSIGN(const ThrottleLimits limits, take_throttle_limits(options, "limits."));
  node->group_.configure(limits);
  KITE_CO_TRY(options.all_taken("throttle"));
  KITE_CO_TRY(node->attach(std::move(below)));
  co_return NodePtr(std::move(node));
}

Task<void> ThrottleNode::admit(bool write, uint64_t bytes) {
  co_await sleep_ns(executor(), group_.reserve(write, bytes, monotonic_ns()));
}

Task<IoResult<>> ThrottleNode::do_read(uint64_t offset, IoSlice to, IoHow how) {
  co_await admit(false, to.bytes());
  co_return co_await file_->read(offset, to, how);
}
Task<IoResult<>> ThrottleNode::do_write(uint64_t offset, IoSlice from, IoHow how) {
  co_await admit(true, from.bytes());
  co_return co_await file_->write(offset, from, how);
}
Task<IoResult<>> ThrottleNode::do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) {
  co_await admit(true, bytes);
  co_return co_await file_->write_zeroes(offset, bytes, how);
}

Task<Result<NodePtr>> CopyOnReadNode::open(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  options.take("bottom");
  KITE_CO_ASSIGN(NodePtr below, co_await graph.open_child(options.take_child("file"), config, "file"));
  KITE_CO_TRY(options.all_taken("copy-on-read"));
  if (below->read_only())
    co_return fail("copy-on-read needs an image that may be written: the node '{}' is read-only", below->name());
  std::shared_ptr<CopyOnReadNode> node(new CopyOnReadNode(graph.executor(), "copy-on-read", std::move(config)));
  KITE_CO_TRY(node->attach(std::move(below)));
  co_return NodePtr(std::move(node));
}

Task<IoResult<>> CopyOnReadNode::do_read(uint64_t offset, IoSlice to, IoHow how) {
  while (!to.empty()) {
    if (offset >= file_->length()) {
      to.fill(0);
      break;
    }
    const CoMutex::Lock lock = co_await copying_.lock();
    KITE_CO_ASSIGN(const BlockStatus status, co_await file_->block_status(offset, to.bytes(), false));
    const IoSlice here = to.slice(0, status.bytes);
    KITE_CO_TRY(co_await file_->read(offset, here, how));
    if (!status.allocated && file_->backing() != nullptr) {
      KITE_CO_TRY(debug_event("cor_write"));
      KITE_CO_TRY(co_await file_->write(offset, here, how.with(IoHow::kSilent)));
    }
    to = to.from(status.bytes);
    offset += status.bytes;
  }
  co_return IoResult<>{};
}

Task<IoResult<>> CopyOnReadNode::do_write(uint64_t offset, IoSlice from, IoHow how) {
  const CoMutex::Lock lock = co_await copying_.lock();
  co_return co_await file_->write(offset, from, how);
}
Task<IoResult<>> CopyOnReadNode::do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) {
  const CoMutex::Lock lock = co_await copying_.lock();
  co_return co_await file_->write_zeroes(offset, bytes, how);
}

}  // namespace kite::block

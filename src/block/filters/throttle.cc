#include <algorithm>

#include "block/filters/filters.h"
#include "block/timed.h"

namespace kite::block {

int64_t LeakyBucket::take(uint64_t units, int64_t now_ns) {
  if (limit_.rate == 0) return 0;
  constexpr double kSecond = 1e9;
  constexpr double kDefaultBurst = 0.1;  // seconds of the rate that may come at once
  const auto rate = static_cast<double>(limit_.rate);
  const double room = limit_.burst != 0 ? static_cast<double>(limit_.burst) * static_cast<double>(limit_.burst_seconds)
                                        : rate * kDefaultBurst;
  if (now_ns > last_ns_) level_ = std::max(0.0, level_ - static_cast<double>(now_ns - last_ns_) / kSecond * rate);
  last_ns_ = std::max(last_ns_, now_ns);
  // A request may overfill the bucket, whatever its size; the next one waits until it has leaked.
  if (level_ > room) return static_cast<int64_t>((level_ - room) / rate * kSecond) + 1;
  level_ += static_cast<double>(units);
  return 0;
}

Task<Result<NodePtr>> ThrottleNode::open(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  KITE_CO_ASSIGN(NodePtr below, co_await graph.open_child(options.take_child("file"), config, "file"));
  std::shared_ptr<ThrottleNode> node(new ThrottleNode(graph.executor(), "throttle", std::move(config)));
  static constexpr const char* kNames[] = {"total", "read", "write"};
  for (size_t kind = 0; kind < kKinds; ++kind) {
    for (const bool bytes : {true, false}) {
      const std::string name = fmt::format("limits.{}-{}", bytes ? "bps" : "iops", kNames[kind]);
      RateLimit limit;
      KITE_CO_ASSIGN(limit.rate, options.take_size(name, 0));
      KITE_CO_ASSIGN(limit.burst, options.take_size(name + "-max", 0));
      KITE_CO_ASSIGN(limit.burst_seconds, options.take_unsigned(name + "-max-length", 1, 1, 3600));
      if (limit.burst != 0 && limit.burst < limit.rate) co_return fail("{}-max is smaller than {}", name, name);
      (bytes ? node->bytes_ : node->operations_)[kind].configure(limit);
    }
  }
  KITE_CO_ASSIGN(node->operation_bytes_, options.take_size("limits.iops-size", 0));
  KITE_CO_TRY(options.all_taken("throttle"));
  KITE_CO_TRY(node->attach(std::move(below)));
  co_return NodePtr(std::move(node));
}

Task<void> ThrottleNode::admit(bool write, uint64_t bytes) {
  const CoMutex::Lock turn = co_await turn_[write ? 1 : 0].lock();
  const uint64_t operations =
      operation_bytes_ == 0 ? 1 : std::max<uint64_t>((bytes + operation_bytes_ - 1) / operation_bytes_, 1);
  for (const size_t kind : {size_t{kTotal}, size_t{write ? kWrite : kRead}}) {
    while (const int64_t wait = bytes_[kind].take(bytes, monotonic_ns())) co_await sleep_ns(executor(), wait);
    while (const int64_t wait = operations_[kind].take(operations, monotonic_ns())) co_await sleep_ns(executor(), wait);
  }
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

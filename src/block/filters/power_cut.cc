#include <algorithm>
#include <cerrno>
#include <cstring>

#include "block/filters/filters.h"

namespace kite::block {

Task<Result<NodePtr>> PowerCutNode::open(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  KITE_CO_ASSIGN(NodePtr below, co_await graph.open_child(options.take_child("file"), config, "file"));
  KITE_CO_TRY(options.all_taken("power-cut"));
  std::shared_ptr<PowerCutNode> node(new PowerCutNode(graph.executor(), "power-cut", std::move(config)));
  KITE_CO_TRY(node->attach(std::move(below)));
  co_return NodePtr(std::move(node));
}

NodePtr PowerCutNode::over(NodePtr below) {
  std::shared_ptr<PowerCutNode> node(new PowerCutNode(below->executor(), "power-cut", {}));
  const Result<> attached = node->attach(std::move(below));
  return attached ? NodePtr(std::move(node)) : nullptr;
}

uint64_t PowerCutNode::length() const { return std::max(file_->length(), cached_end_); }

// Counts an operation; false when the power is off.
bool PowerCutNode::step() {
  if (!off_ && trigger_ && trigger_(operations_)) off_ = true;
  ++operations_;
  return !off_;
}

Task<IoResult<>> PowerCutNode::do_read(uint64_t offset, IoSlice to, IoHow how) {
  if (off_) co_return io_fail(EIO);
  KITE_CO_TRY(co_await file_->read(offset, to, how));
  const uint64_t end = offset + to.bytes();
  for (auto at = cache_.lower_bound(offset / kSector); at != cache_.end() && at->first * kSector < end; ++at) {
    const uint64_t from = std::max(offset, at->first * kSector);
    const uint64_t until = std::min(end, (at->first + 1) * kSector);
    to.slice(from - offset, until - from).copy_from(at->second.data() + (from - at->first * kSector));
  }
  co_return IoResult<>{};
}

Task<IoResult<>> PowerCutNode::do_write(uint64_t offset, IoSlice from, IoHow how) {
  if (!step()) co_return io_fail(EIO);
  while (!from.empty()) {
    const uint64_t number = offset / kSector;
    const uint64_t within = offset % kSector;
    const uint64_t here = std::min(from.bytes(), kSector - within);
    auto at = cache_.find(number);
    if (at == cache_.end()) {
      Sector sector{};
      if (here != kSector) KITE_CO_TRY(co_await file_->read(number * kSector, IoSlice(sector.data(), kSector)));
      at = cache_.emplace(number, sector).first;
    }
    from.slice(0, here).copy_to(at->second.data() + within);
    from = from.from(here);
    offset += here;
  }
  cached_end_ = std::max(cached_end_, offset);
  if (how.has(IoHow::kFua)) co_return co_await do_flush(how);
  co_return IoResult<>{};
}

Task<IoResult<>> PowerCutNode::do_write_zeroes(uint64_t, uint64_t, IoHow) {
  return ready<IoResult<>>(io_fail(ENOTSUP));
}
Task<IoResult<>> PowerCutNode::do_discard(uint64_t, uint64_t, IoHow) { return ready(IoResult<>{}); }

Task<IoResult<>> PowerCutNode::do_flush(IoHow how) {
  if (!step()) co_return io_fail(EIO);
  const std::map<uint64_t, Sector> sectors = std::exchange(cache_, {});
  for (const auto& [number, sector] : sectors) {
    const uint64_t end = std::min((number + 1) * kSector, std::max(cached_end_, file_->length()));
    KITE_CO_TRY(co_await file_->write(number * kSector,
                                      IoSlice::of_const(sector.data(), static_cast<size_t>(end - number * kSector))));
  }
  co_return co_await file_->flush(how);
}

Task<IoResult<BlockStatus>> PowerCutNode::do_block_status(uint64_t offset, uint64_t bytes, bool) {
  co_return BlockStatus{.bytes = bytes, .has_offset = true, .offset = offset, .file = this};
}

Task<Result<>> PowerCutNode::truncate(uint64_t bytes, Preallocation preallocation) {
  if (!step()) co_return fail("the power is off");
  cache_.erase(cache_.lower_bound((bytes + kSector - 1) / kSector), cache_.end());
  cached_end_ = std::min(cached_end_, bytes);
  co_return co_await file_->truncate(bytes, preallocation);
}

void PowerCutNode::settle(const std::function<bool()>& survives,
                          const std::function<void(uint64_t, const uint8_t*)>& put) const {
  for (const auto& [number, sector] : cache_) {
    if (survives()) put(number * kSector, sector.data());
  }
}

}  // namespace kite::block

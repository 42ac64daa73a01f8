#include "block/plain_nodes.h"

#include <algorithm>
#include <cstring>

#include "block/timed.h"

namespace kite::block {

Task<Result<NodePtr>> NullNode::open_co(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  return open(graph, std::move(config), std::move(options), "null-co");
}
Task<Result<NodePtr>> NullNode::open_aio(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  return open(graph, std::move(config), std::move(options), "null-aio");
}

Task<Result<NodePtr>> NullNode::open(BlockGraph& graph, NodeConfig config, BlockOptions options, const char* driver) {
  options.take("filename");
  std::shared_ptr<NullNode> node(new NullNode(graph.executor(), driver, std::move(config)));
  KITE_CO_ASSIGN(node->length_, options.take_size("size", uint64_t{1} << 30));
  KITE_CO_ASSIGN(node->latency_ns_, options.take_unsigned("latency-ns", 0, 0, 60'000'000'000));
  KITE_CO_ASSIGN(node->read_zeroes_, options.take_bool("read-zeroes", false));
  KITE_CO_TRY(options.all_taken(driver));
  co_return NodePtr(std::move(node));
}

Task<IoResult<>> NullNode::pause() {
  co_await sleep_ns(executor(), static_cast<int64_t>(latency_ns_));
  co_return IoResult<>{};
}

Task<IoResult<>> NullNode::do_read(uint64_t, IoSlice to, IoHow) {
  if (read_zeroes_) to.fill(0);
  return latency_ns_ == 0 ? ready(IoResult<>{}) : pause();
}
Task<IoResult<>> NullNode::do_write(uint64_t, IoSlice, IoHow) {
  return latency_ns_ == 0 ? ready(IoResult<>{}) : pause();
}
Task<IoResult<>> NullNode::do_write_zeroes(uint64_t, uint64_t, IoHow) {
  return latency_ns_ == 0 ? ready(IoResult<>{}) : pause();
}
Task<IoResult<>> NullNode::do_flush(IoHow) { return latency_ns_ == 0 ? ready(IoResult<>{}) : pause(); }

Task<IoResult<BlockStatus>> NullNode::do_block_status(uint64_t offset, uint64_t bytes, bool) {
  co_return BlockStatus{.bytes = bytes, .zero = read_zeroes_, .has_offset = true, .offset = offset, .file = this};
}

Task<Result<NodePtr>> MemoryNode::open(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  options.take("filename");
  KITE_CO_ASSIGN(const uint64_t bytes, options.take_size("size", uint64_t{64} << 20));
  KITE_CO_ASSIGN(const bool growable, options.take_bool("growable", false));
  KITE_CO_TRY(options.all_taken("memory"));
  co_return NodePtr(std::make_shared<MemoryNode>(graph.executor(), std::move(config), bytes, growable));
}

void MemoryNode::copy_out(uint64_t offset, IoSlice to) const {
  while (!to.empty()) {
    const uint64_t within = offset % kPageBytes;
    const uint64_t here = std::min(to.bytes(), kPageBytes - within);
    const auto page = pages_.find(offset / kPageBytes);
    if (page == pages_.end()) {
      to.slice(0, here).fill(0);
    } else {
      to.slice(0, here).copy_from(page->second.data() + within);
    }
    to = to.from(here);
    offset += here;
  }
}

void MemoryNode::copy_in(uint64_t offset, const IoSlice& from) {
  IoSlice left = from;
  length_ = growable_ ? std::max(length_, offset + from.bytes()) : length_;
  while (!left.empty()) {
    const uint64_t within = offset % kPageBytes;
    const uint64_t here = std::min(left.bytes(), kPageBytes - within);
    std::vector<uint8_t>& page = pages_[offset / kPageBytes];
    if (page.empty()) page.resize(kPageBytes);
    left.slice(0, here).copy_to(page.data() + within);
    left = left.from(here);
    offset += here;
  }
}

void MemoryNode::zero(uint64_t offset, uint64_t bytes) {
  length_ = growable_ ? std::max(length_, offset + bytes) : length_;
  for (auto page = pages_.lower_bound(offset / kPageBytes); page != pages_.end();) {
    const uint64_t start = page->first * kPageBytes;
    if (start >= offset + bytes) break;
    const uint64_t from = std::max(offset, start) - start;
    const uint64_t to = std::min(offset + bytes - start, kPageBytes);
    if (to - from == kPageBytes) {
      page = pages_.erase(page);
      continue;
    }
    std::memset(page->second.data() + from, 0, to - from);
    ++page;
  }
}

Task<IoResult<>> MemoryNode::do_read(uint64_t offset, IoSlice to, IoHow) {
  copy_out(offset, to);
  return ready(IoResult<>{});
}
Task<IoResult<>> MemoryNode::do_write(uint64_t offset, IoSlice from, IoHow) {
  copy_in(offset, from);
  return ready(IoResult<>{});
}
Task<IoResult<>> MemoryNode::do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow) {
  zero(offset, bytes);
  return ready(IoResult<>{});
}
Task<IoResult<>> MemoryNode::do_discard(uint64_t offset, uint64_t bytes, IoHow) {
  zero(offset, bytes);
  return ready(IoResult<>{});
}

Task<IoResult<BlockStatus>> MemoryNode::do_block_status(uint64_t offset, uint64_t bytes, bool) {
  BlockStatus status{.has_offset = true, .offset = offset, .file = this};
  const uint64_t end = offset + bytes;
  const auto page = pages_.lower_bound(offset / kPageBytes);
  const uint64_t page_start = page == pages_.end() ? end : page->first * kPageBytes;
  if (page_start > offset) {
    status.data = false;
    status.zero = true;
    status.bytes = std::min(end, page_start) - offset;
  } else {
    status.bytes = std::min(end, page_start + kPageBytes) - offset;
  }
  co_return status;
}

Task<Result<>> MemoryNode::truncate(uint64_t bytes, Preallocation) {
  if (bytes < length_) {
    const bool was = growable_;
    growable_ = false;
    zero(bytes, length_ - bytes);
    growable_ = was;
  }
  length_ = bytes;
  return ready(Result<>{});
}

}  // namespace kite::block

// RawNode: the bytes of another node as they are, or a window of them ("raw", with offset and size).
#pragma once

#include <optional>

#include "block/filter_node.h"
#include "block/graph.h"

namespace kite::block {

class RawNode final : public FilterNode {
 public:
  static Task<Result<NodePtr>> open(BlockGraph& graph, NodeConfig config, BlockOptions options);

  [[nodiscard]] uint64_t length() const override;
  [[nodiscard]] bool growable() const override { return !windowed() && file_->growable(); }
  [[nodiscard]] bool is_filter() const override { return false; }
  Task<Result<>> truncate(uint64_t bytes, Preallocation preallocation) override;

 protected:
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override;
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override {
    if (const IoResult<> failed = file_->debug_event("write_aio"); !failed) return ready<IoResult<>>(failed);
    return file_->write(offset + offset_, from, how);
  }
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override {
    return file_->write_zeroes(offset + offset_, bytes, how);
  }
  Task<IoResult<>> do_discard(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_flush(IoHow how) override;
  Task<IoResult<BlockStatus>> do_block_status(uint64_t offset, uint64_t bytes, bool precise) override;

 private:
  using FilterNode::FilterNode;
  [[nodiscard]] bool windowed() const { return offset_ != 0 || size_.has_value(); }
  Task<IoResult<>> read_window(uint64_t offset, IoSlice to, IoHow how);

  uint64_t offset_ = 0;
  std::optional<uint64_t> size_;
};

}  // namespace kite::block

// FilterNode: a node over one other whose content is its own. By itself it passes everything on; filters override what
// they change.
#pragma once

#include <string>
#include <vector>

#include "block/node.h"

namespace kite::block {

class FilterNode : public BlockNode {
 public:
  FilterNode(Executor& executor, std::string driver, NodeConfig config)
      : BlockNode(executor, std::move(driver), std::move(config)) {}

  // To be called once, before use.
  Result<> attach(NodePtr below);

  [[nodiscard]] std::string filename() const override { return file_->filename(); }
  [[nodiscard]] uint64_t length() const override { return file_->length(); }
  [[nodiscard]] uint64_t allocated_bytes() const override { return file_->allocated_bytes(); }
  [[nodiscard]] BlockLimits limits() const override { return file_->limits(); }
  [[nodiscard]] bool growable() const override { return file_->growable(); }
  [[nodiscard]] bool discard_zeroes() const override { return file_->discard_zeroes(); }
  [[nodiscard]] bool is_filter() const override { return true; }
  [[nodiscard]] std::vector<NodeEdge> children() const override { return {{role(), file_.node().get()}}; }
  [[nodiscard]] BlockNode* file() const override { return file_.node().get(); }
  [[nodiscard]] virtual const char* role() const { return "file"; }
  Task<Result<>> truncate(uint64_t bytes, Preallocation preallocation) override {
    return file_->truncate(bytes, preallocation);
  }
  void invalidate() override { file_->invalidate(); }
  IoResult<> debug_event(std::string_view event) override { return file_->debug_event(event); }

 protected:
  Result<> set_permissions(uint32_t need, uint32_t shared) override;
  Task<Result<>> do_close() override { return close_use(file_); }
  Task<Result<>> do_set_read_only(bool read_only) override;
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override { return file_->read(offset, to, how); }
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override {
    return file_->write(offset, from, how);
  }
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override {
    return file_->write_zeroes(offset, bytes, how);
  }
  Task<IoResult<>> do_discard(uint64_t offset, uint64_t bytes, IoHow how) override {
    return file_->discard(offset, bytes, how);
  }
  Task<IoResult<>> do_flush(IoHow how) override { return file_->flush(how); }
  Task<IoResult<BlockStatus>> do_block_status(uint64_t offset, uint64_t bytes, bool precise) override {
    return file_->block_status(offset, bytes, precise);
  }

  NodeUse file_;
};

}  // namespace kite::block

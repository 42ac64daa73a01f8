// Protocol nodes without a file: null-co and null-aio (no data, for measurements) and memory (a disk in the process's
// own memory, for tests and scratch disks).
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "block/graph.h"
#include "block/node.h"

namespace kite::block {

class NullNode final : public BlockNode {
 public:
  static Task<Result<NodePtr>> open_co(BlockGraph& graph, NodeConfig config, BlockOptions options);
  static Task<Result<NodePtr>> open_aio(BlockGraph& graph, NodeConfig config, BlockOptions options);
  [[nodiscard]] std::string filename() const override { return driver() + "://"; }
  [[nodiscard]] uint64_t length() const override { return length_; }

 protected:
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override;
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override;
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_flush(IoHow how) override;
  Task<IoResult<BlockStatus>> do_block_status(uint64_t offset, uint64_t bytes, bool precise) override;

 private:
  NullNode(Executor& executor, std::string driver, NodeConfig config)
      : BlockNode(executor, std::move(driver), std::move(config)) {}
  static Task<Result<NodePtr>> open(BlockGraph& graph, NodeConfig config, BlockOptions options, const char* driver);
  Task<IoResult<>> pause();

  uint64_t length_ = 0;
  uint64_t latency_ns_ = 0;
  bool read_zeroes_ = false;
};

// Sparse: a page exists once it was written.
class MemoryNode final : public BlockNode {
 public:
  static constexpr uint64_t kPageBytes = 65536;

  MemoryNode(Executor& executor, NodeConfig config, uint64_t bytes, bool growable = false)
      : BlockNode(executor, "memory", std::move(config)), length_(bytes), growable_(growable) {}
  static Task<Result<NodePtr>> open(BlockGraph& graph, NodeConfig config, BlockOptions options);
  [[nodiscard]] std::string filename() const override { return "memory://"; }
  [[nodiscard]] uint64_t length() const override { return length_; }
  [[nodiscard]] uint64_t allocated_bytes() const override { return pages_.size() * kPageBytes; }
  [[nodiscard]] bool growable() const override { return growable_; }
  [[nodiscard]] bool discard_zeroes() const override { return true; }
  Task<Result<>> truncate(uint64_t bytes, Preallocation preallocation) override;

  // The content without a coroutine, for tests.
  void copy_out(uint64_t offset, IoSlice to) const;
  void copy_in(uint64_t offset, const IoSlice& from);

 protected:
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override;
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override;
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_discard(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<BlockStatus>> do_block_status(uint64_t offset, uint64_t bytes, bool precise) override;

 private:
  void zero(uint64_t offset, uint64_t bytes);

  uint64_t length_;
  bool growable_;
  std::map<uint64_t, std::vector<uint8_t>> pages_;  // by page number
};

}  // namespace kite::block

// FileNode: a regular file or a block device of the host ("file", "host_device").
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "block/file_lock.h"
#include "block/graph.h"
#include "block/io_engine.h"
#include "block/node.h"
#include "block/write_turns.h"
#include "support/fd.h"

namespace kite::block {

// Memory of a given alignment, freed with its owner.
class AlignedBuffer {
 public:
  AlignedBuffer(size_t bytes, size_t alignment);
  [[nodiscard]] uint8_t* data() const { return memory_.get(); }
  [[nodiscard]] size_t size() const { return bytes_; }

 private:
  struct Free {
    void operator()(uint8_t* memory) const { ::free(memory); }
  };
  std::unique_ptr<uint8_t, Free> memory_;
  size_t bytes_;
};

class FileNode final : public BlockNode {
 public:
  struct Settings {
    std::string filename;
    bool host_device = false;
    std::string driver{};  // "file", "host_device" or "host_cdrom"
    bool locking = true;
    IoEngine::Kind engine = IoEngine::Kind::kAuto;
    bool drop_cache = true;
  };
  static Task<Result<NodePtr>> open_file(BlockGraph& graph, NodeConfig config, BlockOptions options);
  static Task<Result<NodePtr>> open_cdrom(BlockGraph& graph, NodeConfig config, BlockOptions options);
  static Task<Result<NodePtr>> open_device(BlockGraph& graph, NodeConfig config, BlockOptions options);
  static Result<NodePtr> open(Executor& executor, NodeConfig config, Settings settings);
  ~FileNode() override;

  [[nodiscard]] std::string filename() const override { return settings_.filename; }
  [[nodiscard]] uint64_t length() const override { return length_; }
  [[nodiscard]] uint64_t allocated_bytes() const override;
  [[nodiscard]] BlockLimits limits() const override;
  [[nodiscard]] bool growable() const override { return !is_device_; }
  [[nodiscard]] bool discard_zeroes() const override { return !is_device_; }
  Task<Result<>> truncate(uint64_t bytes, Preallocation preallocation) override;
  void invalidate() override;

 protected:
  Task<Result<>> do_close() override;
  Task<Result<>> do_deactivate() override;
  Task<Result<>> do_activate() override;
  Task<Result<>> do_set_read_only(bool read_only) override;
  Result<> set_permissions(uint32_t need, uint32_t shared) override;
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override;
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override;
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_discard(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_flush(IoHow how) override;
  Task<IoResult<BlockStatus>> do_block_status(uint64_t offset, uint64_t bytes, bool precise) override;

 private:
  FileNode(Executor& executor, NodeConfig config, Settings settings);
  Result<> open_descriptor();
  void probe_alignment();
  [[nodiscard]] bool direct_ready(uint64_t offset, const IoSlice& slice) const;
  Task<IoResult<>> transfer(IoOp::Kind kind, uint64_t offset, IoSlice slice);
  Task<IoResult<>> read_bounced(uint64_t offset, IoSlice to);
  Task<IoResult<>> write_bounced(uint64_t offset, IoSlice from);
  Task<IoResult<>> fallocate(int mode, uint64_t offset, uint64_t bytes);
  Task<Result<>> preallocate(uint64_t from, uint64_t to, Preallocation preallocation);

  Settings settings_;
  Fd fd_;
  FileLock lock_;
  uint32_t need_ = 0, shared_ = Permissions::kAll;  // what lock_ holds, or will when the node is active
  std::shared_ptr<IoEngine> engine_;
  uint64_t length_ = 0;
  bool is_device_ = false;
  uint32_t request_alignment_ = 1;
  uint32_t memory_alignment_ = 1;
  bool can_zero_range_ = true;
  bool can_punch_ = true;
  // [linux: man 2 fsync] after a failed writeback the kernel forgets the error: from then on no flush succeeds.
  bool flush_failed_ = false;
  // The last answer of SEEK_DATA/SEEK_HOLE that is still true: [data_start_, data_end_) is data.
  uint64_t data_start_ = 0, data_end_ = 0;
  WriteTurns turns_;  // of direct writes
};

}  // namespace kite::block

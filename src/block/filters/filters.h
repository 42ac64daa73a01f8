// Filters: throttle, copy-on-read, blkdebug (errors on request), power-cut (a disk with a volatile cache that can lose
// power).
#pragma once

#include <array>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "block/co_sync.h"
#include "block/filter_node.h"
#include "block/graph.h"
#include "block/throttle.h"

namespace kite::block {

class ThrottleNode final : public FilterNode {
 public:
  static Task<Result<NodePtr>> open(BlockGraph& graph, NodeConfig config, BlockOptions options);

 protected:
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override;
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override;
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override;

 private:
  using FilterNode::FilterNode;
  Task<void> admit(bool write, uint64_t bytes);

  ThrottleGroup group_;
};

// What is read from a backing file is written into the image.
class CopyOnReadNode final : public FilterNode {
 public:
  static Task<Result<NodePtr>> open(BlockGraph& graph, NodeConfig config, BlockOptions options);

 protected:
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override;
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override;
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override;

 private:
  using FilterNode::FilterNode;
  CoMutex copying_;  // a copy and a guest's write of the same place never cross
};

// Fails requests as rules say: an event of the format above (its name), a state, once or always.
class BlkdebugNode final : public FilterNode {
 public:
  static Task<Result<NodePtr>> open(BlockGraph& graph, NodeConfig config, BlockOptions options);
  [[nodiscard]] const char* role() const override { return "image"; }
  [[nodiscard]] BlockLimits limits() const override;
  [[nodiscard]] std::string filename() const override;
  IoResult<> debug_event(std::string_view event) override;

  // From the next event of that name on requests wait, until resume() of the tag. `met` is called at that event.
  void add_break(std::string event, std::string tag, std::function<void()> met = {});
  [[nodiscard]] bool is_met(std::string_view tag) const;
  // Lets go what waits at the tag, and forgets the break, met or not; false: there is none.
  bool resume(std::string_view tag);

 protected:
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override;
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override;
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_discard(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_flush(IoHow how) override;
  Task<IoResult<BlockStatus>> do_block_status(uint64_t offset, uint64_t bytes, bool precise) override;

 private:
  using FilterNode::FilterNode;
  enum IoType : uint32_t { kIoRead = 1, kIoWrite = 2, kIoZeroes = 4, kIoDiscard = 8, kIoFlush = 16, kIoStatus = 32 };
  struct Rule {
    std::string event;
    unsigned state = 0;      // 0: in any
    unsigned new_state = 0;  // of a set-state rule; else 0
    int code = 5;
    uint64_t sector = ~uint64_t{0};
    uint32_t types = kIoRead | kIoWrite | kIoZeroes | kIoDiscard | kIoFlush;
    bool once = false;
    bool armed = false;  // the event came
    bool spent = false;
  };
  Result<> add_rules(BlockOptions& options);
  Result<> read_config(const std::string& filename);
  IoResult<> inject(IoType type, uint64_t offset, uint64_t bytes);

  struct Break {
    std::string event, tag;
    std::function<void()> on_met;
    bool met = false;
  };
  Task<void> pass_breaks();

  std::vector<Rule> rules_;
  std::vector<Break> breaks_;
  CoQueue resumed_;
  unsigned state_ = 1;
  std::string config_file_;
  BlockLimits limits_;
};

// Keeps writes in memory until a flush, and can then lose any of them, in any order, in 512-byte sectors: what a disk
// with a write cache does when the power goes. For tests.
class PowerCutNode final : public FilterNode {
 public:
  static Task<Result<NodePtr>> open(BlockGraph& graph, NodeConfig config, BlockOptions options);
  static NodePtr over(NodePtr below);
  [[nodiscard]] uint64_t length() const override;
  Task<Result<>> truncate(uint64_t bytes, Preallocation preallocation) override;

  // Called before every write and flush with their number; answering true cuts the power there.
  void set_trigger(std::function<bool(uint64_t)> trigger) { trigger_ = std::move(trigger); }
  [[nodiscard]] bool is_off() const { return off_; }
  [[nodiscard]] uint64_t operations() const { return operations_; }
  // After the cut: writes those cached sectors to the disk below that `survives` says did.
  void settle(const std::function<bool()>& survives, const std::function<void(uint64_t, const uint8_t*)>& put) const;

 protected:
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override;
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override;
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_discard(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_flush(IoHow how) override;
  Task<IoResult<BlockStatus>> do_block_status(uint64_t offset, uint64_t bytes, bool precise) override;

 private:
  using FilterNode::FilterNode;
  static constexpr uint64_t kSector = 512;
  using Sector = std::array<uint8_t, kSector>;
  bool step();

  std::map<uint64_t, Sector> cache_;  // by sector
  uint64_t cached_end_ = 0;
  uint64_t operations_ = 0;
  bool off_ = false;
  std::function<bool(uint64_t)> trigger_;
};

}  // namespace kite::block

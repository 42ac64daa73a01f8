// BlockNode: one node of the graph behind a disk. A protocol node (file, null-co, memory) stores bytes, a format node
// (raw, qcow2, qed) interprets another node's bytes, a filter changes requests on their way. All have one coroutine
// interface.
//
// A graph lives on one executor, its home: every method is called there, and tasks resume there. Devices use a Drive
// (drive.h), which may be called from any thread.
//
// Requests may overlap and complete in any order; an overlapping pair leaves either one's data in each byte. flush()
// makes durable every write that completed before it was called. A task's buffers stay valid until the task ended.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/executor.h"
#include "async/task.h"
#include "block/dirty_bitmap.h"
#include "block/io.h"
#include "block/write_turns.h"
#include "support/result.h"

namespace kite::block {

class BlockNode;
using NodePtr = std::shared_ptr<BlockNode>;

// What a user of a node needs, and what it bears others to do. Two users conflict when one needs what the other does
// not share.
struct Permissions {
  enum Bit : uint32_t {
    kConsistentRead = 1u << 0,
    kWrite = 1u << 1,
    kWriteUnchanged = 1u << 2,  // rewriting what is there (commit, copy-on-read, repair)
    kResize = 1u << 3,
  };
  static constexpr uint32_t kAll = kConsistentRead | kWrite | kWriteUnchanged | kResize;
  uint32_t need = kConsistentRead;
  uint32_t shared = kAll;
};
std::string permission_names(uint32_t bits);  // "consistent read, write"

// A user's hold on a node: keeps it alive and its permissions claimed. Move-only.
class NodeUse {
 public:
  NodeUse() = default;
  NodeUse(NodeUse&& other) noexcept;
  NodeUse& operator=(NodeUse&& other) noexcept;
  ~NodeUse() { reset(); }
  // `user` names the user in messages ("node 'a'", "device 'hd0'").
  static Result<NodeUse> claim(NodePtr node, std::string user, Permissions permissions);

  void reset();
  [[nodiscard]] explicit operator bool() const { return node_ != nullptr; }
  [[nodiscard]] BlockNode* operator->() const { return node_.get(); }
  [[nodiscard]] BlockNode& operator*() const { return *node_; }
  [[nodiscard]] const NodePtr& node() const { return node_; }
  [[nodiscard]] const Permissions& permissions() const { return permissions_; }
  // Changes what is claimed; on a conflict nothing changes.
  Result<> change(Permissions permissions);

 private:
  friend class BlockNode;
  void take_from(NodeUse& other);
  NodePtr node_;
  std::string user_;
  Permissions permissions_;
  size_t slot_ = 0;  // in the node's table of users
};

// What every node is told, whatever its driver.
struct NodeConfig {
  std::string name;  // node-name; "" gets a generated one ("#block123")
  bool read_only = false;
  bool auto_read_only = false;  // what cannot be opened for writing is opened read-only
  bool direct = false;          // cache.direct: around the host's page cache
  bool no_flush = false;        // cache.no-flush: flush does nothing (cache=unsafe)
  bool discard_unmap = false;   // discard=unmap: pass discards down; else they are ignored
  bool inherit_discard = false;
  enum class DetectZeroes : uint8_t { kOff, kOn, kUnmap } detect_zeroes = DetectZeroes::kOff;
  unsigned backing_depth = 0;  // how many images of a backing chain are above this one
  bool for_check = false;      // a damaged image may be opened: it will be checked
  bool force_share = false;    // open an image although another process writes it; reading only
  bool inactive = false;       // another process has it; see deactivate()
};

// An edge to a child, as query-named-block-nodes and info show them.
struct NodeEdge {
  std::string role;  // "file", "backing", ...
  const BlockNode* node;
};

class BlockNode : public std::enable_shared_from_this<BlockNode> {
 public:
  BlockNode(Executor& executor, std::string driver, NodeConfig config);
  virtual ~BlockNode();
  BlockNode(const BlockNode&) = delete;
  BlockNode& operator=(const BlockNode&) = delete;

  [[nodiscard]] Executor& executor() const { return executor_; }
  [[nodiscard]] const std::string& name() const { return config_.name; }
  [[nodiscard]] const std::string& driver() const { return driver_; }
  [[nodiscard]] bool read_only() const { return config_.read_only; }
  [[nodiscard]] const NodeConfig& config() const { return config_; }
  // The name of the file at the bottom, or a "json:{...}" description.
  [[nodiscard]] virtual std::string filename() const { return {}; }
  [[nodiscard]] virtual uint64_t length() const = 0;                    // bytes a user may address
  [[nodiscard]] virtual uint64_t allocated_bytes() const { return 0; }  // on the host's disk
  [[nodiscard]] virtual BlockLimits limits() const { return {}; }
  [[nodiscard]] virtual bool growable() const { return false; }        // writes past the end make it longer
  [[nodiscard]] virtual bool discard_zeroes() const { return false; }  // a discarded range reads as zeroes
  [[nodiscard]] virtual bool is_filter() const { return false; }       // content is that of the only child
  [[nodiscard]] virtual std::vector<NodeEdge> children() const { return {}; }
  [[nodiscard]] virtual BlockNode* file() const { return nullptr; }     // the child that stores this node's bytes
  [[nodiscard]] virtual BlockNode* backing() const { return nullptr; }  // where unallocated ranges come from

  // Reads past length() give zeroes. Errors are those of the host, or of the format (EIO for corrupt metadata).
  Task<IoResult<>> read(uint64_t offset, IoSlice to, IoHow how = {});
  // EACCES on a read-only node; EINVAL past the end unless growable().
  Task<IoResult<>> write(uint64_t offset, IoSlice from, IoHow how = {});
  // The range reads as zeroes afterwards. Without kNoFallback it always works, by writing if it must.
  Task<IoResult<>> write_zeroes(uint64_t offset, uint64_t bytes, IoHow how = {});
  // The content may become anything (zeroes or unchanged); never an error for want of support.
  Task<IoResult<>> discard(uint64_t offset, uint64_t bytes, IoHow how = {});
  Task<IoResult<>> flush(IoHow how = {});
  // About [offset, offset+bytes), which lies inside the node. `precise`: worth asking the file below for holes.
  Task<IoResult<BlockStatus>> block_status(uint64_t offset, uint64_t bytes, bool precise = true);
  // Grows (new bytes read as zeroes when `zero_new`; else they may be anything only for raw host devices) or shrinks.
  virtual Task<Result<>> truncate(uint64_t bytes, Preallocation preallocation = Preallocation::kOff);
  // Writes back what the node caches and marks the image clean. To be awaited, parents first, before the last
  // reference goes; a node destroyed without it behaves like one whose process was killed. Idempotent.
  Task<Result<>> close();
  [[nodiscard]] bool closed() const { return closed_; }
  // Lets another process have the image, as a machine that moves there needs it: what is cached is written back, locks
  // go, and nothing is written any more, here and in the nodes below. activate() takes it again and forgets what the
  // other may have changed; on an error it stays inactive. Nobody reads or writes meanwhile. Both are idempotent.
  Task<Result<>> deactivate();
  Task<Result<>> activate();
  [[nodiscard]] bool active() const { return !config_.inactive; }
  // The first byte behind all that was written since the node was opened; 0: nothing was.
  [[nodiscard]] uint64_t highest_written() const { return highest_written_; }
  [[nodiscard]] size_t user_count() const;
  [[nodiscard]] std::string user_names() const;  // "device 'hd0', export 'e0'"
  // All users of this node but `stays` go on with `fresh` and claim there what they claimed here; whoever has requests
  // under way has waited for them. `between` runs while they claim nothing (a new overlay takes this node then).
  // `passing` is a use of `fresh` that does not stand in their way: through which they have reached it up to now. On an
  // error all is as before, but for what `between` did.
  Result<> move_users(const NodePtr& fresh, const NodeUse* stays, NodeUse* passing = nullptr,
                      const std::function<Result<>()>& between = {});
  // Makes a node that was opened for reading writable, with the nodes that store its bytes, or takes that away: then
  // what it caches has been written back. Refused while a user writes.
  Task<Result<>> set_read_only(bool read_only);
  // Reads from now on take turns with whoever takes them in `turns`; null: not any more. For what decides where a read
  // goes while it is under way.
  void set_read_turns(std::shared_ptr<WriteTurns> turns) { read_turns_ = std::move(turns); }
  // A node that the graph holds by name stays open when its last user goes.
  void set_kept(bool kept) { kept_ = kept; }
  [[nodiscard]] bool kept() const { return kept_; }
  // Clients' dirty bitmaps, which hear of every change of the content.
  [[nodiscard]] BitmapSet& bitmaps() { return bitmaps_; }
  [[nodiscard]] const BitmapSet& bitmaps() const { return bitmaps_; }
  // An error where a bitmap could not be kept in the image.
  virtual Result<> may_keep_bitmap(std::string_view name, uint64_t granularity) const;
  // What was deferred by an error or by a kill is looked at again: drops clean caches.
  virtual void invalidate() {}
  // For blkdebug and metrics: something of this name happens next ("l2_update"). ENODEV-free: unknown names are
  // allowed.
  virtual IoResult<> debug_event(std::string_view) { return {}; }

 protected:
  // The union of what this node's users need, and what they all share, is about to become this; a node that locks or
  // has children passes it on. On an error nothing has changed.
  virtual Result<> set_permissions(uint32_t need, uint32_t shared);
  virtual Task<Result<>> do_close();
  virtual Task<Result<>> do_deactivate();                   // before the nodes below
  virtual Task<Result<>> do_activate();                     // after them
  virtual Task<Result<>> do_set_read_only(bool read_only);  // sets config_.read_only
  virtual Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) = 0;
  virtual Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how);
  // ENOTSUP: the caller writes zeroes by hand (unless kNoFallback).
  virtual Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how);
  virtual Task<IoResult<>> do_discard(uint64_t offset, uint64_t bytes, IoHow how);
  virtual Task<IoResult<>> do_flush(IoHow how);
  virtual Task<IoResult<BlockStatus>> do_block_status(uint64_t offset, uint64_t bytes, bool precise);

  // auto-read-only: over a child that could only be opened for reading, this node is read-only, too.
  void follow_rights(const BlockNode& child) { config_.read_only |= config_.auto_read_only && child.read_only(); }

  NodeConfig config_;

 private:
  friend class NodeUse;
  struct User {
    std::string name;
    Permissions permissions;
    bool present = false;
    bool away = false;  // on its way to another node: its claim does not count
    NodeUse* use = nullptr;
    [[nodiscard]] bool counts() const { return present && !away; }
  };
  Task<IoResult<>> read_in_turn(std::shared_ptr<WriteTurns> turns, uint64_t offset, IoSlice to, IoHow how);
  Task<IoResult<>> mark_after(uint64_t offset, uint64_t bytes, Task<IoResult<>> change);
  Task<IoResult<>> write_zeroes_fallback(uint64_t offset, uint64_t bytes, IoHow how);
  Result<> check_users(const std::string& name, Permissions permissions, std::optional<size_t> except);
  // set_permissions() for the users but `except`, and `more`.
  Result<> apply_users(std::optional<size_t> except, Permissions more);

  Executor& executor_;
  std::string driver_;
  std::vector<User> users_;
  Task<Result<>> close_once();

  BitmapSet bitmaps_;
  std::shared_ptr<WriteTurns> read_turns_;
  uint64_t highest_written_ = 0;
  bool closing_ = false;
  bool closed_ = false;
  bool kept_ = false;
};

// Lets a child go; closes it when nothing else uses or keeps it.
Task<Result<>> close_use(NodeUse& use);

// Runs `executor` on this thread until the task is done; for tools and tests.
template <class T>
T run_until_done(Executor& executor, Task<T> task) {
  struct Run {
    static Task<void> keep(Task<T> task, std::optional<T>* out) { out->emplace(co_await task); }
  };
  std::optional<T> out;
  TaskScope scope;
  scope.spawn(Run::keep(std::move(task), &out));
  while (!scope.idle()) executor.run_once(Clock::kNever);
  return std::move(*out);
}

// A task that is done.
template <class T>
Task<T> ready(T value) {
  co_return std::move(value);
}

}  // namespace kite::block

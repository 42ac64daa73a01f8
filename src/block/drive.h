// Drive: a disk as a device sees it. It stands between one device and a node graph: bounds checks, the guest's write
// cache, error policies, statistics, change of medium, drain and cancel.
//
// Every method may be called from any thread; tasks resume on the drive's executor. A device takes its own lock when it
// is resumed.
#pragma once

#include <array>
#include <atomic>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "async/executor.h"
#include "async/task.h"
#include "block/io.h"
#include "block/node.h"
#include "metrics/metrics.h"
#include "support/result.h"

namespace kite::block {

enum class OnError : uint8_t { kReport, kIgnore, kStop, kEnospc };  // kEnospc: stop on ENOSPC, else report
enum class DriveOperation : uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };

// What the monitor tells its clients as BLOCK_IO_ERROR.
struct DriveErrorEvent {
  std::string drive_id;
  std::string node_name;
  DriveOperation operation;
  int code;
  OnError action;  // kReport, kIgnore or kStop: what is done
};

// What one kind of operation did so far. Readable from any thread.
struct DriveStats {
  metrics::SharedCounter operations, bytes, errors, total_ns;
  metrics::Log2Histogram latency;  // ns
};

struct DriveConfig {
  std::string id;  // -drive id=, or the device's
  bool read_only = false;
  bool write_cache = true;  // cache=writeback, none, unsafe; false: every write is followed by a flush
  OnError read_error = OnError::kReport;
  OnError write_error = OnError::kEnospc;
  bool share_write = false;  // share-rw: other devices may write the same node
};

class ThrottleGroup;

class Drive {
 public:
  using ErrorHook = std::function<void(const DriveErrorEvent&)>;

  // `node` may be null: a removable drive without a medium. Claims the node (write and exclusive unless read-only).
  static Result<std::unique_ptr<Drive>> create(Executor& executor, DriveConfig config, NodePtr node);
  // All requests must have ended (await close()), and what other threads asked for (release, cancel, resume) has run.
  ~Drive();
  Drive(const Drive&) = delete;
  Drive& operator=(const Drive&) = delete;

  [[nodiscard]] const std::string& id() const { return config_.id; }
  [[nodiscard]] Executor& executor() const { return executor_; }
  [[nodiscard]] bool has_medium() const { return has_medium_.load(std::memory_order_acquire); }
  [[nodiscard]] uint64_t length() const { return length_.load(std::memory_order_acquire); }  // bytes; 0: no medium
  [[nodiscard]] bool read_only() const { return read_only_.load(std::memory_order_acquire); }
  [[nodiscard]] BlockLimits limits() const;
  [[nodiscard]] const DriveStats& stats(DriveOperation operation) const {
    return stats_[static_cast<size_t>(operation)];
  }
  // The node, for the monitor; on the drive's executor only.
  [[nodiscard]] const NodePtr& node() const { return use_.node(); }

  // ENOMEDIUM without a medium, EIO outside of it, EACCES when read-only. With the policy `stop` a failed request
  // does not end: it waits and is tried again after resume().
  Task<IoResult<>> read(uint64_t offset, IoSlice to, IoHow how = {});
  Task<IoResult<>> write(uint64_t offset, IoSlice from, IoHow how = {});
  Task<IoResult<>> write_zeroes(uint64_t offset, uint64_t bytes, IoHow how = {});
  Task<IoResult<>> discard(uint64_t offset, uint64_t bytes, IoHow how = {});
  Task<IoResult<>> flush(IoHow how = {});

  // The guest's switch of its write cache. Off: writes carry kFua.
  void set_write_cache(bool on) { write_cache_.store(on, std::memory_order_release); }
  [[nodiscard]] bool write_cache() const { return write_cache_.load(std::memory_order_acquire); }
  void set_error_policy(OnError read_error, OnError write_error);  // before the machine runs
  // Whether other devices may write the same node (share-rw); on the drive's executor. Refused while one does.
  Result<> set_share_write(bool share);
  [[nodiscard]] bool shares_write() const { return config_.share_write; }
  // Called on the drive's executor for every error but those ignored by name; kStop asks for the machine to stop.
  void set_error_hook(ErrorHook hook);

  // The device hears when the user has made its medium longer or shorter: length() is the new one. Main thread, no lock
  // held; the device takes its hook out (null) before it goes.
  void set_resize_hook(std::function<void()> hook) { resize_hook_ = std::move(hook); }
  void resized() const {
    if (resize_hook_) resize_hook_();
  }

  // New requests wait from now on (nests).
  void hold();
  void release();
  // Waits until no request is on its way below the drive. With hold() before it, the drive is then quiet. Requests
  // that wait (held, or for resume()) do not count.
  Task<void> drain();
  // Requests that wait end with ECANCELED; those below are asked to hurry and end by themselves. For device resets.
  void cancel();
  // Limits that this drive shares with the others of its group; null: none. Reads, writes and what changes content wait
  // for their turn before they go below. On the drive's executor.
  void set_throttle(std::shared_ptr<ThrottleGroup> group);
  // Tries the requests again that an error stopped. The machine calls it when it runs again.
  void resume();
  [[nodiscard]] size_t stopped_requests() const;
  // Whether no request is below the drive; on the drive's executor.
  [[nodiscard]] bool idle() const { return in_flight_ == 0; }
  // Whether requests wait, held or stopped; on the drive's executor.
  [[nodiscard]] bool has_waiting() const { return !held_.empty() || !stopped_.empty() || !throttled_.empty(); }
  // The end of what was written farthest out, in bytes. Any thread.
  [[nodiscard]] uint64_t highest_written() const { return highest_written_.load(std::memory_order_relaxed); }

  // Puts another medium in (null: takes it out), after draining. The old node is closed if this was its last use.
  Task<Result<>> change_medium(NodePtr node, bool read_only);
  // The node's size changed.
  void refresh();
  // drain, flush, close the nodes.
  Task<Result<>> close();

 private:
  struct Operation {
    DriveOperation kind;
    uint64_t offset = 0;
    uint64_t bytes = 0;
    IoSlice slice;
    IoHow how;
  };
  // A request that waits; on the frame of its coroutine.
  struct Waiter {
    std::coroutine_handle<> handle;
    bool cancelled = false;
  };
  struct WaitIn;
  Drive(Executor& executor, DriveConfig config);
  Task<IoResult<>> perform(Operation operation);
  Task<IoResult<>> attempt(Operation operation);
  Task<bool> take_turn(bool write, uint64_t bytes);
  [[nodiscard]] IoResult<> check(const Operation& operation) const;
  OnError decide(const Operation& operation, int code);
  void count(const Operation& operation, int64_t started_ns, bool failed);
  void finish_one();
  void on_home(std::function<void()> work);  // now, when this is the executor's thread
  Result<> attach(NodePtr node, bool read_only);
  [[nodiscard]] Permissions permissions(bool read_only) const;
  static void wake(std::vector<Waiter*>& list, bool cancelled);

  Executor& executor_;
  DriveConfig config_;
  NodeUse use_;
  std::array<DriveStats, 5> stats_;  // by DriveOperation
  ErrorHook error_hook_;
  std::function<void()> resize_hook_;
  std::atomic<bool> has_medium_{false}, read_only_{false}, write_cache_{true};
  std::atomic<uint64_t> length_{0};
  // The four below belong to the drive's executor.
  size_t in_flight_ = 0;
  std::vector<std::coroutine_handle<>> drainers_;
  std::vector<Waiter*> held_;       // behind hold()
  std::vector<Waiter*> stopped_;    // behind an error
  std::vector<Waiter*> throttled_;  // for their turn
  std::shared_ptr<ThrottleGroup> throttle_;
  std::atomic<uint64_t> highest_written_{0};
  std::atomic<int> holds_{0};
  std::atomic<size_t> stopped_count_{0};
  metrics::Group metrics_;
};

// "report", "ignore", "stop", "enospc", "auto" (which is `automatic`).
Result<OnError> parse_on_error(std::string_view option, std::string_view text, OnError automatic);

}  // namespace kite::block

#include "block/io_engine.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "block/uring_engine.h"

namespace kite::block {
namespace {

// Blocking calls in up to kMaxThreads threads, which are started as work queues up and joined with the engine.
class ThreadEngine final : public IoEngine {
 public:
  explicit ThreadEngine(Executor& executor) : executor_(executor), most_threads_(kMaxThreads), reads_first_(false) {}
  // For offer().
  ThreadEngine(Executor& executor, size_t most_threads)
      : executor_(executor), most_threads_(most_threads), reads_first_(true) {}
  ~ThreadEngine() override {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    more_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  [[nodiscard]] std::string_view name() const override { return "threads"; }
  void submit(IoOp& op) override {
    const std::lock_guard lock(mutex_);
    queue_.push_back(&op);
    call_helpers(queue_.size());
  }
  // For one who means to take() it, unless a thread is faster: a lone operation wakes nobody. Who copies reads ahead
  // and waits for its writes, and a file takes one write at a time: these come first, and are not for the threads as
  // long as there are reads.
  void offer(IoOp& op) {
    const std::lock_guard lock(mutex_);
    const bool writes = op.kind == IoOp::Kind::kWrite;
    queue_.insert(writes ? std::ranges::find(queue_, IoOp::Kind::kRead, &IoOp::kind) : queue_.end(), &op);
    if (queue_.size() > 1) call_helpers(queue_.size() - 1);
  }
  // The first operation that no thread has begun, or null.
  IoOp* take() {
    const std::lock_guard lock(mutex_);
    if (queue_.empty()) return nullptr;
    IoOp* op = queue_.front();
    queue_.pop_front();
    return op;
  }

 private:
  static constexpr size_t kMaxThreads = 16;

  // Under mutex_.
  void call_helpers(size_t wanted) {
    if (wanted > idle_ && threads_.size() < most_threads_) threads_.emplace_back([this] { work(); });
    more_.notify_one();
  }

  void work() {
    ::pthread_setname_np(::pthread_self(), "block-io");
    std::unique_lock lock(mutex_);
    while (true) {
      ++idle_;
      more_.wait(lock, [this] { return ending_ || !queue_.empty(); });
      --idle_;
      if (queue_.empty()) return;
      const auto read = std::ranges::find(queue_, IoOp::Kind::kRead, &IoOp::kind);
      const auto mine = reads_first_ && read != queue_.end() ? read : queue_.begin();
      IoOp* op = *mine;
      queue_.erase(mine);
      lock.unlock();
      op->result = perform_blocking(*op);
      executor_.post([waiter = op->waiter] { waiter.resume(); });
      lock.lock();
    }
  }

  Executor& executor_;
  const size_t most_threads_;
  const bool reads_first_;
  std::mutex mutex_;
  std::condition_variable more_;
  std::deque<IoOp*> queue_;
  size_t idle_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

// Small requests at once. Large ones, where copying takes longer than a change of threads, side by side: this thread
// does one after the other when it has nothing else to do, and others help where more than one waits.
class InlineEngine final : public IoEngine {
 public:
  explicit InlineEngine(Executor& executor)
      : executor_(executor), threads_(executor, std::max(kLeastHelpers, std::thread::hardware_concurrency())) {
    executor_.add_batch_hook(this, [this] { return perform_one(); });
  }
  ~InlineEngine() override { executor_.remove_batch_hook(this); }
  [[nodiscard]] std::string_view name() const override { return "inline"; }

 protected:
  bool try_now(IoOp& op) override {
    constexpr uint64_t kLarge = 32 * 1024;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < op.part_count; ++i) bytes += op.parts[i].iov_len;
    if (bytes > kLarge) return false;
    op.result = perform_blocking(op);
    return true;
  }
  void submit(IoOp& op) override { threads_.offer(op); }

 private:
  static constexpr unsigned kLeastHelpers = 4;

  // The engine may be gone when the waiter returns.
  bool perform_one() {
    IoOp* op = threads_.take();
    if (op == nullptr) return false;
    op->result = perform_blocking(*op);
    op->waiter.resume();
    return true;
  }

  Executor& executor_;
  ThreadEngine threads_;
};

std::shared_ptr<IoEngine> make(Executor& executor, IoEngine::Kind kind) {
  switch (kind) {
    case IoEngine::Kind::kInline: return std::make_shared<InlineEngine>(executor);
    case IoEngine::Kind::kThreads: return std::make_shared<ThreadEngine>(executor);
    case IoEngine::Kind::kUring: return make_uring_engine(executor);
    case IoEngine::Kind::kAuto: break;
  }
  return nullptr;
}

}  // namespace

int64_t perform_blocking(const IoOp& op) {
  while (true) {
    int64_t done = 0;
    const auto offset = static_cast<off_t>(op.offset);
    switch (op.kind) {
      case IoOp::Kind::kRead:
        done = op.part_count == 1 ? ::pread(op.fd, op.parts->iov_base, op.parts->iov_len, offset)
                                  : ::preadv(op.fd, op.parts, static_cast<int>(op.part_count), offset);
        break;
      case IoOp::Kind::kWrite:
        done = op.part_count == 1 ? ::pwrite(op.fd, op.parts->iov_base, op.parts->iov_len, offset)
                                  : ::pwritev(op.fd, op.parts, static_cast<int>(op.part_count), offset);
        break;
      case IoOp::Kind::kFdatasync: done = ::fdatasync(op.fd); break;
      case IoOp::Kind::kFallocate: done = ::fallocate(op.fd, op.mode, offset, static_cast<off_t>(op.length)); break;
    }
    if (done >= 0) return done;
    if (errno != EINTR) return -errno;
  }
}

Result<std::shared_ptr<IoEngine>> IoEngine::of(Executor& executor, Kind kind) {
  static std::mutex mutex;
  static std::map<std::pair<Executor*, Kind>, std::weak_ptr<IoEngine>> engines;
  if (kind == Kind::kAuto) {
    if (auto ring = of(executor, Kind::kUring)) return ring;
    return of(executor, Kind::kThreads);
  }
  const std::lock_guard lock(mutex);
  std::weak_ptr<IoEngine>& known = engines[{&executor, kind}];
  if (auto engine = known.lock()) return engine;
  std::shared_ptr<IoEngine> engine = make(executor, kind);
  if (engine == nullptr) return fail("this kernel does not offer io_uring; use aio=threads");
  known = engine;
  return engine;
}

}  // namespace kite::block

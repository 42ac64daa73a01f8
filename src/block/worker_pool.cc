#include "block/worker_pool.h"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

namespace kite::block {
namespace {

// One pool a process, as wide as the machine; its threads start when there is work and end with the process.
class WorkerPool {
 public:
  static WorkerPool& process() {
    static WorkerPool pool;
    return pool;
  }
  ~WorkerPool() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    more_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  void submit(std::function<void()> job) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(job));
    const size_t width = std::max(1u, std::thread::hardware_concurrency());
    if (queue_.size() > idle_ && threads_.size() < width) threads_.emplace_back([this] { work(); });
    more_.notify_one();
  }

 private:
  void work() {
    ::pthread_setname_np(::pthread_self(), "block-worker");
    std::unique_lock lock(mutex_);
    while (true) {
      ++idle_;
      more_.wait(lock, [this] { return ending_ || !queue_.empty(); });
      --idle_;
      if (queue_.empty()) return;
      std::function<void()> job = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      job();
      job = nullptr;
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable more_;
  std::deque<std::function<void()>> queue_;
  size_t idle_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

void WorkerAwaiter::await_suspend(std::coroutine_handle<> handle) {
  // The awaiter is on the coroutine's frame: nothing of it may be touched once the executor was told.
  WorkerPool::process().submit([home = &executor, job = std::move(work), handle] {
    job();
    home->post([handle] { handle.resume(); });
  });
}

}  // namespace kite::block

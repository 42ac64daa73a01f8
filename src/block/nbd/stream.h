// A connected socket whose bytes coroutines read and write without blocking their executor.
#pragma once

#include <coroutine>
#include <cstdint>
#include <vector>

#include "async/executor.h"
#include "async/task.h"
#include "block/io.h"
#include "support/fd.h"

namespace kite::block::nbd {

// One reader and one writer at a time. Lives on its executor's thread, and outlives the tasks it gave out.
class Stream {
 public:
  Stream(Executor& executor, Fd socket);  // makes the socket non-blocking
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  [[nodiscard]] Executor& executor() const { return executor_; }
  // All of `to`; ECONNRESET when the peer ends before.
  Task<IoResult<>> read(IoSlice to);
  // All of `from`. Ahead of it goes `head`, in the same segment where it fits.
  Task<IoResult<>> write(std::vector<uint8_t> head, IoSlice from);
  // Both directions end now: whoever waits gets an error.
  void abort();

 private:
  struct Wait {
    std::coroutine_handle<>& slot;
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const noexcept { slot = handle; }
    void await_resume() const noexcept {}
  };
  void ready(uint32_t events);
  [[nodiscard]] int64_t receive(IoSlice to);

  Executor& executor_;
  Fd socket_;
  std::coroutine_handle<> reader_, writer_;
  // Received ahead: small headers cost no system call each.
  std::vector<uint8_t> buffer_;
  size_t buffer_from_ = 0, buffer_to_ = 0;
};

}  // namespace kite::block::nbd

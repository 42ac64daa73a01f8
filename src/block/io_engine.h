// How a node reaches the host's files without blocking its executor. One engine of a kind serves all nodes of an
// executor: io_uring where the kernel has it, else a pool of threads. The inline engine does the work at once, for
// tools that have nothing else to do.
#pragma once

#include <sys/uio.h>

#include <coroutine>
#include <cstdint>
#include <memory>
#include <string_view>

#include "async/executor.h"
#include "support/result.h"

namespace kite::block {

struct IoOp {
  enum class Kind : uint8_t { kRead, kWrite, kFdatasync, kFallocate };
  Kind kind = Kind::kRead;
  int fd = -1;
  int mode = 0;                  // kFallocate
  const iovec* parts = nullptr;  // kRead, kWrite: at most IOV_MAX, alive until the operation ends
  unsigned part_count = 0;
  uint64_t offset = 0;
  uint64_t length = 0;  // kFallocate
  // The engine's: bytes done or a negative errno, and who waits.
  int64_t result = 0;
  std::coroutine_handle<> waiter;
};

// The operation done by a plain system call of this thread.
int64_t perform_blocking(const IoOp& op);

class IoEngine {
 public:
  enum class Kind : uint8_t { kAuto, kUring, kThreads, kInline };  // kAuto: io_uring, else threads

  virtual ~IoEngine() = default;
  // The executor's engine of that kind, made on first use. To be called and dropped on the executor's thread.
  static Result<std::shared_ptr<IoEngine>> of(Executor& executor, Kind kind);

  [[nodiscard]] virtual std::string_view name() const = 0;

  // `const int64_t done = co_await engine.perform(op);` bytes, or a negative errno. May be short.
  struct Awaiter {
    IoEngine& engine;
    IoOp& op;
    [[nodiscard]] bool await_ready() const { return engine.try_now(op); }
    void await_suspend(std::coroutine_handle<> handle) const {
      op.waiter = handle;
      engine.submit(op);
    }
    [[nodiscard]] int64_t await_resume() const { return op.result; }
  };
  [[nodiscard]] Awaiter perform(IoOp& op) { return Awaiter{*this, op}; }

 protected:
  virtual bool try_now(IoOp&) { return false; }
  virtual void submit(IoOp& op) = 0;
};

}  // namespace kite::block

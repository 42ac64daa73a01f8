#include "block/uring_engine.h"

#include <liburing.h>
#include <sys/epoll.h>

#include <cerrno>
#include <deque>

#include "support/log.h"

namespace kite::block {
namespace {

class UringEngine final : public IoEngine {
 public:
  explicit UringEngine(Executor& executor) : executor_(executor) {}
  ~UringEngine() override {
    if (!open_) return;
    executor_.remove_batch_hook(this);
    executor_.unwatch(ring_.ring_fd);
    ::io_uring_queue_exit(&ring_);
  }

  bool open() {
    if (::io_uring_queue_init(kEntries, &ring_, IORING_SETUP_CLAMP) != 0) return false;
    open_ = true;
    executor_.watch(ring_.ring_fd, EPOLLIN, [this](uint32_t) { reap(); });
    executor_.add_batch_hook(this, [this] { return submit_batch(); });
    return true;
  }
  [[nodiscard]] std::string_view name() const override { return "io_uring"; }

 protected:
  void submit(IoOp& op) override {
    if (!waiting_.empty() || !prepare(op)) waiting_.push_back(&op);
  }

 private:
  static constexpr unsigned kEntries = 256;

  // False when the submission queue is full.
  bool prepare(IoOp& op) {
    io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
    if (entry == nullptr) return false;
    switch (op.kind) {
      case IoOp::Kind::kRead:
        if (op.part_count == 1) {
          ::io_uring_prep_read(entry, op.fd, op.parts->iov_base, static_cast<unsigned>(op.parts->iov_len), op.offset);
        } else {
          ::io_uring_prep_readv(entry, op.fd, op.parts, op.part_count, op.offset);
        }
        break;
      case IoOp::Kind::kWrite:
        if (op.part_count == 1) {
          ::io_uring_prep_write(entry, op.fd, op.parts->iov_base, static_cast<unsigned>(op.parts->iov_len), op.offset);
        } else {
          ::io_uring_prep_writev(entry, op.fd, op.parts, op.part_count, op.offset);
        }
        break;
      case IoOp::Kind::kFdatasync: ::io_uring_prep_fsync(entry, op.fd, IORING_FSYNC_DATASYNC); break;
      case IoOp::Kind::kFallocate:
        ::io_uring_prep_fallocate(entry, op.fd, op.mode, static_cast<off_t>(op.offset), static_cast<off_t>(op.length));
        break;
    }
    ::io_uring_sqe_set_data(entry, &op);
    return true;
  }

  // The loop's hook. The engine may go away while a completion runs: its last node was closed by it.
  bool submit_batch() {
    const std::weak_ptr<IoEngine> alive = self;
    bool progress = false;
    while (true) {
      while (!waiting_.empty() && prepare(*waiting_.front())) waiting_.pop_front();
      if (::io_uring_sq_ready(&ring_) == 0) return progress;
      const int sent = ::io_uring_submit(&ring_);
      // EAGAIN, EBUSY: the kernel is out of memory or completions must be taken first; what is queued goes next time.
      if (sent < 0 && sent != -EAGAIN && sent != -EBUSY && sent != -EINTR) {
        log::error("io_uring: cannot submit: {}", errno_text(-sent));
      }
      const bool reaped = reap();
      if (alive.expired()) return true;
      progress |= reaped;
      if (!reaped) return progress;
    }
  }

  bool reap() {
    const std::weak_ptr<IoEngine> alive = self;
    bool any = false;
    io_uring_cqe* entry = nullptr;
    while (::io_uring_peek_cqe(&ring_, &entry) == 0) {
      auto* op = static_cast<IoOp*>(::io_uring_cqe_get_data(entry));
      op->result = entry->res;
      ::io_uring_cqe_seen(&ring_, entry);
      any = true;
      if (op->result == -EINTR || op->result == -EAGAIN) {
        submit(*op);
        continue;
      }
      op->waiter.resume();
      if (alive.expired()) return true;
    }
    return any;
  }

  Executor& executor_;
  io_uring ring_{};
  bool open_ = false;
  std::deque<IoOp*> waiting_;  // the submission queue was full

 public:
  std::weak_ptr<IoEngine> self;
};

}  // namespace

std::shared_ptr<IoEngine> make_uring_engine(Executor& executor) {
  auto engine = std::make_shared<UringEngine>(executor);
  if (!engine->open()) return nullptr;
  engine->self = engine;
  return engine;
}

}  // namespace kite::block

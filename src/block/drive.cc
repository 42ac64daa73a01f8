#include "block/drive.h"

#include <cerrno>

#include "block/co_sync.h"
#include "block/throttle.h"
#include "block/timed.h"
#include "support/bits.h"
#include "support/suggest.h"

namespace kite::block {
namespace {

uint64_t next_request_id() {
  static std::atomic<uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

constexpr std::array<std::string_view, 5> kOperationNames{"read", "write", "flush", "discard", "write_zeroes"};

bool changes(DriveOperation kind) {
  return kind == DriveOperation::kWrite || kind == DriveOperation::kDiscard || kind == DriveOperation::kWriteZeroes;
}

}  // namespace

// Waits in a list until wake(); answers false when the request was cancelled.
struct Drive::WaitIn {
  std::vector<Waiter*>& list;
  Waiter waiter{};
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    waiter.handle = handle;
    list.push_back(&waiter);
  }
  [[nodiscard]] bool await_resume() const noexcept { return !waiter.cancelled; }
};

Result<std::unique_ptr<Drive>> Drive::create(Executor& executor, DriveConfig config, NodePtr node) {
  const bool read_only = config.read_only;
  std::unique_ptr<Drive> drive(new Drive(executor, std::move(config)));
  if (node != nullptr) KITE_TRY(drive->attach(std::move(node), read_only));
  return drive;
}

Drive::Drive(Executor& executor, DriveConfig config)
    : executor_(executor),
      config_(std::move(config)),
      read_only_(config_.read_only),
      write_cache_(config_.write_cache),
      metrics_("block." + (config_.id.empty() ? std::string("drive") : config_.id)) {
  for (size_t i = 0; i < stats_.size(); ++i) {
    const std::string name(kOperationNames[i]);
    metrics_.add(name + ".operations", stats_[i].operations, {.help = "requests completed"});
    metrics_.add(name + ".bytes", stats_[i].bytes, {.help = "bytes asked for", .unit = metrics::Unit::kBytes});
    metrics_.add(name + ".errors", stats_[i].errors, {.help = "requests that failed"});
    metrics_.add(name + ".total-time", stats_[i].total_ns,
                 {.help = "time of all requests", .unit = metrics::Unit::kSeconds, .exponent = -9});
    metrics_.add(name + ".latency", stats_[i].latency,
                 {.help = "time of a request", .unit = metrics::Unit::kSeconds, .exponent = -9});
  }
}

Drive::~Drive() {
  if (in_flight_ != 0 || has_waiting()) std::terminate();  // requests would outlive the drive
}

Permissions Drive::permissions(bool read_only) const {
  Permissions permissions{.need = Permissions::kConsistentRead, .shared = Permissions::kAll};
  if (!read_only) permissions.need |= Permissions::kWrite;
  if (!config_.share_write) permissions.shared &= ~uint32_t{Permissions::kWrite};
  permissions.shared &= ~uint32_t{Permissions::kResize};
  return permissions;
}

Result<> Drive::set_share_write(bool share) {
  const bool before = std::exchange(config_.share_write, share);
  if (!use_ || before == share) return {};
  Result<> done = use_.change(permissions(read_only()));
  if (!done) config_.share_write = before;
  return done;
}

Result<> Drive::attach(NodePtr node, bool read_only) {
  read_only |= node->read_only();
  KITE_ASSIGN(use_, NodeUse::claim(std::move(node), fmt::format("device '{}'", config_.id), permissions(read_only)));
  read_only_.store(read_only, std::memory_order_release);
  length_.store(use_->length(), std::memory_order_release);
  has_medium_.store(true, std::memory_order_release);
  return {};
}

BlockLimits Drive::limits() const { return use_ ? use_->limits() : BlockLimits{}; }

Task<IoResult<>> Drive::read(uint64_t offset, IoSlice to, IoHow how) {
  return perform({.kind = DriveOperation::kRead, .offset = offset, .bytes = to.bytes(), .slice = to, .how = how});
}
Task<IoResult<>> Drive::write(uint64_t offset, IoSlice from, IoHow how) {
  return perform({.kind = DriveOperation::kWrite, .offset = offset, .bytes = from.bytes(), .slice = from, .how = how});
}
Task<IoResult<>> Drive::write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) {
  return perform({.kind = DriveOperation::kWriteZeroes, .offset = offset, .bytes = bytes, .slice = {}, .how = how});
}
Task<IoResult<>> Drive::discard(uint64_t offset, uint64_t bytes, IoHow how) {
  return perform({.kind = DriveOperation::kDiscard, .offset = offset, .bytes = bytes, .slice = {}, .how = how});
}
Task<IoResult<>> Drive::flush(IoHow how) { return perform({.kind = DriveOperation::kFlush, .slice = {}, .how = how}); }

Task<IoResult<>> Drive::perform(Operation operation) {
  if (!executor_.on_this_thread()) co_await executor_.schedule();
  if (operation.how.id == 0) operation.how.id = next_request_id();
  const int64_t started = monotonic_ns();
  if (throttle_ != nullptr && operation.kind != DriveOperation::kFlush) {
    if (!co_await take_turn(operation.kind != DriveOperation::kRead, operation.bytes)) co_return io_fail(ECANCELED);
  }
  while (true) {
    while (holds_.load(std::memory_order_acquire) != 0) {
      if (!co_await WaitIn{held_}) co_return io_fail(ECANCELED);
    }
    IoResult<> result = check(operation);
    if (result) {
      ++in_flight_;
      result = co_await attempt(operation);
      finish_one();
    } else if (result.error().code == ENOMEDIUM) {
      co_return result;
    }
    count(operation, started, !result);
    if (result) co_return result;
    const OnError action = decide(operation, result.error().code);
    if (action == OnError::kIgnore) co_return IoResult<>{};
    if (action == OnError::kReport) co_return result;
    stopped_count_.fetch_add(1, std::memory_order_acq_rel);
    const bool again = co_await WaitIn{stopped_};
    stopped_count_.fetch_sub(1, std::memory_order_acq_rel);
    if (!again) co_return io_fail(ECANCELED);
  }
}

Task<bool> Drive::take_turn(bool write, uint64_t bytes) {
  while (const std::shared_ptr<ThrottleGroup> group = throttle_) {
    const uint64_t generation = group->generation();
    const int64_t wait = group->reserve(write, bytes, monotonic_ns());
    if (wait <= 0) co_return true;
    WaitIn turn{throttled_};
    const Alarm alarm(executor_, wait, [this, waiter = &turn.waiter] {
      if (std::erase(throttled_, waiter) != 0) resume_in_turn(waiter->handle);
    });
    if (!co_await turn) co_return false;
    // Other limits: the turn is another one.
    if (throttle_ == group && group->generation() == generation) co_return true;
  }
  co_return true;
}

void Drive::set_throttle(std::shared_ptr<ThrottleGroup> group) {
  throttle_ = std::move(group);
  wake(throttled_, false);
}

IoResult<> Drive::check(const Operation& operation) const {
  if (!has_medium()) return io_fail(ENOMEDIUM);
  const uint64_t length = this->length();
  if (operation.offset > length || operation.bytes > length - operation.offset) return io_fail(EIO);
  if (changes(operation.kind) && read_only()) return io_fail(EACCES);
  return {};
}

Task<IoResult<>> Drive::attempt(Operation operation) {
  IoHow how = operation.how;
  if (!write_cache()) how = how.with(IoHow::kFua);
  switch (operation.kind) {
    case DriveOperation::kRead: return use_->read(operation.offset, operation.slice, how);
    case DriveOperation::kWrite: return use_->write(operation.offset, operation.slice, how);
    case DriveOperation::kWriteZeroes: return use_->write_zeroes(operation.offset, operation.bytes, how);
    case DriveOperation::kDiscard: return use_->discard(operation.offset, operation.bytes, how);
    case DriveOperation::kFlush: break;
  }
  return read_only() ? ready(IoResult<>{}) : use_->flush(how);
}

void Drive::count(const Operation& operation, int64_t started_ns, bool failed) {
  DriveStats& stats = stats_[static_cast<size_t>(operation.kind)];
  const auto spent = static_cast<uint64_t>(monotonic_ns() - started_ns);
  if (failed) {
    stats.errors.add();
  } else {
    stats.operations.add();
    stats.bytes.add(operation.bytes);
    const uint64_t end = operation.offset + operation.bytes;
    if (operation.kind == DriveOperation::kWrite && end > highest_written())
      highest_written_.store(end, std::memory_order_relaxed);
  }
  stats.total_ns.add(spent);
  stats.latency.record(spent);
}

OnError Drive::decide(const Operation& operation, int code) {
  const OnError policy = operation.kind == DriveOperation::kRead ? config_.read_error : config_.write_error;
  OnError action = policy;
  if (code == ECANCELED) return OnError::kReport;
  if (policy == OnError::kEnospc) action = code == ENOSPC ? OnError::kStop : OnError::kReport;
  if (error_hook_) {
    error_hook_({.drive_id = config_.id,
                 .node_name = use_ ? use_->name() : "",
                 .operation = operation.kind,
                 .code = code,
                 .action = action});
  }
  return action;
}

void Drive::finish_one() {
  if (--in_flight_ != 0) return;
  std::vector<std::coroutine_handle<>> drainers;
  drainers.swap(drainers_);
  for (const auto handle : drainers) resume_in_turn(handle);
}

void Drive::set_error_policy(OnError read_error, OnError write_error) {
  config_.read_error = read_error;
  config_.write_error = write_error;
}

void Drive::set_error_hook(ErrorHook hook) { error_hook_ = std::move(hook); }

void Drive::wake(std::vector<Waiter*>& list, bool cancelled) {
  std::vector<Waiter*> waiters;
  waiters.swap(list);
  for (Waiter* waiter : waiters) {
    waiter->cancelled = cancelled;
    resume_in_turn(waiter->handle);
  }
}

void Drive::hold() { holds_.fetch_add(1, std::memory_order_acq_rel); }

void Drive::release() {
  if (holds_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  on_home([this] {
    if (holds_.load(std::memory_order_acquire) == 0) wake(held_, false);
  });
}

void Drive::on_home(std::function<void()> work) {
  if (executor_.on_this_thread()) return work();
  executor_.post(std::move(work));
}

Task<void> Drive::drain() {
  if (!executor_.on_this_thread()) co_await executor_.schedule();
  struct Drained {
    Drive& drive;
    [[nodiscard]] bool await_ready() const noexcept { return drive.in_flight_ == 0; }
    void await_suspend(std::coroutine_handle<> handle) const { drive.drainers_.push_back(handle); }
    void await_resume() const noexcept {}
  };
  while (in_flight_ != 0) co_await Drained{*this};
}

void Drive::cancel() {
  on_home([this] {
    wake(held_, true);
    wake(stopped_, true);
    wake(throttled_, true);
  });
}

void Drive::resume() {
  on_home([this] { wake(stopped_, false); });
}

size_t Drive::stopped_requests() const { return stopped_count_.load(std::memory_order_acquire); }

Task<Result<>> Drive::change_medium(NodePtr node, bool read_only) {
  hold();
  co_await drain();
  Result<> result;
  if (use_) {
    has_medium_.store(false, std::memory_order_release);
    length_.store(0, std::memory_order_release);
    if (!use_->read_only()) {
      if (const auto flushed = co_await use_->flush(); !flushed) {
        result = fail("the medium of '{}' could not be flushed: {}", config_.id, errno_text(flushed.error().code));
      }
    }
    if (Result<> closed = co_await close_use(use_); !closed && result) result = std::move(closed);
  }
  if (node != nullptr) {
    if (Result<> attached = attach(std::move(node), read_only); !attached) result = std::move(attached);
  }
  release();
  co_return result;
}

void Drive::refresh() { length_.store(use_ ? use_->length() : 0, std::memory_order_release); }

Task<Result<>> Drive::close() { return change_medium(nullptr, true); }

Result<OnError> parse_on_error(std::string_view option, std::string_view text, OnError automatic) {
  static constexpr std::array<std::string_view, 5> kNames{"report", "ignore", "stop", "enospc", "auto"};
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == text) return i == 4 ? automatic : static_cast<OnError>(i);
  }
  return fail("'{}' invalid {} error action{}", text, option, suggestion(text, kNames));
}

}  // namespace kite::block

#include "block/jobs/job.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "block/chain.h"
#include "block/timed.h"

namespace kite::block {
namespace {

constexpr std::array<std::string_view, 5> kTypeNames{"commit", "stream", "mirror", "backup", "create"};
constexpr std::array<std::string_view, 10> kStatusNames{"created", "running", "paused",   "ready",     "standby",
                                                        "waiting", "pending", "aborting", "concluded", "null"};
constexpr std::array<std::string_view, 7> kVerbNames{"cancel",   "pause",    "resume", "set-speed",
                                                     "complete", "finalize", "dismiss"};

// [QAPI] job.json, JobVerb: the states in which each is taken.
bool takes(JobStatus status, JobVerb verb) {
  using enum JobStatus;
  switch (verb) {
    case JobVerb::kCancel: return status <= kPending;
    case JobVerb::kPause:
    case JobVerb::kResume:
    case JobVerb::kSetSpeed: return status <= kStandby;
    case JobVerb::kComplete: return status == kReady;
    case JobVerb::kFinalize: return status == kPending;
    case JobVerb::kDismiss: return status == kConcluded;
  }
  return false;
}

}  // namespace

std::string_view job_type_name(JobType type) { return kTypeNames[static_cast<size_t>(type)]; }
std::string_view job_status_name(JobStatus status) { return kStatusNames[static_cast<size_t>(status)]; }

Job::Job(BlockGraph& graph, JobType type, JobOptions options)
    : graph_(graph), type_(type), options_(std::move(options)) {
  bucket_.configure({.rate = options_.speed});
}

JobReport Job::report() const {
  using enum JobStatus;
  return {.id = options_.id,
          .type = type_,
          .status = status_,
          .done = done_,
          .total = total_,
          .speed = options_.speed,
          .paused = pause_asked_,
          .ready = ready_,
          .busy = status_ == kRunning || status_ == kReady,
          .failed_io = failed_io_,
          .no_space = no_space_,
          .auto_finalize = options_.auto_finalize,
          .auto_dismiss = options_.auto_dismiss,
          .error = error_};
}

bool Job::uses(const BlockNode& node) const {
  return std::ranges::any_of(blocked_, [&node](const NodePtr& blocked) { return blocked.get() == &node; });
}

void Job::block_images_below(BlockNode& node) {
  for (BlockNode* at = &node; at != nullptr; at = at->is_filter() ? at->file() : at->backing())
    block(at->shared_from_this());
}

// --- what clients ask for

Result<> Job::may(JobVerb verb) const {
  if (takes(status_, verb)) return {};
  return fail("Job '{}' in state '{}' cannot accept command verb '{}'", id(), job_status_name(status_),
              kVerbNames[static_cast<size_t>(verb)]);
}

Result<> Job::pause() {
  KITE_TRY(may(JobVerb::kPause));
  if (pause_asked_) return fail("Job '{}' is already paused", id());
  pause_asked_ = true;
  poke();
  return {};
}

Result<> Job::resume() {
  KITE_TRY(may(JobVerb::kResume));
  if (!pause_asked_) return fail("Can't resume job '{}': it was not paused", id());
  pause_asked_ = failed_io_ = no_space_ = false;
  poke();
  return {};
}

Result<> Job::set_speed(uint64_t bytes_a_second) {
  KITE_TRY(may(JobVerb::kSetSpeed));
  options_.speed = bytes_a_second;
  bucket_ = {};
  bucket_.configure({.rate = bytes_a_second});
  poke();
  return {};
}

Result<> Job::complete() {
  KITE_TRY(may(JobVerb::kComplete));
  if (!can_complete() || cancelled_ || soft_cancelled_)
    return fail("The active block job '{}' cannot be completed", id());
  complete_asked_ = true;
  poke();
  return {};
}

Result<> Job::finalize() {
  KITE_TRY(may(JobVerb::kFinalize));
  finalize_asked_ = true;
  poke();
  return {};
}

Result<> Job::cancel(bool force) {
  KITE_TRY(may(JobVerb::kCancel));
  pause_asked_ = false;
  if (!force && ready_ && ends_softly() && status_ <= JobStatus::kStandby) {
    if (!complete_asked_) soft_cancelled_ = true;
  } else {
    cancelled_ = true;
  }
  poke();
  return {};
}

// --- its life

void Job::tell(JobEvent::Kind kind) { table_->tell({.kind = kind, .job = report()}); }

void Job::set_status(JobStatus status) {
  if (status_ == status) return;
  status_ = status;
  tell(JobEvent::Kind::kStatus);
}

void Job::set_ready() {
  if (std::exchange(ready_, true)) return;
  set_status(JobStatus::kReady);
  tell(JobEvent::Kind::kReady);
}

void Job::progress(uint64_t done, uint64_t total) {
  done_ = done;
  total_ = total;
}

Task<Result<>> Job::end_of_work() {
  KITE_CO_TRY(co_await work());
  if (cancelled_) co_return fail("cancelled");
  set_status(JobStatus::kWaiting);
  set_status(JobStatus::kPending);
  if (!options_.auto_finalize) {
    tell(JobEvent::Kind::kPending);
    while (!finalize_asked_ && !cancelled_) co_await wake_.wait();
  }
  if (cancelled_) co_return fail("cancelled");
  co_return co_await finish();
}

Task<void> Job::live() {
  const std::shared_ptr<Job> keep = shared_from_this();
  tell(JobEvent::Kind::kStatus);
  set_status(JobStatus::kRunning);
  // Who started it hears of that first.
  co_await graph_.executor().schedule();
  Result<> done = fail("cancelled");
  if (co_await checkpoint()) done = co_await end_of_work();
  if (!done) {
    if (!cancelled_) error_ = done.error().message;
    set_status(JobStatus::kAborting);
    co_await abandon();
  }
  co_await clean_up();
  blocked_.clear();
  if (type_ != JobType::kCreate) tell(!done && cancelled_ ? JobEvent::Kind::kCancelled : JobEvent::Kind::kCompleted);
  set_status(JobStatus::kConcluded);
  if (options_.auto_dismiss) table_->ended(*this);
}

Task<void> Job::undo() {
  co_await abandon();
  co_await clean_up();
  blocked_.clear();
}

Task<bool> Job::checkpoint() {
  while (pause_asked_ && !cancelled_) {
    set_status(ready_ ? JobStatus::kStandby : JobStatus::kPaused);
    co_await wake_.wait();
  }
  set_status(ready_ ? JobStatus::kReady : JobStatus::kRunning);
  co_return !cancelled_;
}

Task<bool> Job::pace(uint64_t bytes) {
  if (bytes != 0 && bucket_.limits()) (void)bucket_.reserve(bytes, monotonic_ns());
  while (!cancelled_ && bucket_.limits()) {
    const int64_t wait = bucket_.reserve(0, monotonic_ns());
    if (wait <= 0) break;
    co_await nap(wait);
    if (!co_await checkpoint()) break;
  }
  co_return co_await checkpoint();
}

Task<void> Job::nap(int64_t ns) {
  const Alarm alarm(graph_.executor(), ns, [this] { wake_.wake_all(); });
  co_await wake_.wait();
}

OnError Job::action_on(int code, bool reading) const {
  const OnError policy = reading ? options_.on_source_error : options_.on_target_error;
  if (policy != OnError::kEnospc) return policy;
  return code == ENOSPC ? OnError::kStop : OnError::kReport;
}

Task<bool> Job::after_error(int code, bool reading) {
  const OnError action = action_on(code, reading);
  table_->tell({.kind = JobEvent::Kind::kError, .job = report(), .reading = reading, .action = action});
  if (action == OnError::kReport) co_return false;
  if (action == OnError::kStop) {
    failed_io_ = true;
    no_space_ = code == ENOSPC;
    pause_asked_ = true;
  } else {
    constexpr int64_t kBreatheNs = 100'000'000;
    co_await nap(kBreatheNs);
  }
  co_return co_await checkpoint();
}

// --- the table

Result<> JobTable::may_start(std::string_view id) const {
  if (!valid_id(id)) return fail("Invalid job ID '{}'", id);
  if (find(id) != nullptr) return fail("Job ID '{}' already in use", id);
  return {};
}

void JobTable::reserve(std::shared_ptr<Job> job) {
  job->table_ = this;
  jobs_.push_back(std::move(job));
}

void JobTable::start(std::shared_ptr<Job> job) {
  if (job->table_ == nullptr) reserve(job);
  scope_.spawn(job->live());
}

Task<void> JobTable::withdraw(std::shared_ptr<Job> job) {
  std::erase(jobs_, job);
  co_await job->undo();
}

std::shared_ptr<Job> JobTable::find(std::string_view id) const {
  const auto found = std::ranges::find(jobs_, id, [](const auto& job) { return std::string_view(job->id()); });
  return found == jobs_.end() ? nullptr : *found;
}

Result<> JobTable::may_change(const BlockNode& node) const {
  for (const auto& job : jobs_) {
    if (job->uses(node))
      return fail("Node '{}' is busy: block device is in use by block job: {}", node.name(),
                  job_type_name(job->type()));
  }
  return {};
}

const Job* JobTable::running() const {
  const auto found = std::ranges::find_if(jobs_, [](const auto& job) { return job->status() < JobStatus::kConcluded; });
  return found == jobs_.end() ? nullptr : found->get();
}

void JobTable::ended(Job& job) {
  job.set_status(JobStatus::kNull);
  std::erase_if(jobs_, [&job](const auto& other) { return other.get() == &job; });
}

Result<> JobTable::dismiss(std::string_view id) {
  const std::shared_ptr<Job> job = find(id);
  if (job == nullptr) return fail("Job '{}' not found", id);
  KITE_TRY(job->may(JobVerb::kDismiss));
  ended(*job);
  return {};
}

Task<void> JobTable::cancel_all() {
  const std::vector<std::shared_ptr<Job>> jobs = jobs_;
  for (const auto& job : jobs) (void)job->cancel(true);
  co_await scope_.join();
  jobs_.clear();
}

}  // namespace kite::block

// Jobs: long work on images in the background of a running machine, as monitors know it: states, pause, speed,
// progress, completion ([QAPI] job.json, block-core.json). A Job is the life that all have in common; what they do is
// in the other files of this folder.
//
// Everything here happens on the graph's executor.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "async/task.h"
#include "block/co_sync.h"
#include "block/drive.h"
#include "block/graph.h"
#include "block/jobs/job_report.h"
#include "block/throttle.h"

namespace kite::block {

enum class JobVerb : uint8_t { kCancel, kPause, kResume, kSetSpeed, kComplete, kFinalize, kDismiss };

struct JobOptions {
  std::string id;
  uint64_t speed = 0;  // bytes a second; 0: no limit
  bool auto_finalize = true;
  bool auto_dismiss = true;
  OnError on_source_error = OnError::kReport;
  OnError on_target_error = OnError::kReport;
};

class JobTable;

class Job : public std::enable_shared_from_this<Job> {
 public:
  Job(BlockGraph& graph, JobType type, JobOptions options);
  virtual ~Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  [[nodiscard]] const std::string& id() const { return options_.id; }
  [[nodiscard]] JobType type() const { return type_; }
  [[nodiscard]] JobStatus status() const { return status_; }
  [[nodiscard]] bool ready() const { return ready_; }
  [[nodiscard]] JobReport report() const;
  // Nothing else may change this node or what it stands on while the job is there.
  [[nodiscard]] bool uses(const BlockNode& node) const;

  // What clients ask for; refused in states that do not allow it.
  Result<> pause();
  Result<> resume();
  Result<> set_speed(uint64_t bytes_a_second);
  Result<> complete();
  Result<> finalize();
  // Without `force` a job that is ready ends well, with a copy of this moment, and nothing is switched.
  Result<> cancel(bool force);
  Result<> may(JobVerb verb) const;

 protected:
  // The work, until nothing but finish() is left.
  virtual Task<Result<>> work() = 0;
  // What makes it count: graphs change here. On an error abandon() follows.
  virtual Task<Result<>> finish() { co_return Result<>{}; }
  // Undoes what work() did to the graph, after an error or when it was cancelled.
  virtual Task<void> abandon() { co_return; }
  // Whatever the end was: lets nodes go.
  virtual Task<void> clean_up() { co_return; }
  [[nodiscard]] virtual bool can_complete() const { return false; }
  [[nodiscard]] virtual bool ends_softly() const { return false; }  // cancelling without force when ready

  // Waits while the job is paused. False: it is to end.
  Task<bool> checkpoint();
  // The same, and as long as the speed limit asks for after so many bytes.
  Task<bool> pace(uint64_t bytes);
  // Returns when something was asked of the job, or poke() was called, or the time is over.
  Task<void> nap(int64_t ns);
  void poke() { wake_.wake_all(); }
  // A request failed. True: try again; the job may have been paused in between.
  Task<bool> after_error(int code, bool reading);
  void set_ready();
  void progress(uint64_t done, uint64_t total);
  void advance(uint64_t bytes) { progress(done_ + bytes, total_); }
  // What is done about a failed request.
  [[nodiscard]] OnError action_on(int code, bool reading) const;
  [[nodiscard]] uint64_t done() const { return done_; }
  [[nodiscard]] bool cancelled() const { return cancelled_; }
  [[nodiscard]] bool complete_asked() const { return complete_asked_; }
  [[nodiscard]] bool soft_cancelled() const { return soft_cancelled_; }
  void block(const NodePtr& node) { blocked_.push_back(node); }
  void block_images_below(BlockNode& node);
  [[nodiscard]] BlockGraph& graph() const { return graph_; }

 private:
  friend class JobTable;
  Task<void> live();
  Task<void> undo();
  Task<Result<>> end_of_work();
  void set_status(JobStatus status);
  void tell(JobEvent::Kind kind);

  BlockGraph& graph_;
  JobTable* table_ = nullptr;
  JobType type_;
  JobOptions options_;
  JobStatus status_ = JobStatus::kCreated;
  uint64_t done_ = 0, total_ = 0;
  bool pause_asked_ = false, complete_asked_ = false, finalize_asked_ = false;
  bool cancelled_ = false, soft_cancelled_ = false, ready_ = false;
  bool failed_io_ = false, no_space_ = false;
  std::string error_;
  LeakyBucket bucket_;
  CoQueue wake_;
  std::vector<NodePtr> blocked_;
};

class JobTable {
 public:
  explicit JobTable(std::function<void(const JobEvent&)> hook) : hook_(std::move(hook)) {}
  // All jobs must be over (await cancel_all()).
  ~JobTable() = default;
  JobTable(const JobTable&) = delete;
  JobTable& operator=(const JobTable&) = delete;

  // An id that is free and could be one, "" included for jobs that `needs_id` none.
  [[nodiscard]] Result<> may_start(std::string_view id) const;
  void start(std::shared_ptr<Job> job);
  // A job that begins later, by start(), or never, by withdraw(): its id and its nodes are taken.
  void reserve(std::shared_ptr<Job> job);
  Task<void> withdraw(std::shared_ptr<Job> job);
  [[nodiscard]] std::shared_ptr<Job> find(std::string_view id) const;
  [[nodiscard]] const std::vector<std::shared_ptr<Job>>& all() const { return jobs_; }
  // An error that names the job which needs the node as it is.
  [[nodiscard]] Result<> may_change(const BlockNode& node) const;
  // The first job that has not ended; null: none.
  [[nodiscard]] const Job* running() const;
  Result<> dismiss(std::string_view id);
  Task<void> cancel_all();

 private:
  friend class Job;
  void tell(const JobEvent& event) const {
    if (hook_) hook_(event);
  }
  void ended(Job& job);

  std::function<void(const JobEvent&)> hook_;
  std::vector<std::shared_ptr<Job>> jobs_;
  TaskScope scope_;
};

}  // namespace kite::block

// Jobs that make a chain of images shorter: block-stream copies what an image shows of its backing files into it;
// block-commit copies images that only back another one into their base. At the end the image above says, durably,
// which backing file it has now. (MirrorJob commits the image that guests write to.)
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "block/image.h"
#include "block/jobs/copy.h"
#include "block/jobs/job.h"
#include "block/jobs/job_filter.h"

namespace kite::block {

// What both have in common: an image whose backing file becomes another one.
class ChainJob : public Job {
 protected:
  ChainJob(BlockGraph& graph, JobType type, JobOptions options, NodePtr overlay, std::string filter_name);
  // Puts the filter above the overlay, which is made writable.
  Task<Result<>> take_overlay(const char* driver);
  // Guests wait: the overlay's backing file is `base` from now on, named `name` in its header.
  Task<Result<>> change_backing(NodePtr base, std::string name);
  Task<Result<>> finish() override;
  Task<void> abandon() override;
  Task<void> clean_up() override;
  // What finish() does while guests wait.
  virtual Task<Result<>> join() = 0;
  [[nodiscard]] FormatNode& format() const { return *format_; }

  NodePtr overlay_;
  std::string filter_name_;
  FormatNode* format_ = nullptr;
  std::shared_ptr<JobFilter> filter_;
  NodePtr dropped_;  // the backing file that the overlay has no more
  bool was_read_only_ = false;
  bool aside_ = false;
  AlignedBuffer memory_;
};

struct StreamRequest {
  JobOptions job;
  NodePtr image;                              // gets what it shows
  NodePtr base;                               // stays its backing file; null: none does
  std::optional<std::string> backing_name{};  // as its header names the base
  std::string filter_name{};
};

class StreamJob final : public ChainJob, private WriteWatcher {
 public:
  static Task<Result<std::shared_ptr<Job>>> create(BlockGraph& graph, const JobTable& table, StreamRequest request);

 protected:
  Task<Result<>> work() override;
  Task<Result<>> join() override;

 private:
  StreamJob(BlockGraph& graph, StreamRequest request);
  Task<CopyResult> copy_next(uint64_t offset, uint64_t& bytes);
  Task<void> after(uint64_t, uint64_t, IoSlice) override { co_return; }

  StreamRequest request_;
};

struct CommitRequest {
  JobOptions job;
  NodePtr overlay;  // the image above `top`
  NodePtr top, base;
  std::optional<std::string> backing_name{};
  std::string filter_name{};
};

class CommitJob final : public ChainJob {
 public:
  static Task<Result<std::shared_ptr<Job>>> create(BlockGraph& graph, const JobTable& table, CommitRequest request);

 protected:
  Task<Result<>> work() override;
  Task<Result<>> join() override;
  Task<void> clean_up() override;

 private:
  CommitJob(BlockGraph& graph, CommitRequest request);
  Task<Result<>> set_up();

  CommitRequest request_;
  NodeUse base_;
  bool base_was_read_only_ = false;
};

}  // namespace kite::block

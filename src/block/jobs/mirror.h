// MirrorJob: a second image becomes what a disk in use is, and stays so until somebody says what then (blockdev-mirror,
// drive-mirror; block-commit of the image that guests write to). What guests write meanwhile is marked and copied
// again, or, with `follow_writes`, goes to both.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "block/dirty_chunks.h"
#include "block/jobs/copy.h"
#include "block/jobs/job.h"
#include "block/jobs/job_filter.h"

namespace kite::block {

struct MirrorRequest {
  enum class Sync : uint8_t { kFull, kTop, kNone };
  JobOptions job{};
  NodePtr source = nullptr, target = nullptr;
  Sync sync = Sync::kFull;
  bool follow_writes = false;
  uint64_t granularity = 65536;       // bytes, a power of two
  uint64_t piece_bytes = kCopyPiece;  // copied at once at most; at least the granularity
  std::string filter_name{};
  // The target is below the source, and gets what is above it.
  bool commits = false;
};

class MirrorJob final : public Job, private WriteWatcher {
 public:
  // Checks, and puts the job's filter in its place: meanwhile nobody has requests under way.
  static Task<Result<std::shared_ptr<Job>>> create(BlockGraph& graph, const JobTable& table, MirrorRequest request);

 protected:
  Task<Result<>> work() override;
  Task<Result<>> finish() override;
  Task<void> abandon() override;
  Task<void> clean_up() override;
  [[nodiscard]] bool can_complete() const override { return ready(); }
  [[nodiscard]] bool ends_softly() const override { return true; }

 private:
  MirrorJob(BlockGraph& graph, MirrorRequest request);
  Task<Result<>> set_up();
  Task<IoResult<>> find_what_differs();
  Task<CopyResult> copy_next();
  Task<Result<>> copy_all();
  Task<Result<>> copy_rest();
  Task<Result<>> pivot();
  [[nodiscard]] uint64_t piece_bytes() const;
  [[nodiscard]] bool shall_end() const { return complete_asked() || soft_cancelled(); }
  void show_progress() { progress(done(), done() + dirty_.bytes()); }

  Task<void> after(uint64_t offset, uint64_t bytes, IoSlice data) override;
  [[nodiscard]] bool follows() const override { return request_.follow_writes; }

  MirrorRequest request_;
  std::shared_ptr<JobFilter> filter_;
  NodeUse target_;
  bool target_was_read_only_ = false;
  bool aside_ = false;    // guests do not go through the filter any more
  bool pivoted_ = false;  // but to the target
  DirtyChunks dirty_;
  uint64_t next_ = 0;  // where copying goes on
  std::optional<IoError> follow_error_;
  AlignedBuffer memory_;
};

}  // namespace kite::block

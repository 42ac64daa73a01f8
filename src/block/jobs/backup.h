// BackupJob: a second image gets what a disk in use was at one moment: when the job was made (blockdev-backup,
// drive-backup). Guests write on: before something is overwritten that was not copied yet, it is copied, and the write
// waits for that.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "block/dirty_chunks.h"
#include "block/jobs/copy.h"
#include "block/jobs/job.h"
#include "block/jobs/job_filter.h"

namespace kite::block {

struct BackupRequest {
  enum class Sync : uint8_t {
    kFull,
    kTop,     // what the image itself has, not its backing file
    kNone,    // only what guests overwrite
    kBitmap,  // what the bitmap has
  };
  // When the bitmap is what changed since the job was made, and no more what it was.
  enum class BitmapMode : uint8_t {
    kOnSuccess,
    kNever,   // it keeps what it has, and gets what changes
    kAlways,  // after a failure it has what was not copied, too
  };
  JobOptions job{};
  NodePtr source = nullptr, target = nullptr;
  Sync sync = Sync::kFull;
  BitmapPtr bitmap = nullptr;  // of the source, or of the image that a filter shows
  BitmapMode bitmap_mode = BitmapMode::kOnSuccess;
  bool compress = false;
  std::string filter_name{};
};

class BackupJob final : public Job, private WriteWatcher {
 public:
  // Checks, and puts the job's filter in its place: nobody has requests under way. What is copied is the disk of then,
  // whenever the job begins.
  static Task<Result<std::shared_ptr<Job>>> create(BlockGraph& graph, const JobTable& table, BackupRequest request);

 protected:
  Task<Result<>> work() override;
  Task<Result<>> finish() override;
  Task<void> abandon() override;
  Task<void> clean_up() override;

 private:
  BackupJob(BlockGraph& graph, BackupRequest request, uint64_t chunk);
  Task<Result<>> set_up();
  // What of the bytes is still to be copied; two that overlap take turns.
  Task<CopyResult> save(uint64_t from, uint64_t to, const AlignedBuffer& memory);
  Task<CopyResult> save_run(DirtyChunks::Run run, const AlignedBuffer& memory);
  Task<CopyResult> save_compressed(DirtyChunks::Run run, const AlignedBuffer& memory);
  Task<Result<>> settle_failure();
  Task<Result<>> copy_all();
  Task<Result<>> flush_target();
  Task<void> step_aside(Result<>& done);
  void settle_bitmap(bool good);
  [[nodiscard]] uint64_t piece_bytes() const;
  void show_progress() { progress(done(), done() + todo_.bytes()); }

  Task<IoResult<>> before(uint64_t offset, uint64_t bytes) override;
  Task<void> after(uint64_t, uint64_t, IoSlice) override { co_return; }

  BackupRequest request_;
  std::shared_ptr<JobFilter> filter_;
  NodeUse target_;
  bool has_bitmap_ = false;  // the bitmap is ours until the job ends
  bool leaves_ = false;      // the filter is about to step aside
  bool aside_ = false;       // guests do not go through the filter any more
  DirtyChunks todo_;         // what is not in the target yet
  uint64_t next_ = 0;        // where copying goes on
  WriteTurns copies_;
  std::shared_ptr<WriteTurns> target_reads_;  // of a target that shows the source where it has nothing itself
  std::optional<CopyFailure> failure_;        // of a copy that a guest's write asked for
  bool lost_ = false;                         // something is overwritten that was not copied: the job fails
};

}  // namespace kite::block

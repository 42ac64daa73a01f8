#include "block/jobs/backup.h"

#include "block/jobs/job_bench.h"

namespace kite::block {
namespace {

using Sync = BackupRequest::Sync;

class BackupTest : public JobBench {
 protected:
  std::shared_ptr<Job> backup(const NodePtr& target, Sync sync = Sync::kFull, JobOptions options = {.id = "j"},
                              bool compress = false) {
    return begin(BackupJob::create(
        *graph_, jobs_,
        {.job = std::move(options), .source = drive_->node(), .target = target, .sync = sync, .compress = compress}));
  }
  // A new bitmap of the drive's image.
  BitmapPtr bitmap(uint64_t granularity = 65536) {
    auto made = std::make_shared<DirtyBitmap>("b", kBytes, granularity);
    drive_->node()->bitmaps().add(made);
    return made;
  }
  std::shared_ptr<Job> backup_of(const BitmapPtr& bitmap, BackupRequest::BitmapMode mode, const NodePtr& target,
                                 Sync sync = Sync::kBitmap, JobOptions options = {.id = "j"}) {
    return begin(BackupJob::create(*graph_, jobs_,
                                   {.job = std::move(options),
                                    .source = drive_->node(),
                                    .target = target,
                                    .sync = sync,
                                    .bitmap = bitmap,
                                    .bitmap_mode = mode}));
  }
  void ends(const std::shared_ptr<Job>& job, const std::string& error = "") {
    spin([&] { return job->status() == JobStatus::kNull; });
    EXPECT_EQ(job->report().error, error);
  }
  // A target whose disk refuses requests as the rules say.
  NodePtr broken_target(const std::vector<std::pair<std::string, std::string>>& rules) {
    image("target");
    EXPECT_TRUE(run(graph_->remove("target")));
    break_disk("bad", "target-disk", rules);
    return open("t2", "bad", "", false);
  }
  IoResult<> try_write(uint64_t offset, uint64_t bytes, uint8_t value) {
    const std::vector<uint8_t> data(bytes, value);
    return run(drive_->write(offset, IoSlice::of_const(data.data(), data.size())));
  }
  // The work of a guest that is not waited for.
  Task<void> write_later(uint64_t offset, uint64_t bytes, uint8_t value, bool* done) {
    const std::vector<uint8_t> data(bytes, value);
    EXPECT_TRUE(co_await drive_->write(offset, IoSlice::of_const(data.data(), data.size())));
    *done = true;
  }
  Task<void> withdraw(std::shared_ptr<Job> job) { co_await jobs_.withdraw(std::move(job)); }
};

TEST_F(BackupTest, TheCopyIsTheDiskOfTheStart) {
  for (const bool compress : {false, true}) {
    const std::string suffix = compress ? "c" : "p";
    std::ranges::fill(model_, 0);
    const NodePtr source = image("source" + suffix);
    attach(source);
    write(0, 1 << 20, 7);
    write((3 << 20) + 512, 4096, 9);
    const NodePtr target = image("target" + suffix);
    const std::vector<uint8_t> start = model_;
    guest_stops_ = false;
    const auto job = backup(target, Sync::kFull, {.id = "j"}, compress);
    ASSERT_NE(job, nullptr) << error_;
    TaskScope scope;
    scope.spawn(guest(compress ? 3 : 4, 100'000));
    ends(job);
    guest_stops_ = true;
    spin([&] { return scope.idle(); });
    EXPECT_EQ(content(*target), start);
    EXPECT_EQ(content(), model_);
    EXPECT_EQ(drive_->node(), source);
    EXPECT_EQ(count(JobEvent::Kind::kCompleted), compress ? 2u : 1u);
    EXPECT_EQ(count(JobEvent::Kind::kReady), 0u);
    ASSERT_TRUE(run(drive_->close()));
    drive_.reset();
  }
}

// However little of it the job has copied by itself.
TEST_F(BackupTest, WhatGuestsOverwriteIsCopiedFirst) {
  attach(image("source"));
  write(0, kBytes, 1);
  const NodePtr target = image("target");
  const std::vector<uint8_t> start = model_;
  const auto job = backup(target, Sync::kFull, {.id = "j", .speed = 1});
  ASSERT_NE(job, nullptr) << error_;
  write((2 << 20) + 512, 512, 2);
  ASSERT_TRUE(run(drive_->discard(3 << 20, 1 << 16)));
  ASSERT_TRUE(run(drive_->write_zeroes((3 << 20) + (1 << 17), 4096)));
  std::vector<uint8_t> piece(1 << 16);
  for (const uint64_t at : {2u << 20, 3u << 20, (3u << 20) + (1u << 17)}) {
    ASSERT_TRUE(run(target->read(at, IoSlice(piece))));
    EXPECT_EQ(piece, std::vector<uint8_t>(1 << 16, 1)) << at;
  }
  ASSERT_TRUE(job->pause());
  write(0, kBytes, 3);  // a job that stands still keeps its moment, too
  ASSERT_TRUE(job->resume());
  ASSERT_TRUE(job->set_speed(0));
  ends(job);
  EXPECT_EQ(content(*target), start);
}

TEST_F(BackupTest, OfTheTopImageAlone) {
  const NodePtr base = image("base");
  attach(base);
  write(0, kBytes, 1);
  ASSERT_TRUE(run(drive_->close()));
  drive_.reset();
  attach(image("top", "base"));
  write((1 << 20) + 4096, 512, 2);
  const NodePtr target = image("target");
  const auto job = backup(target, Sync::kTop);
  ASSERT_NE(job, nullptr) << error_;
  write(2 << 20, 512, 3);  // the top image did not have it then
  write(1 << 20, 512, 4);
  ends(job);
  std::vector<uint8_t> expected(kBytes);
  std::fill_n(expected.begin() + (1 << 20), 1 << 16, 1);
  std::fill_n(expected.begin() + (1 << 20) + 4096, 512, 2);
  EXPECT_EQ(content(*target), expected);
}

TEST_F(BackupTest, OfNothingButWhatIsOverwritten) {
  attach(image("source"));
  write(0, kBytes, 1);
  const NodePtr target = image("target");
  const auto job = backup(target, Sync::kNone);
  ASSERT_NE(job, nullptr) << error_;
  write(1 << 20, 512, 2);
  until(job, JobStatus::kRunning);
  EXPECT_FALSE(job->complete());
  ASSERT_TRUE(job->cancel(false));
  spin([&] { return job->status() == JobStatus::kNull; });
  EXPECT_EQ(count(JobEvent::Kind::kCancelled), 1u);
  std::vector<uint8_t> expected(kBytes);
  std::fill_n(expected.begin() + (1 << 20), 1 << 16, 1);
  EXPECT_EQ(content(*target), expected);
  EXPECT_EQ(content(), model_);
}

TEST_F(BackupTest, CancelledWhileAWriteWaits) {
  const NodePtr source = image("source");
  attach(source);
  write(0, kBytes, 1);
  const auto job = backup(image("target"), Sync::kFull, {.id = "j", .speed = 1});
  ASSERT_NE(job, nullptr) << error_;
  bool done = false;
  TaskScope scope;
  scope.spawn(write_later(2 << 20, 1 << 20, 5, &done));
  EXPECT_FALSE(done);
  ASSERT_TRUE(job->cancel(true));
  spin([&] { return job->status() == JobStatus::kNull; });
  spin([&] { return scope.idle(); });
  EXPECT_TRUE(done);
  std::fill_n(model_.begin() + (2 << 20), 1 << 20, 5);
  EXPECT_EQ(content(), model_);
  EXPECT_EQ(drive_->node(), source);
  EXPECT_EQ(source->user_count(), 1u);
}

TEST_F(BackupTest, ATargetThatFailsEndsTheJobAndNotTheGuest) {
  closes_badly_ = true;
  attach(image("source"));
  write(0, kBytes, 1);
  const NodePtr target = broken_target({{"event", "write_aio"}, {"iotype", "write"}});
  const auto job = backup(target, Sync::kNone);
  ASSERT_NE(job, nullptr) << error_;
  write(1 << 20, 512, 2);
  ends(job, "Input/output error");
  EXPECT_EQ(count(JobEvent::Kind::kError), 1u);
  EXPECT_EQ(count(JobEvent::Kind::kCompleted), 1u);
  write(2 << 20, 512, 2);
  EXPECT_EQ(content(), model_);
}

TEST_F(BackupTest, ATargetThatIsFullStopsTheJob) {
  attach(image("source"));
  write(0, kBytes, 1);
  const std::vector<uint8_t> start = model_;
  const NodePtr target = broken_target({{"event", "write_aio"}, {"iotype", "write"}, {"errno", "28"}, {"once", "on"}});
  const auto job = backup(target, Sync::kFull, {.id = "j", .on_target_error = OnError::kEnospc});
  ASSERT_NE(job, nullptr) << error_;
  until(job, JobStatus::kPaused);
  EXPECT_TRUE(job->report().no_space);
  write(1 << 20, 512, 2);  // there is room again
  ASSERT_TRUE(job->resume());
  ends(job);
  EXPECT_EQ(content(*target), start);
  EXPECT_EQ(content(), model_);
}

TEST_F(BackupTest, ATargetThatIsFullRefusesTheWriteThatNeedsIt) {
  attach(image("source"));
  write(0, kBytes, 1);
  const NodePtr target = broken_target({{"event", "write_aio"}, {"iotype", "write"}, {"errno", "28"}, {"once", "on"}});
  const auto job = backup(target, Sync::kNone, {.id = "j", .on_target_error = OnError::kEnospc});
  ASSERT_NE(job, nullptr) << error_;
  drive_->set_error_policy(OnError::kReport, OnError::kReport);
  const auto refused = try_write(1 << 20, 512, 2);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ENOSPC);
  EXPECT_EQ(content(), model_);
  until(job, JobStatus::kPaused);
  EXPECT_EQ(count(JobEvent::Kind::kError), 1u);
  ASSERT_TRUE(job->resume());
  write(1 << 20, 512, 2);
  std::vector<uint8_t> piece(1 << 16);
  ASSERT_TRUE(run(target->read(1 << 20, IoSlice(piece))));
  EXPECT_EQ(piece, std::vector<uint8_t>(1 << 16, 1));
  EXPECT_EQ(count(JobEvent::Kind::kError), 1u);
}

TEST_F(BackupTest, ASourceThatCannotBeReadEndsTheJob) {
  const NodePtr bare = image("source");
  attach(bare);
  write(0, 2 << 20, 1);
  ASSERT_TRUE(run(drive_->close()));
  drive_.reset();
  ASSERT_TRUE(run(graph_->remove("source")));
  break_disk("bad", "source-disk", {{"event", "read_aio"}, {"iotype", "read"}, {"once", "on"}});
  attach(open("s2", "bad", "", false));
  const auto job = backup(image("target"));
  ASSERT_NE(job, nullptr) << error_;
  ends(job, "Input/output error");
  EXPECT_EQ(content(), model_);
}

TEST_F(BackupTest, AJobThatWaitsToBeFinalized) {
  attach(image("source"));
  write(0, 1 << 20, 1);
  const NodePtr target = image("target");
  const std::vector<uint8_t> start = model_;
  const auto job = backup(target, Sync::kFull, {.id = "j", .auto_finalize = false, .auto_dismiss = false});
  ASSERT_NE(job, nullptr) << error_;
  until(job, JobStatus::kPending);
  write(0, 4096, 2);
  ASSERT_TRUE(job->finalize());
  until(job, JobStatus::kConcluded);
  EXPECT_EQ(content(*target), start);
  EXPECT_EQ(job->report().done, kBytes);
  ASSERT_TRUE(jobs_.dismiss("j"));
}

TEST_F(BackupTest, AJobThatDoesNotBeginLeavesNothing) {
  const NodePtr source = image("source");
  attach(source);
  const NodePtr target = image("target");
  const BitmapPtr dirty = bitmap(512);
  write(0, 512, 1);
  auto made = run(BackupJob::create(*graph_, jobs_,
                                    {.job = {.id = "j"},
                                     .source = source,
                                     .target = target,
                                     .bitmap = dirty,
                                     .bitmap_mode = BackupRequest::BitmapMode::kAlways}));
  ASSERT_TRUE(made) << made.error().message;
  jobs_.reserve(*made);
  EXPECT_EQ(backup(image("other"), Sync::kFull, {.id = "j"}), nullptr);
  EXPECT_NE(error_.find("already in use"), std::string::npos) << error_;
  EXPECT_FALSE(jobs_.may_change(*source));
  run(withdraw(*made));
  EXPECT_TRUE(jobs_.may_change(*source));
  EXPECT_EQ(drive_->node(), source);
  EXPECT_EQ(target->user_count(), 0u);
  EXPECT_TRUE(events_.empty());
  EXPECT_EQ(dirty->chunks().bytes(), 512u);
}

TEST_F(BackupTest, NobodyWritesPastIt) {
  const NodePtr source = image("source");
  attach(source);
  ASSERT_TRUE(drive_->set_share_write(true));
  const auto job = backup(image("target"), Sync::kNone);
  ASSERT_NE(job, nullptr) << error_;
  const DriveConfig other{.id = "other", .share_write = true};
  EXPECT_FALSE(Drive::create(*executor_, other, source));
  ASSERT_TRUE(job->cancel(true));
  spin([&] { return job->status() == JobStatus::kNull; });
  auto made = Drive::create(*executor_, other, source);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_TRUE(run((*made)->close()));
}

TEST_F(BackupTest, WhatIsRefused) {
  const NodePtr source = image("source");
  attach(source);
  EXPECT_EQ(backup(source), nullptr);
  EXPECT_NE(error_.find("cannot be the same"), std::string::npos) << error_;
  const NodePtr small = std::make_shared<MemoryNode>(*executor_, NodeConfig{.name = "small"}, kBytes / 2);
  ASSERT_TRUE(graph_->adopt(small));
  EXPECT_EQ(backup(small), nullptr);
  EXPECT_NE(error_.find("different sizes"), std::string::npos) << error_;
  const NodePtr plain = std::make_shared<MemoryNode>(*executor_, NodeConfig{.name = "plain"}, kBytes);
  ASSERT_TRUE(graph_->adopt(plain));
  EXPECT_EQ(backup(plain, Sync::kFull, {.id = "j"}, true), nullptr);
  EXPECT_NE(error_.find("Compression is not supported"), std::string::npos) << error_;
  EXPECT_EQ(plain->user_count(), 0u);
}

TEST_F(BackupTest, WhatABitmapHas) {
  using Mode = BackupRequest::BitmapMode;
  const NodePtr source = image("source");
  attach(source);
  write(0, kBytes, 1);
  const BitmapPtr dirty = bitmap(4096);
  write(1 << 20, 512, 2);
  ASSERT_TRUE(run(drive_->write_zeroes((2 << 20) + 4096, 4096)));
  std::fill_n(model_.begin() + (2 << 20) + 4096, 4096, 0);
  ASSERT_TRUE(run(drive_->discard(3 << 20, 65536)));
  EXPECT_EQ(dirty->chunks().bytes(), 4096u + 4096u + 65536u);
  std::vector<uint8_t> expected(kBytes);
  for (const size_t at : {1u << 20, 2u << 20})
    std::copy_n(model_.begin() + static_cast<std::ptrdiff_t>(at), 65536,
                expected.begin() + static_cast<std::ptrdiff_t>(at));
  for (const Mode mode : {Mode::kNever, Mode::kOnSuccess}) {
    const bool keeps = mode == Mode::kNever;
    const NodePtr target = image(keeps ? "t1" : "t2");
    const auto job = backup_of(dirty, mode, target);
    ASSERT_NE(job, nullptr) << error_;
    EXPECT_TRUE(dirty->busy());
    EXPECT_FALSE(dirty->may(DirtyBitmap::Need::kRead));
    write(2 << 20, 512, static_cast<uint8_t>(keeps ? 3 : 4));
    ends(job);
    EXPECT_FALSE(dirty->busy());
    EXPECT_EQ(content(*target), expected);
    EXPECT_EQ(dirty->chunks().bytes(), keeps ? 4096u * 3 + 65536u : 4096u);
    if (keeps) std::fill_n(expected.begin() + (2 << 20), 512, 3);
  }
}

TEST_F(BackupTest, WhatABitmapHasAfterAFailure) {
  using Mode = BackupRequest::BitmapMode;
  attach(image("source"));
  write(0, kBytes, 1);
  const BitmapPtr dirty = bitmap();
  for (const Mode mode : {Mode::kOnSuccess, Mode::kAlways, Mode::kNever}) {
    const std::string name = "t" + std::to_string(static_cast<int>(mode));
    dirty->set_chunks(DirtyChunks(kBytes, 65536));
    write(1 << 20, 2 << 16, 2);
    const auto job = backup_of(dirty, mode, image(name), Sync::kBitmap, {.id = "j", .speed = 1});
    ASSERT_NE(job, nullptr) << error_;
    write(1 << 20, 512, 3);  // copied now
    write(3 << 20, 512, 3);
    ASSERT_TRUE(job->cancel(true));
    spin([&] { return job->status() == JobStatus::kNull; });
    EXPECT_TRUE(dirty->chunks().test(16) && dirty->chunks().test(48)) << name;
    EXPECT_FALSE(dirty->busy());
  }
  // A full copy that ended well makes it what has changed since.
  const auto job = backup_of(dirty, Mode::kOnSuccess, image("all"), Sync::kFull);
  ASSERT_NE(job, nullptr) << error_;
  write(2 << 20, 512, 4);
  ends(job);
  EXPECT_EQ(dirty->chunks().bytes(), 65536u);
}

}  // namespace
}  // namespace kite::block

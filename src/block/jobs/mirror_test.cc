#include "block/jobs/mirror.h"

#include "block/jobs/job_bench.h"

namespace kite::block {
namespace {

class MirrorTest : public JobBench {
 protected:
  std::shared_ptr<Job> mirror(const NodePtr& target, bool follow = false, JobOptions options = {.id = "j"}) {
    return begin(MirrorJob::create(
        *graph_, jobs_,
        {.job = std::move(options), .source = drive_->node(), .target = target, .follow_writes = follow}));
  }
  std::shared_ptr<Job> commit(const NodePtr& base, JobOptions options = {.id = "j"}) {
    return begin(MirrorJob::create(
        *graph_, jobs_, {.job = std::move(options), .source = drive_->node(), .target = base, .commits = true}));
  }
  // A guest writes from before the job begins until it is over; then the disk, and what `copy` holds, are what it
  // wrote.
  void under_load(const std::shared_ptr<Job>& job, bool pivot, TaskScope& scope) {
    until(job, JobStatus::kReady);
    const Result<> asked = pivot ? job->complete() : job->cancel(false);
    ASSERT_TRUE(asked) << asked.error().message;
    spin([&] { return job->status() == JobStatus::kNull; });
    EXPECT_EQ(job->report().error, "");
    if (!pivot) return;
    guest_stops_ = true;
    spin([&] { return scope.idle(); });
  }
};

TEST_F(MirrorTest, TheCopyTakesTheDisksPlace) {
  for (const bool follow : {false, true}) {
    const std::string suffix = follow ? "f" : "b";
    std::ranges::fill(model_, 0);
    attach(image("source" + suffix));
    write(0, 1 << 20, 7);
    write(3 << 20, 4096, 9);
    const NodePtr target = image("target" + suffix);
    TaskScope scope;
    guest_stops_ = false;
    scope.spawn(guest(1, 100'000));
    const auto job = mirror(target, follow);
    ASSERT_NE(job, nullptr) << error_;
    under_load(job, true, scope);
    EXPECT_EQ(drive_->node(), target);
    EXPECT_EQ(content(), model_);
    EXPECT_EQ(count(JobEvent::Kind::kReady), follow ? 2u : 1u);
    EXPECT_EQ(count(JobEvent::Kind::kCompleted), follow ? 2u : 1u);
    ASSERT_TRUE(run(drive_->close()));
    drive_.reset();
  }
}

TEST_F(MirrorTest, ACancelledCopyThatWasReadyIsOfOneMoment) {
  const NodePtr source = image("source");
  attach(source);
  write(1 << 20, 1 << 20, 3);
  const NodePtr target = image("target");
  const auto job = mirror(target);
  ASSERT_NE(job, nullptr) << error_;
  until(job, JobStatus::kReady);
  write(5 * kSector, 3 * kSector, 4);
  ASSERT_TRUE(job->cancel(false));
  spin([&] { return job->status() == JobStatus::kNull; });
  EXPECT_EQ(count(JobEvent::Kind::kCompleted), 1u);
  EXPECT_EQ(content(*target), model_);
  EXPECT_EQ(drive_->node(), source);
  write(0, kSector, 5);
  EXPECT_NE(content(*target), model_);
}

TEST_F(MirrorTest, CancellingBeforeItIsReadyChangesNothing) {
  const NodePtr source = image("source");
  attach(source);
  write(0, kBytes, 3);
  const auto job = mirror(image("target"), false, {.id = "j", .speed = 1});
  ASSERT_NE(job, nullptr) << error_;
  ASSERT_TRUE(job->cancel(false));
  spin([&] { return job->status() == JobStatus::kNull; });
  EXPECT_EQ(count(JobEvent::Kind::kCancelled), 1u);
  EXPECT_EQ(drive_->node(), source);
  EXPECT_EQ(content(), model_);
}

TEST_F(MirrorTest, TheActiveImageIsCommitted) {
  const NodePtr base = image("base", "", true);
  const NodePtr middle = image("middle", "base");
  const NodePtr top = image("top", "middle");
  attach(top);
  write(0, 1 << 20, 1);
  TaskScope scope;
  scope.spawn(guest(2, 100'000));
  const auto job = commit(base);
  ASSERT_NE(job, nullptr) << error_;
  EXPECT_FALSE(base->read_only());
  under_load(job, true, scope);
  EXPECT_EQ(drive_->node(), base);
  EXPECT_EQ(content(*base), model_);
  EXPECT_EQ(events_.back().job.type, JobType::kCommit);
}

TEST_F(MirrorTest, ACancelledCommitLeavesTheChain) {
  const NodePtr base = image("base", "", true);
  const NodePtr top = image("top", "base");
  attach(top);
  write(0, 1 << 20, 1);
  const auto job = commit(base);
  ASSERT_NE(job, nullptr) << error_;
  until(job, JobStatus::kReady);
  ASSERT_TRUE(job->cancel(true));
  spin([&] { return job->status() == JobStatus::kNull; });
  EXPECT_EQ(drive_->node(), top);
  EXPECT_TRUE(base->read_only());
  EXPECT_EQ(content(), model_);
  write(1 << 20, 4096, 8);
  EXPECT_EQ(content(), model_);
}

// Whatever request fails, the guest's disk is what it was.
TEST_F(MirrorTest, ACopyThatFailsLeavesTheDisk) {
  for (const char* kind : {"read", "write", "write-zeroes", "flush"}) {
    SCOPED_TRACE(kind);
    const std::string name = kind;
    std::ranges::fill(model_, 0);
    const bool reads = name == "read";
    const NodePtr source = image("s-" + name);
    attach(source);
    write(0, 2 << 20, 1);
    const NodePtr whole = image("t-" + name);
    if (!reads) {
      ASSERT_TRUE(run(graph_->remove("t-" + name)));
      break_disk("bad-" + name, "t-" + name + "-disk",
                 {{"event", "none"}, {"iotype", kind}, {"errno", "28"}, {"once", "on"}});
    } else {
      ASSERT_TRUE(run(drive_->close()));
      ASSERT_TRUE(run(graph_->remove("s-" + name)));
      break_disk("bad-" + name, "s-" + name + "-disk", {{"event", "read_aio"}, {"iotype", "read"}, {"once", "on"}});
      drive_.reset();
      attach(open("s2-" + name, "bad-" + name, "", false));
    }
    const NodePtr target = reads ? whole : open("t2-" + name, "bad-" + name, "", false);
    const auto job = mirror(target);
    ASSERT_NE(job, nullptr) << error_;
    spin([&] { return job->status() == JobStatus::kNull || job->status() == JobStatus::kReady; });
    if (job->status() == JobStatus::kReady) {  // this kind of request was not made
      EXPECT_EQ(name, "write-zeroes");
      ASSERT_TRUE(job->cancel(true));
      spin([&] { return job->status() == JobStatus::kNull; });
    } else {
      EXPECT_NE(job->report().error, "");
      EXPECT_EQ(events_.end()[-3].kind, JobEvent::Kind::kCompleted);
    }
    EXPECT_EQ(content(), model_);
    write(3 << 20, 4096, 6);
    EXPECT_EQ(content(), model_);
    ASSERT_TRUE(run(drive_->close()));
    drive_.reset();
  }
}

TEST_F(MirrorTest, AJobThatStopsAtAFullDiskGoesOn) {
  attach(image("source"));
  write(0, 2 << 20, 1);
  image("target");
  ASSERT_TRUE(run(graph_->remove("target")));
  break_disk("full", "target-disk", {{"event", "none"}, {"iotype", "write"}, {"errno", "28"}, {"once", "on"}});
  const NodePtr target = open("t2", "full", "", false);
  const auto job = mirror(target, false, {.id = "j", .on_target_error = OnError::kEnospc});
  ASSERT_NE(job, nullptr) << error_;
  until(job, JobStatus::kPaused);
  EXPECT_TRUE(job->report().no_space);
  ASSERT_EQ(count(JobEvent::Kind::kError), 1u);
  ASSERT_TRUE(job->resume());
  spin([&] { return job->status() == JobStatus::kReady; });
  ASSERT_TRUE(job->complete());
  spin([&] { return job->status() == JobStatus::kNull; });
  EXPECT_EQ(content(*target), model_);
}

// What a guest was told is written is on the disk, though its copy could not be.
TEST_F(MirrorTest, AFollowedWriteThatTheTargetRefusesIsNotLost) {
  closes_badly_ = true;
  const NodePtr source = image("source");
  attach(source);
  image("target");
  ASSERT_TRUE(run(graph_->remove("target")));
  break_disk("bad", "target-disk", {{"event", "write_aio"}, {"iotype", "write"}});
  const auto job = mirror(open("t2", "bad", "", false), true);
  ASSERT_NE(job, nullptr) << error_;
  until(job, JobStatus::kReady);
  write(0, kSector, 5);
  spin([&] { return job->status() == JobStatus::kNull; });
  EXPECT_EQ(job->report().error, "Input/output error");
  EXPECT_EQ(drive_->node(), source);
  EXPECT_EQ(content(), model_);
}

TEST_F(MirrorTest, WhatAJobNeedsNobodyElseChanges) {
  const NodePtr source = image("source");
  attach(source);
  const NodePtr target = image("target");
  const auto job = mirror(target);
  ASSERT_NE(job, nullptr) << error_;
  EXPECT_EQ(mirror(image("other"), false, {.id = "k"}), nullptr);
  EXPECT_NE(error_.find("in use by block job: mirror"), std::string::npos) << error_;
  EXPECT_FALSE(jobs_.may_change(*source));
  EXPECT_FALSE(run(graph_->remove("target")));
  EXPECT_EQ(begin(MirrorJob::create(*graph_, jobs_, {.job = {.id = "j"}, .source = target, .target = source})),
            nullptr);
  EXPECT_NE(error_.find("already in use"), std::string::npos) << error_;
}

TEST_F(MirrorTest, TargetsOfAnotherSizeAreRefused) {
  attach(image("source"));
  const NodePtr small = std::make_shared<MemoryNode>(*executor_, NodeConfig{.name = "small"}, kBytes / 2);
  ASSERT_TRUE(graph_->adopt(small));
  EXPECT_EQ(mirror(small), nullptr);
  EXPECT_NE(error_.find("different sizes"), std::string::npos) << error_;
  EXPECT_EQ(small->user_count(), 0u);
}

TEST_F(MirrorTest, StatesTakeTheVerbsThatTheyTake) {
  attach(image("source"));
  write(0, kBytes, 1);
  const auto job =
      mirror(image("target"), false, {.id = "j", .speed = 1, .auto_finalize = false, .auto_dismiss = false});
  ASSERT_NE(job, nullptr) << error_;
  EXPECT_FALSE(job->complete());
  EXPECT_FALSE(job->resume());
  ASSERT_TRUE(job->pause());
  EXPECT_FALSE(job->pause());
  until(job, JobStatus::kPaused);
  ASSERT_TRUE(job->set_speed(0));
  ASSERT_TRUE(job->resume());
  spin([&] { return job->status() == JobStatus::kReady; });
  EXPECT_FALSE(job->finalize());
  ASSERT_TRUE(job->complete());
  until(job, JobStatus::kPending);
  EXPECT_EQ(count(JobEvent::Kind::kPending), 1u);
  write(0, kSector, 9);  // still goes to both
  ASSERT_TRUE(job->finalize());
  until(job, JobStatus::kConcluded);
  EXPECT_FALSE(job->cancel(true));
  EXPECT_EQ(content(), model_);
  EXPECT_EQ(drive_->node()->name(), "target");
  ASSERT_TRUE(jobs_.dismiss("j"));
  EXPECT_EQ(jobs_.find("j"), nullptr);
}

TEST_F(MirrorTest, TheDeviceGoesAndTheJobEndsWell) {
  const NodePtr source = image("source");
  attach(source);
  write(0, kBytes, 1);
  const NodePtr target = image("target");
  const auto job = mirror(target);
  ASSERT_NE(job, nullptr) << error_;
  ASSERT_TRUE(run(drive_->close()));
  drive_.reset();
  until(job, JobStatus::kReady);
  ASSERT_TRUE(job->complete());
  spin([&] { return job->status() == JobStatus::kNull; });
  EXPECT_EQ(content(*target), model_);
  EXPECT_EQ(source->user_count(), 0u);
}

}  // namespace
}  // namespace kite::block

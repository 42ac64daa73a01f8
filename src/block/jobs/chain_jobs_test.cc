#include "block/jobs/chain_jobs.h"

#include "block/chain.h"
#include "block/jobs/create_job.h"
#include "block/jobs/job_bench.h"
#include "block/overlay.h"

namespace kite::block {
namespace {

class ChainJobsTest : public JobBench {
 protected:
  // Four images, each with something of its own; a drive has the uppermost.
  void make_chain() {
    NodePtr node;
    std::string below;
    for (const char* const name : {"a", "b", "c", "d"}) {
      node = below.empty() ? image(name) : image(name, below);
      ASSERT_NE(node, nullptr);
      attach(node);
      const auto index = static_cast<uint64_t>(name[0] - 'a');
      write(index << 18, 1 << 19, static_cast<uint8_t>(1 + index));
      write((2 << 20) + index * 70'000 / kSector * kSector, kSector, static_cast<uint8_t>(11 + index));
      ASSERT_TRUE(run(drive_->flush()));
      drive_ = nullptr_drive();
      ASSERT_TRUE(run(node->set_read_only(true)));
      below = name;
    }
    ASSERT_TRUE(run(node->set_read_only(false)));
    attach(node);
    EXPECT_EQ(content(), model_);
  }
  std::unique_ptr<Drive> nullptr_drive() {
    EXPECT_TRUE(run(drive_->close()));
    return nullptr;
  }
  NodePtr node(const std::string& name) { return graph_->find(name); }
  std::shared_ptr<Job> commit(const std::string& overlay, const std::string& top, const std::string& base) {
    return begin(CommitJob::create(
        *graph_, jobs_, {.job = {.id = "j"}, .overlay = node(overlay), .top = node(top), .base = node(base)}));
  }
  std::shared_ptr<Job> stream(const std::string& image, const std::string& base) {
    return begin(StreamJob::create(*graph_, jobs_,
                                   {.job = {.id = "j"},
                                    .image = node(image),
                                    .base = base.empty() ? nullptr : node(base),
                                    .backing_name = base.empty() ? std::nullopt : std::optional(base + ".qcow2")}));
  }
  void until_over(const std::shared_ptr<Job>& job) {
    spin([&] { return job->status() == JobStatus::kNull; });
  }
};

TEST_F(ChainJobsTest, ImagesBetweenAreCommitted) {
  make_chain();
  TaskScope scope;
  scope.spawn(guest(3, 300));
  const auto job = commit("d", "c", "a");
  ASSERT_NE(job, nullptr) << error_;
  until_over(job);
  spin([&] { return scope.idle(); });
  EXPECT_EQ(job->report().error, "");
  EXPECT_EQ(content(), model_);
  EXPECT_EQ(node("d")->backing(), node("a").get());
  EXPECT_EQ(backing_name(node("d")), "memory://");
  EXPECT_TRUE(node("a")->read_only());
  EXPECT_EQ(node("c")->user_count(), 0u);
}

TEST_F(ChainJobsTest, TheImageAboveNeedNotBeTheActiveOne) {
  make_chain();
  const auto job = commit("c", "b", "a");
  ASSERT_NE(job, nullptr) << error_;
  until_over(job);
  EXPECT_EQ(job->report().error, "");
  EXPECT_EQ(node("c")->backing(), node("a").get());
  EXPECT_EQ(node("d")->backing(), node("c").get());
  EXPECT_TRUE(node("c")->read_only());
  EXPECT_EQ(content(), model_);
}

TEST_F(ChainJobsTest, AStreamMakesAnImageStandAlone) {
  make_chain();
  TaskScope scope;
  scope.spawn(guest(4, 300));
  const auto job = stream("d", "");
  ASSERT_NE(job, nullptr) << error_;
  until_over(job);
  spin([&] { return scope.idle(); });
  EXPECT_EQ(job->report().error, "");
  EXPECT_EQ(node("d")->backing(), nullptr);
  EXPECT_EQ(backing_name(node("d")), "");
  EXPECT_EQ(content(), model_);
  EXPECT_EQ(node("c")->user_count(), 0u);
}

TEST_F(ChainJobsTest, AStreamStopsAtItsBase) {
  make_chain();
  const auto job = stream("d", "b");
  ASSERT_NE(job, nullptr) << error_;
  until_over(job);
  EXPECT_EQ(job->report().error, "");
  EXPECT_EQ(node("d")->backing(), node("b").get());
  EXPECT_EQ(backing_name(node("d")), "b.qcow2");
  EXPECT_EQ(content(), model_);
}

TEST_F(ChainJobsTest, AStreamIntoAnImageBetween) {
  make_chain();
  const auto job = stream("c", "a");
  ASSERT_NE(job, nullptr) << error_;
  until_over(job);
  EXPECT_EQ(job->report().error, "");
  EXPECT_EQ(node("c")->backing(), node("a").get());
  EXPECT_EQ(node("d")->backing(), node("c").get());
  EXPECT_TRUE(node("c")->read_only());
  EXPECT_EQ(content(), model_);
}

TEST_F(ChainJobsTest, CancelledJobsLeaveTheChain) {
  make_chain();
  for (const bool streams : {false, true}) {
    const auto job = streams ? stream("d", "") : commit("d", "c", "a");
    ASSERT_NE(job, nullptr) << error_;
    ASSERT_TRUE(job->set_speed(1));
    ASSERT_TRUE(job->cancel(true));
    until_over(job);
    EXPECT_EQ(node("d")->backing(), node("c").get());
    EXPECT_EQ(drive_->node(), node("d"));
    EXPECT_EQ(content(), model_);
  }
  EXPECT_EQ(count(JobEvent::Kind::kCancelled), 2u);
}

TEST_F(ChainJobsTest, WhatAnotherImageStandsOnIsNotCommittedTo) {
  make_chain();
  image("other", "b");
  EXPECT_EQ(commit("d", "c", "a"), nullptr);
  EXPECT_NE(error_.find("'b' is used by others"), std::string::npos) << error_;
  ASSERT_TRUE(run(graph_->remove("other")));
  const auto job = commit("d", "c", "a");
  ASSERT_NE(job, nullptr) << error_;
  until_over(job);
  EXPECT_EQ(content(), model_);
}

TEST_F(ChainJobsTest, ABaseMustBeBelow) {
  make_chain();
  EXPECT_EQ(stream("b", "c"), nullptr);
  EXPECT_NE(error_.find("not a backing image"), std::string::npos) << error_;
}

// Power goes at the Nth write or flush below the image that gets another backing file. What is in its file then is the
// disk, through the backing file that its header names.
TEST_F(ChainJobsTest, APowerCutLeavesAChain) {
  closes_badly_ = true;
  bool finished = false;
  for (uint64_t cut = 0; !finished; cut += 1 + cut / 16) {
    SCOPED_TRACE(cut);
    const std::string tag = std::to_string(cut);
    std::ranges::fill(model_, 0);
    attach(image("base" + tag));
    write(0, 1 << 20, 1);
    ASSERT_TRUE(run(drive_->close()));
    drive_.reset();
    const std::string top = "top" + tag;
    image(top, "base" + tag);
    ASSERT_TRUE(run(graph_->remove(top)));
    BlockOptions options;
    options.set("driver", "power-cut");
    options.set("node-name", "cut" + tag);
    options.set("file", top + "-disk");
    const auto opened = run(graph_->open(std::move(options)));
    ASSERT_TRUE(opened) << opened.error().message;
    const auto power = std::dynamic_pointer_cast<PowerCutNode>(*opened);
    attach(open(top + "x", "cut" + tag, "base" + tag, false));
    write(1 << 19, 1 << 19, 2);
    ASSERT_TRUE(run(drive_->flush()));
    power->set_trigger([cut, first = power->operations()](uint64_t at) { return at >= first + cut; });
    const auto job = stream(top + "x", "");
    ASSERT_NE(job, nullptr) << error_;
    until_over(job);
    finished = job->report().error.empty();
    std::mt19937 random(static_cast<unsigned>(cut));
    const auto file = std::dynamic_pointer_cast<MemoryNode>(graph_->find(top + "-disk"));
    power->settle(
        [&random] { return random() % 2 == 0; },
        [&file](uint64_t offset, const uint8_t* sector) { file->copy_in(offset, IoSlice::of_const(sector, kSector)); });
    (void)run(drive_->close());
    drive_.reset();
    // Whoever opens it next.
    const auto copy = disk("copy" + tag);
    std::vector<uint8_t> bytes(file->length());
    file->copy_out(0, IoSlice(bytes));
    ASSERT_TRUE(run(copy->write(0, IoSlice(bytes))));
    const NodePtr alone = open("alone" + tag, "copy" + tag + "-disk", "", true);
    ASSERT_NE(alone, nullptr);
    const std::string named = backing_name(alone);
    EXPECT_TRUE(named.empty() || named == "base" + tag + ".qcow2") << named;
    ASSERT_TRUE(std::dynamic_pointer_cast<FormatNode>(alone)->set_backing(named.empty() ? nullptr
                                                                                        : graph_->find("base" + tag)));
    ASSERT_EQ(content(*alone), model_);
    ASSERT_TRUE(run(graph_->remove("alone" + tag)));
  }
}

TEST_F(ChainJobsTest, OverlaysTakeWhatIsWritten) {
  const NodePtr base = image("base");
  attach(base);
  write(0, 1 << 20, 1);
  const std::vector<uint8_t> before = model_;
  const NodePtr overlay = image("overlay", "");
  ASSERT_TRUE(may_overlay(jobs_, {.node = base, .overlay = overlay}));
  const Result<> put = run(put_overlays({{.node = base, .overlay = overlay}}));
  ASSERT_TRUE(put) << put.error().message;
  write(1 << 19, 1 << 20, 2);
  EXPECT_EQ(drive_->node(), overlay);
  EXPECT_EQ(overlay->backing(), base.get());
  EXPECT_TRUE(base->read_only());
  EXPECT_EQ(content(), model_);
  EXPECT_EQ(content(*base), before);
  EXPECT_FALSE(may_overlay(jobs_, {.node = base, .overlay = overlay}));
}

TEST_F(ChainJobsTest, OfSeveralOverlaysAllComeOrNone) {
  const NodePtr first = image("first"), second = image("second");
  attach(first);
  auto other = Drive::create(*executor_, {.id = "e"}, second);
  ASSERT_TRUE(other);
  const NodePtr over_first = image("of"), over_second = image("os");
  {
    // Somebody who lets no others write stands on the second overlay.
    auto use = NodeUse::claim(over_second, "somebody", {.need = 0, .shared = Permissions::kConsistentRead});
    ASSERT_TRUE(use);
    EXPECT_FALSE(run(put_overlays({{.node = first, .overlay = over_first}, {.node = second, .overlay = over_second}})));
  }
  EXPECT_EQ(drive_->node(), first);
  EXPECT_EQ((*other)->node(), second);
  EXPECT_EQ(over_first->backing(), nullptr);
  EXPECT_EQ(over_second->backing(), nullptr);
  EXPECT_FALSE(first->read_only());
  write(0, 4096, 1);
  ASSERT_TRUE(run(put_overlays({{.node = first, .overlay = over_first}, {.node = second, .overlay = over_second}})));
  EXPECT_EQ((*other)->node(), over_second);
  EXPECT_EQ(content(), model_);
  ASSERT_TRUE(run((*other)->close()));
}

TEST_F(ChainJobsTest, CreateJobsMakeImages) {
  const auto file = disk("new");
  ASSERT_TRUE(run(file->write_zeroes(0, 12345)));
  const auto create = [&](const std::string& options) {
    auto job = std::make_shared<CreateJob>(*graph_, "c", *BlockOptions::parse(options));
    run(start(job));
    spin([&] { return job->status() == JobStatus::kConcluded; });
    EXPECT_TRUE(jobs_.dismiss("c"));
    return job->report().error;
  };
  EXPECT_EQ(create(R"({"driver":"qcow2","file":"new-disk","size":4194304,"cluster-size":4096,"version":"v3"})"), "");
  const NodePtr node = open("made", "new-disk", "", false);
  ASSERT_NE(node, nullptr);
  EXPECT_EQ(node->length(), kBytes);
  EXPECT_EQ(std::dynamic_pointer_cast<FormatNode>(node)->image_info().cluster_bytes, 4096u);
  EXPECT_NE(create(R"({"driver":"qcow2","file":"new-disk","size":1048576})").find("already in use"), std::string::npos);
  EXPECT_NE(create(R"({"driver":"qcow2","file":"none","size":1048576})").find("Cannot find"), std::string::npos);
  EXPECT_NE(create(R"({"driver":"vdi","file":"none","size":1})").find("does not support"), std::string::npos);
  disk("other");
  EXPECT_NE(create(R"({"driver":"qcow2","file":"other-disk","size":1,"clutser-size":1})").find("clutser-size"),
            std::string::npos);
}

}  // namespace
}  // namespace kite::block

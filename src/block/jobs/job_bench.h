// For tests of jobs: images in memory that stand on each other, a drive that a guest writes to, and what the disk
// should hold.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "block/drive.h"
#include "block/filters/filters.h"
#include "block/image.h"
#include "block/jobs/job.h"
#include "block/plain_nodes.h"

namespace kite::block {

class JobBench : public ::testing::Test {
 protected:
  static constexpr uint64_t kBytes = 4 << 20;
  static constexpr uint64_t kSector = 512;

  void TearDown() override {
    run(end());
    const Result<> closed = run(graph_->close_all());
    EXPECT_TRUE(closed || closes_badly_) << closed.error().message;
  }
  Task<void> end() {
    co_await jobs_.cancel_all();
    if (drive_ != nullptr) EXPECT_TRUE(co_await drive_->close());
  }
  template <class T>
  T run(Task<T> task) {
    return run_until_done(*executor_, std::move(task));
  }
  void run(Task<void> task) {
    TaskScope scope;
    scope.spawn(std::move(task));
    spin([&] { return scope.idle(); });
  }
  template <class Condition>
  void spin(Condition condition) {
    while (!condition()) executor_->run_once(Clock::kNever);
  }

  // A growable disk in memory, named NAME-disk.
  std::shared_ptr<MemoryNode> disk(const std::string& name) {
    auto node = std::make_shared<MemoryNode>(*executor_, NodeConfig{.name = name + "-disk"}, 0, true);
    EXPECT_TRUE(graph_->adopt(node));
    EXPECT_TRUE(graph_->add(node));
    return node;
  }
  // A new qcow2 image in it, over `backing`.
  NodePtr image(const std::string& name, const std::string& backing = "", bool read_only = false) {
    const auto file = disk(name);
    const Result<> made =
        run(find_image_format("qcow2")->create(*graph_, file,
                                               {.filename = "",
                                                .bytes = kBytes,
                                                .options = {},
                                                .backing_filename = backing.empty() ? "" : backing + ".qcow2",
                                                .backing_format = backing.empty() ? "" : "qcow2"}));
    EXPECT_TRUE(made) << made.error().message;
    return open(name, name + "-disk", backing, read_only);
  }
  NodePtr open(const std::string& name, const std::string& file, const std::string& backing, bool read_only) {
    BlockOptions options;
    options.set("driver", "qcow2");
    options.set("node-name", name);
    options.set("file", file);
    options.set("backing", backing);
    options.set("discard", "unmap");
    if (read_only) options.set("read-only", "on");
    auto node = run(graph_->open(std::move(options)));
    EXPECT_TRUE(node) << node.error().message;
    if (!node) return nullptr;
    EXPECT_TRUE(graph_->add(*node));
    return *node;
  }
  // What blkdebug does to requests of the node below.
  void break_disk(const std::string& name, const std::string& below,
                  const std::vector<std::pair<std::string, std::string>>& rules) {
    BlockOptions options;
    options.set("driver", "blkdebug");
    options.set("node-name", name);
    options.set("image", below);
    for (const auto& [key, value] : rules) options.set("inject-error.0." + key, value);
    auto node = run(graph_->open(std::move(options)));
    ASSERT_TRUE(node) << node.error().message;
    ASSERT_TRUE(graph_->add(*node));
  }
  void attach(const NodePtr& node) {
    auto made = Drive::create(*executor_, {.id = "d"}, node);
    ASSERT_TRUE(made) << made.error().message;
    drive_ = std::move(*made);
  }

  void write(uint64_t offset, uint64_t bytes, uint8_t value) {
    const std::vector<uint8_t> data(bytes, value);
    ASSERT_TRUE(run(drive_->write(offset, IoSlice::of_const(data.data(), data.size()))));
    std::fill_n(model_.begin() + static_cast<std::ptrdiff_t>(offset), bytes, value);
  }
  // A guest that writes here and there until it is told to stop; what the disk then holds is in model_.
  Task<void> guest(unsigned seed, unsigned most) {
    std::mt19937 random(seed);
    for (unsigned i = 0; i < most && !guest_stops_; ++i) {
      const uint64_t at = random() % (kBytes / kSector) * kSector;
      const uint64_t bytes = std::min<uint64_t>((1 + random() % 200) * kSector, kBytes - at);
      const auto value = static_cast<uint8_t>(random() % 5 == 0 ? 0 : 1 + random() % 255);
      const std::vector<uint8_t> data(bytes, value);
      const bool zeroes = value == 0 && random() % 2 == 0;
      const auto done = zeroes ? co_await drive_->write_zeroes(at, bytes, {.flags = IoHow::kMayUnmap})
                               : co_await drive_->write(at, IoSlice::of_const(data.data(), data.size()));
      EXPECT_TRUE(done);
      std::fill_n(model_.begin() + static_cast<std::ptrdiff_t>(at), bytes, value);
      co_await executor_->schedule();
    }
  }
  std::vector<uint8_t> content(BlockNode& node) {
    std::vector<uint8_t> bytes(kBytes);
    EXPECT_TRUE(run(node.read(0, IoSlice(bytes))));
    return bytes;
  }
  // Reads what guests read.
  std::vector<uint8_t> content() {
    std::vector<uint8_t> bytes(kBytes);
    EXPECT_TRUE(run(drive_->read(0, IoSlice(bytes))));
    return bytes;
  }
  // Begins a job; null, with the reason in error_, when it is refused.
  std::shared_ptr<Job> begin(Task<Result<std::shared_ptr<Job>>> making) {
    drive_->hold();
    run(drive_->drain());
    auto made = run(std::move(making));
    drive_->release();
    if (!made) {
      error_ = made.error().message;
      return nullptr;
    }
    run(start(*made));
    return *made;
  }
  Task<void> start(std::shared_ptr<Job> job) {
    jobs_.start(std::move(job));
    co_return;
  }
  void until(const std::shared_ptr<Job>& job, JobStatus status) {
    spin([&] { return job->status() >= status; });
    ASSERT_EQ(job->status(), status) << job->report().error;
  }
  [[nodiscard]] size_t count(JobEvent::Kind kind) const {
    return static_cast<size_t>(std::ranges::count(events_, kind, &JobEvent::kind));
  }
  static std::string backing_name(const NodePtr& node) {
    return std::dynamic_pointer_cast<FormatNode>(node)->image_info().backing_filename;
  }

  std::unique_ptr<Executor> executor_ = *Executor::create("test");
  std::unique_ptr<BlockGraph> graph_ = std::make_unique<BlockGraph>(*executor_);
  std::vector<JobEvent> events_;
  JobTable jobs_{[this](const JobEvent& event) { events_.push_back(event); }};
  std::unique_ptr<Drive> drive_;
  std::vector<uint8_t> model_ = std::vector<uint8_t>(kBytes);
  bool guest_stops_ = false;
  bool closes_badly_ = false;  // some images could not be closed
  std::string error_;
};

}  // namespace kite::block

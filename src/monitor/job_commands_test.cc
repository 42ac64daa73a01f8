#include "monitor/job_commands.h"

#include <unistd.h>

#include <cstdio>

#include "machine/drive_store.h"
#include "monitor/qmp_events.h"
#include "monitor/test_monitor.h"

namespace kite::monitor {
namespace {

// A machine with one image, in a file.
class JobCommands : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = machine::DriveStore::create();
    ASSERT_TRUE(store);
    drives_ = std::move(*store);
    monitor_ = std::make_unique<TestMonitor>(machine::MachineConfig{}, drives_.get());
    monitor_->machine->add_event_listener(
        [this](const machine::MachineEvent& event) { events_.push_back(event_json(event)); });
    make("base");
    ok("blockdev-add", {{"driver", "qcow2"}, {"node-name", "base"}, {"file", "base-file"}});
  }
  void TearDown() override {
    monitor_.reset();
    drives_.reset();
    for (const std::string& path : paths_) std::remove(path.c_str());
  }
  std::string path(const std::string& name) {
    return ::testing::TempDir() + "job_commands_test." + std::to_string(getpid()) + "." + name;
  }
  void ok(const std::string& command, const Json& arguments) {
    EXPECT_EQ(monitor_->answer(command, arguments), Json::object()) << command;
  }
  Json wait_for(const std::string& name) {
    while (true) {
      for (const Json& event : events_)
        if (event.at("event") == name) return event.at("data");
      monitor_->executor->run_once(Clock::kNever);
    }
  }
  void create(const Json& options) {
    events_.clear();
    ok("blockdev-create", {{"job-id", "make"}, {"options", options}});
    while (monitor_->answer("query-jobs").at(0).at("status") != "concluded") monitor_->executor->run_once(1'000'000);
    const Json job = monitor_->answer("query-jobs").at(0);
    EXPECT_FALSE(job.contains("error")) << job;
    ok("job-dismiss", {{"id", "make"}});
  }
  // A new qcow2 image in the node NAME-file.
  void make(const std::string& name) {
    paths_.push_back(path(name));
    create({{"driver", "file"}, {"filename", path(name)}, {"size", 0}});
    ok("blockdev-add", {{"driver", "file"}, {"node-name", name + "-file"}, {"filename", path(name)}});
    create({{"driver", "qcow2"}, {"file", name + "-file"}, {"size", 1 << 20}});
  }
  Json node(const std::string& name) const {
    return find_entry(monitor_->answer("query-named-block-nodes"), "node-name", name);
  }

  std::vector<std::string> paths_;
  std::vector<Json> events_;
  std::unique_ptr<machine::DriveStore> drives_;
  std::unique_ptr<TestMonitor> monitor_;
};

TEST_F(JobCommands, ASnapshotAndItsCommit) {
  paths_.push_back(path("over"));
  ok("blockdev-snapshot-sync",
     {{"node-name", "base"}, {"snapshot-file", path("over")}, {"snapshot-node-name", "over"}});
  EXPECT_TRUE(monitor_->ask("block-commit", {{"device", "over"}}).error().description.find("job ID") !=
              std::string::npos);
  EXPECT_TRUE(node("over").is_null());  // nobody uses it, so it did not stay
}

TEST_F(JobCommands, AnOverlayIsCommittedAndTheEventsSaySo) {
  make("over");
  ok("blockdev-add", {{"driver", "qcow2"}, {"node-name", "over"}, {"file", "over-file"}, {"backing", nullptr}});
  ok("blockdev-snapshot", {{"node", "base"}, {"overlay", "over"}});
  EXPECT_EQ(node("over").at("backing_file"), path("base"));
  EXPECT_EQ(node("over").at("image").at("backing-image").at("filename"), path("base"));
  ok("block-commit", {{"device", "over"}, {"job-id", "c"}, {"auto-dismiss", false}});
  EXPECT_EQ(wait_for("BLOCK_JOB_READY").at("device"), "c");
  const Json job = monitor_->answer("query-block-jobs").at(0);
  EXPECT_EQ(job.at("type"), "commit");
  EXPECT_EQ(job.at("status"), "ready");
  EXPECT_EQ(job.at("ready"), true);
  EXPECT_FALSE(monitor_->ask("blockdev-snapshot", {{"node", "over"}, {"overlay", "base"}}));
  EXPECT_FALSE(monitor_->ask("block_resize", {{"node-name", "base"}, {"size", 1 << 21}}));
  EXPECT_FALSE(monitor_->ask("blockdev-del", {{"node-name", "base"}}));
  EXPECT_FALSE(monitor_->ask("job-dismiss", {{"id", "c"}}));
  ok("block-job-complete", {{"device", "c"}});
  EXPECT_FALSE(wait_for("BLOCK_JOB_COMPLETED").contains("error"));
  while (monitor_->answer("query-jobs").at(0).at("status") != "concluded") monitor_->executor->run_once(1'000'000);
  EXPECT_NE(info_block_jobs(*monitor_->context, "").find("Type commit, device c"), std::string::npos);
  ok("job-dismiss", {{"id", "c"}});
  EXPECT_EQ(info_block_jobs(*monitor_->context, ""), "No active jobs\n");
  EXPECT_FALSE(node("over").contains("backing_file"));
}

TEST_F(JobCommands, WhatIsNotThere) {
  EXPECT_EQ(monitor_->ask("block-job-cancel", {{"device", "x"}}).error().error_class, "DeviceNotActive");
  EXPECT_EQ(monitor_->ask("job-cancel", {{"id", "x"}}).error().description, "Job not found");
  for (const char* const command : {"blockdev-backup", "drive-backup"})
    EXPECT_EQ(monitor_->ask(command, {{"device", "base"}}).error().error_class, "CommandNotFound") << command;
  const auto wrong = monitor_->ask(
      "blockdev-mirror", {{"device", "base"}, {"target", "base-file"}, {"sync", "incremental"}, {"job-id", "m"}});
  EXPECT_NE(wrong.error().description.find("incremental"), std::string::npos);
  const auto action = monitor_->ask("transaction", {{"actions", Json::array({{{"type", "blockdev-backup"}}})}});
  EXPECT_NE(action.error().description.find("blockdev-backup"), std::string::npos);
  const auto unknown = monitor_->ask(
      "transaction", {{"actions", Json::array({{{"type", "blockdev-snapshot"}, {"data", {{"nod", "base"}}}}})}});
  EXPECT_NE(unknown.error().description.find("'node' is missing"), std::string::npos);
}

}  // namespace
}  // namespace kite::monitor

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

TEST_F(JobCommands, ABackup) {
  make("copy");
  ok("blockdev-add", {{"driver", "qcow2"}, {"node-name", "copy"}, {"file", "copy-file"}});
  ok("blockdev-backup",
     {{"device", "base"}, {"target", "copy"}, {"job-id", "b"}, {"sync", "full"}, {"auto-finalize", false}});
  (void)wait_for("BLOCK_JOB_PENDING");
  EXPECT_EQ(monitor_->answer("query-block-jobs").at(0).at("type"), "backup");
  EXPECT_FALSE(monitor_->ask("blockdev-del", {{"node-name", "copy"}}));
  ok("job-finalize", {{"id", "b"}});
  EXPECT_FALSE(wait_for("BLOCK_JOB_COMPLETED").contains("error"));
  paths_.push_back(path("file"));
  ok("drive-backup", {{"device", "base"}, {"target", path("file")}, {"job-id", "c"}, {"sync", "top"}});
  events_.clear();
  EXPECT_EQ(wait_for("BLOCK_JOB_COMPLETED").at("device"), "c");
  EXPECT_NE(human_drive_backup(*monitor_->context, "-f base").find("usage"), std::string::npos);
  EXPECT_NE(human_drive_backup(*monitor_->context, "-n -c base f raw").find("job ID"), std::string::npos);
}

TEST_F(JobCommands, OfATransactionAllJobsBeginOrNone) {
  for (const char* const name : {"one", "two"}) {
    make(name);
    ok("blockdev-add", {{"driver", "qcow2"}, {"node-name", name}, {"file", name + std::string("-file")}});
  }
  const auto backup = [](const char* job, const char* device, const char* target) {
    return Json{{"type", "blockdev-backup"},
                {"data", {{"job-id", job}, {"device", device}, {"target", target}, {"sync", "full"}}}};
  };
  for (const Json& second :
       {backup("a", "one", "two"), backup("b", "base", "two"), Json{{"type", "abort"}, {"data", Json::object()}}}) {
    EXPECT_FALSE(monitor_->ask("transaction", {{"actions", Json::array({backup("a", "base", "one"), second})}}));
    EXPECT_TRUE(monitor_->answer("query-jobs").empty());
  }
  ok("transaction", {{"actions", Json::array({backup("a", "base", "one")})}});
  EXPECT_FALSE(wait_for("BLOCK_JOB_COMPLETED").contains("error"));
  const Json over{{"type", "blockdev-snapshot"}, {"data", {{"node", "base"}, {"overlay", "two"}}}};
  for (const Json& actions :
       {Json::array({over, backup("b", "base", "one")}), Json::array({backup("b", "base", "one"), over})})
    EXPECT_FALSE(monitor_->ask("transaction", {{"actions", actions}}));
  EXPECT_FALSE(node("two").contains("backing_file"));
}

TEST_F(JobCommands, DirtyBitmaps) {
  const auto bitmap = [](const char* name) { return Json{{"node", "base"}, {"name", name}}; };
  const auto bitmaps = [this] { return node("base").value("dirty-bitmaps", Json::array()); };
  ok("block-dirty-bitmap-add", {{"node", "base"}, {"name", "a"}});
  ok("block-dirty-bitmap-add", {{"node", "base"}, {"name", "b"}, {"granularity", 4096}, {"disabled", true}});
  EXPECT_EQ(bitmaps().at(0), (Json{{"name", "a"},
                                   {"count", 0},
                                   {"granularity", 65536},
                                   {"recording", true},
                                   {"busy", false},
                                   {"persistent", false}}));
  EXPECT_EQ(bitmaps().at(1).at("recording"), false);
  ok("block-dirty-bitmap-enable", bitmap("b"));
  ok("block-dirty-bitmap-disable", bitmap("a"));
  ok("block-dirty-bitmap-merge", {{"node", "base"}, {"target", "a"}, {"bitmaps", Json::array({"b", bitmap("a")})}});
  ok("block-dirty-bitmap-clear", bitmap("a"));
  const Json removed = {{"type", "block-dirty-bitmap-remove"}, {"data", bitmap("a")}};
  const Json added = {{"type", "block-dirty-bitmap-add"}, {"data", bitmap("a")}};
  EXPECT_FALSE(monitor_->ask("transaction", {{"actions", Json::array({removed, added, added})}}));
  EXPECT_EQ(bitmaps().size(), 2u);
  ok("transaction", {{"actions", Json::array({removed, added})}});
  EXPECT_EQ(find_entry(bitmaps(), "name", "a").at("recording"), true);
  ok("block-dirty-bitmap-remove", bitmap("b"));
  EXPECT_EQ(bitmaps().size(), 1u);
}

TEST_F(JobCommands, WhatBitmapsCannotBe) {
  const auto refused = [this](const char* command, const Json& arguments) {
    const auto answer = monitor_->ask(command, arguments);
    return answer ? std::string("taken") : answer.error().description;
  };
  const auto add = [&](const Json& more) {
    Json arguments{{"node", "base"}, {"name", "x"}};
    arguments.update(more);
    return refused("block-dirty-bitmap-add", arguments);
  };
  for (const auto& granularity : {Json(0), Json(-1), Json(256), Json(4097), Json(uint64_t{1} << 40)})
    EXPECT_NE(add({{"granularity", granularity}}).find("Granularity"), std::string::npos);
  EXPECT_NE(add({{"name", ""}}).find("empty"), std::string::npos);
  EXPECT_NE(add({{"name", std::string(1024, 'n')}}).find("1023"), std::string::npos);
  EXPECT_NE(add({{"node", "none"}}).find("none"), std::string::npos);
  EXPECT_NE(refused("block-dirty-bitmap-clear", {{"node", "base"}, {"name", "x"}}).find("not found"),
            std::string::npos);
  for (const Json& source : {Json(5), Json{{"node", "base"}}, Json("y")})
    EXPECT_NE(
        refused("block-dirty-bitmap-merge", {{"node", "base"}, {"target", "x"}, {"bitmaps", Json::array({source})}}),
        "taken");
  Json backup{{"device", "base"}, {"target", "base-file"}, {"job-id", "b"}, {"sync", "bitmap"}};
  EXPECT_NE(refused("blockdev-backup", backup).find("bitmap name"), std::string::npos);
  backup["bitmap"] = "x";
  EXPECT_NE(refused("blockdev-backup", backup).find("must be given"), std::string::npos);
  backup["bitmap-mode"] = "never";
  EXPECT_NE(refused("blockdev-backup", backup).find("could not be found"), std::string::npos);
  backup["sync"] = "incremental";
  EXPECT_NE(refused("blockdev-backup", backup).find("on-success"), std::string::npos);
  backup["sync"] = "full";
  EXPECT_NE(refused("blockdev-backup", backup).find("no meaningful"), std::string::npos);
}

TEST_F(JobCommands, WhatIsNotThere) {
  EXPECT_EQ(monitor_->ask("block-job-cancel", {{"device", "x"}}).error().error_class, "DeviceNotActive");
  EXPECT_EQ(monitor_->ask("job-cancel", {{"id", "x"}}).error().description, "Job not found");
  const auto wrong = monitor_->ask(
      "blockdev-mirror", {{"device", "base"}, {"target", "base-file"}, {"sync", "incremental"}, {"job-id", "m"}});
  EXPECT_NE(wrong.error().description.find("incremental"), std::string::npos);
  const auto action = monitor_->ask("transaction", {{"actions", Json::array({{{"type", "blockdev-backups"}}})}});
  EXPECT_NE(action.error().description.find("blockdev-backup"), std::string::npos);
  const auto unknown = monitor_->ask(
      "transaction", {{"actions", Json::array({{{"type", "blockdev-snapshot"}, {"data", {{"nod", "base"}}}}})}});
  EXPECT_NE(unknown.error().description.find("'node' is missing"), std::string::npos);
}

}  // namespace
}  // namespace kite::monitor

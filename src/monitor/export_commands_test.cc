#include "monitor/export_commands.h"

#include <unistd.h>

#include <filesystem>

#include "machine/drive_store.h"
#include "monitor/qmp_events.h"
#include "monitor/test_monitor.h"

namespace kite::monitor {
namespace {

// A machine with two nodes in memory.
class ExportCommands : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = machine::DriveStore::create();
    ASSERT_TRUE(store);
    drives_ = std::move(*store);
    monitor_ = std::make_unique<TestMonitor>(machine::MachineConfig{}, drives_.get());
    monitor_->machine->add_event_listener(
        [this](const machine::MachineEvent& event) { events_.push_back(event_json(event)); });
    for (const char* const name : {"one", "two"})
      ok("blockdev-add", {{"driver", "memory"}, {"node-name", name}, {"size", 1 << 20}});
  }
  void TearDown() override {
    monitor_.reset();
    drives_.reset();
    EXPECT_FALSE(std::filesystem::exists(socket_));
  }
  void ok(const std::string& command, const Json& arguments = Json::object()) {
    EXPECT_EQ(monitor_->answer(command, arguments), Json::object()) << command;
  }
  std::string refusal(const std::string& command, const Json& arguments = Json::object()) {
    const QmpReply reply = monitor_->ask(command, arguments);
    EXPECT_FALSE(reply) << command << " " << arguments;
    return reply ? "" : reply.error().description;
  }
  void start() { ok("nbd-server-start", {{"addr", {{"type", "unix"}, {"data", {{"path", socket_}}}}}}); }
  std::string human(std::string (*command)(MonitorContext&, std::string_view), std::string_view rest) {
    return command(*monitor_->context, rest);
  }

  std::string socket_ = ::testing::TempDir() + "export_commands." + std::to_string(getpid());
  std::vector<Json> events_;
  std::unique_ptr<machine::DriveStore> drives_;
  std::unique_ptr<TestMonitor> monitor_;
};

TEST_F(ExportCommands, ExportsComeAreShownAndGo) {
  start();
  ok("block-export-add", {{"type", "nbd"}, {"id", "e0"}, {"node-name", "one"}, {"writable", true}, {"name", "disk"}});
  ok("nbd-server-add", {{"device", "two"}});
  const Json list = monitor_->answer("query-block-exports");
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list.at(0), (Json{{"node-name", "one"}, {"shutting-down", false}, {"type", "nbd"}, {"id", "e0"}}));
  EXPECT_EQ(list.at(1).at("id"), "two");
  EXPECT_NE(refusal("blockdev-del", {{"node-name", "one"}}).find("export 'e0'"), std::string::npos);
  ok("block-export-del", {{"id", "e0"}});
  ok("blockdev-del", {{"node-name", "one"}});
  ok("nbd-server-remove", {{"name", "two"}, {"mode", "hard"}});
  for (int i = 0; i < 1000 && events_.size() < 2; ++i) monitor_->executor->run_once(10'000'000);
  ASSERT_EQ(events_.size(), 2u);
  EXPECT_EQ(events_[0], (Json{{"event", "BLOCK_EXPORT_DELETED"}, {"data", {{"id", "e0"}}}}));
  ok("nbd-server-stop");
}

TEST_F(ExportCommands, WhatMakesNoSenseIsRefused) {
  const Json disk{{"type", "nbd"}, {"id", "e0"}, {"node-name", "one"}};
  EXPECT_NE(refusal("block-export-add", disk).find("not running"), std::string::npos);
  EXPECT_NE(refusal("nbd-server-stop").find("not running"), std::string::npos);
  const auto at = [](const char* type, const Json& data) { return Json{{"addr", {{"type", type}, {"data", data}}}}; };
  EXPECT_NE(refusal("nbd-server-start", at("vsock", {{"cid", "1"}})).find("'vsock'"), std::string::npos);
  EXPECT_NE(refusal("nbd-server-start", at("unix", {{"pth", "x"}})).find("'path'"), std::string::npos);
  EXPECT_NE(refusal("nbd-server-start", at("inet", {{"host", "x"}, {"port", "1"}, {"to", 5}})).find("'to'"),
            std::string::npos);
  EXPECT_NE(refusal("nbd-server-start", at("fd", {{"str", "none"}})).find("'none'"), std::string::npos);
  Json secured = at("unix", {{"path", socket_}});
  secured["tls-creds"] = "tls0";
  EXPECT_NE(refusal("nbd-server-start", secured).find("'tls-creds'"), std::string::npos);
  start();
  EXPECT_NE(refusal("nbd-server-start", at("unix", {{"path", socket_}})).find("already running"), std::string::npos);
  const auto changed = [&disk](const char* name, const Json& value) {
    Json other = disk;
    other[name] = value;
    return other;
  };
  EXPECT_NE(refusal("block-export-add", changed("type", "fuse")).find("'fuse'"), std::string::npos);
  EXPECT_NE(refusal("block-export-add", changed("id", "no such id")).find("Invalid"), std::string::npos);
  EXPECT_NE(refusal("block-export-add", changed("node-name", "none")).find("'none'"), std::string::npos);
  EXPECT_NE(refusal("block-export-add", changed("bitmaps", {"none"})).find("'none'"), std::string::npos);
  EXPECT_NE(refusal("block-export-add", changed("iothread", "io0")).find("'iothread'"), std::string::npos);
  EXPECT_NE(refusal("block-export-del", {{"id", "e0"}}).find("not found"), std::string::npos);
  EXPECT_NE(refusal("block-export-del", {{"id", "e0"}, {"mode", "soft"}}).find("'soft'"), std::string::npos);
}

TEST_F(ExportCommands, PeopleDoTheSame) {
  EXPECT_EQ(human(human_nbd_server_start, "unix:" + socket_), "");
  EXPECT_EQ(human(human_nbd_server_add, "-w one disk"), "");
  EXPECT_EQ(monitor_->answer("query-block-exports").at(0).at("id"), "disk");
  EXPECT_NE(human(human_nbd_server_remove, "one").find("not found"), std::string::npos);
  EXPECT_EQ(human(human_nbd_server_remove, "-f disk"), "");
  EXPECT_EQ(human(human_nbd_server_stop, ""), "");
  EXPECT_NE(human(human_nbd_server_stop, "").find("not running"), std::string::npos);
  EXPECT_EQ(human(human_nbd_server_start, "-w x:1").substr(0, 6), "usage:");
}

TEST_F(ExportCommands, AMachineThatEndsEndsItsExports) {
  start();
  ok("nbd-server-add", {{"device", "one"}, {"writable", true}});
}

}  // namespace
}  // namespace kite::monitor

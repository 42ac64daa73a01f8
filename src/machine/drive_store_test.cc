#include "machine/drive_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "block/filters/filters.h"

namespace kite::machine {
namespace {

using block::IoResult;
using block::IoSlice;

class DriveStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = DriveStore::create();
    ASSERT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
    path_ = ::testing::TempDir() + "drive_store_test." + std::to_string(getpid());
  }
  void TearDown() override {
    store_.reset();
    std::remove(path_.c_str());
  }
  Result<> add(const std::vector<std::pair<std::string, std::string>>& settings) {
    std::vector<DriveSpec> known;
    for (const auto& entry : store_->entries()) known.push_back(entry->spec);
    KITE_ASSIGN(DriveSpec spec, parse_drive(settings, {.drives = known}));
    return store_->add_drive(std::move(spec));
  }
  void add_null(const std::string& id, std::vector<std::pair<std::string, std::string>> more = {}) {
    more.insert(more.end(), {{"if", "none"}, {"id", id}, {"driver", "null-co"}, {"size", "1M"}});
    const auto added = add(more);
    ASSERT_TRUE(added) << added.error().message;
  }
  DeviceConfig device(const std::string& drive, const std::string& id = "disk0") {
    DeviceConfig config{.type = "virtio-blk-pci", .id = id, .properties = {}};
    if (!drive.empty()) config.properties.set("drive", drive);
    config.properties.set("werror", std::string("auto"));
    config.properties.set("rerror", std::string("auto"));
    return config;
  }
  block::Drive& drive(const std::string& id) { return *store_->find(id)->drive; }
  void write_file(const std::string& contents) { std::ofstream(path_) << contents; }

  // A request under way; its result is there once the scope is idle.
  struct Request {
    std::atomic<bool> done{false};
    IoResult<> result;
    std::vector<uint8_t> data = std::vector<uint8_t>(512);
  };
  static Task<void> read(block::Drive& from, Request& request) {
    request.result = co_await from.read(0, IoSlice(std::span(request.data)));
    request.done = true;
  }
  static Task<void> write(block::Drive& to, Request& request) {
    request.result = co_await to.write(0, IoSlice(std::span(request.data)));
    request.done = true;
  }

  std::string path_;
  std::unique_ptr<DriveStore> store_;
  TaskScope scope_;
};

TEST_F(DriveStoreTest, ADeviceGetsTheDriveThatItNames) {
  add_null("d");
  DeviceConfig disk = device("d");
  ASSERT_TRUE(store_->claim_for(disk, DriveNeed::kDisk));
  EXPECT_EQ(disk.drive, &drive("d"));
  EXPECT_EQ(disk.drive->length(), 1u << 20);
}

TEST_F(DriveStoreTest, ADriveIsForOneDevice) {
  add_null("d");
  DeviceConfig first = device("d"), second = device("d", "disk1");
  ASSERT_TRUE(store_->claim_for(first, DriveNeed::kDisk));
  const auto refused = store_->claim_for(second, DriveNeed::kDisk);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("already in use"), std::string::npos);
  EXPECT_EQ(second.drive, nullptr);
}

TEST_F(DriveStoreTest, ADeviceMayNameANode) {
  ASSERT_TRUE(store_->add_node(*block::BlockOptions::parse("driver=null-co,node-name=n,size=2M")));
  DeviceConfig disk = device("n");
  ASSERT_TRUE(store_->claim_for(disk, DriveNeed::kDisk));
  EXPECT_EQ(disk.drive->length(), 2u << 20);
}

TEST_F(DriveStoreTest, ANodeStaysWhenItsDeviceGoes) {
  ASSERT_TRUE(store_->add_node(*block::BlockOptions::parse("driver=null-co,node-name=n,size=2M")));
  DeviceConfig disk = device("n");
  ASSERT_TRUE(store_->claim_for(disk, DriveNeed::kDisk));
  EXPECT_FALSE(store_->remove_node("n"));
  store_->release(disk.drive);
  EXPECT_TRUE(store_->remove_node("n"));
}

TEST_F(DriveStoreTest, ADriveGoesWithItsDevice) {
  add_null("d");
  DeviceConfig disk = device("d");
  ASSERT_TRUE(store_->claim_for(disk, DriveNeed::kDisk));
  store_->set_owner(*disk.drive, "disk0", "/machine/peripheral/disk0");
  store_->release_owned_by("disk0");
  EXPECT_EQ(store_->find("d"), nullptr);
}

TEST_F(DriveStoreTest, ADiskNeedsADrive) {
  DeviceConfig disk = device("");
  const auto refused = store_->claim_for(disk, DriveNeed::kDisk);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("drive=ID"), std::string::npos);
}

TEST_F(DriveStoreTest, ACdromDriveMayBeEmpty) {
  DeviceConfig cdrom = device("", "cd0");
  ASSERT_TRUE(store_->claim_for(cdrom, DriveNeed::kCdrom));
  ASSERT_NE(cdrom.drive, nullptr);
  EXPECT_FALSE(cdrom.drive->has_medium());
}

TEST_F(DriveStoreTest, ADiskNeedsAMedium) {
  ASSERT_TRUE(add({{"if", "none"}, {"id", "empty"}}));
  DeviceConfig disk = device("empty");
  EXPECT_FALSE(store_->claim_for(disk, DriveNeed::kDisk));
  EXPECT_FALSE(store_->find("empty")->claimed);  // and may be taken by another device
}

TEST_F(DriveStoreTest, RawIsNotGuessedForADiskThatIsWritten) {
  write_file(std::string(4096, 'x'));
  const auto refused = add({{"if", "none"}, {"id", "d"}, {"file", path_}});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("format=raw"), std::string::npos);
  EXPECT_TRUE(add({{"if", "none"}, {"id", "d"}, {"file", path_}, {"readonly", "on"}}));
}

TEST_F(DriveStoreTest, ASnapshotKeepsTheImageAsItIs) {
  write_file(std::string(4096, 'x'));
  ASSERT_TRUE(add({{"if", "none"}, {"id", "d"}, {"file", path_}, {"format", "raw"}, {"snapshot", "on"}}));
  Request written, read_back;
  std::memset(written.data.data(), 'y', written.data.size());

  scope_.spawn(write(drive("d"), written));
  scope_.wait_idle();
  scope_.spawn(read(drive("d"), read_back));
  scope_.wait_idle();

  ASSERT_TRUE(written.result);
  EXPECT_EQ(read_back.data[0], 'y');
  char first = 0;
  std::ifstream(path_).get(first);
  EXPECT_EQ(first, 'x');
}

TEST_F(DriveStoreTest, AQuietDriveLetsRequestsWait) {
  add_null("d");
  store_->quiesce();
  Request request;
  scope_.spawn(read(drive("d"), request));
  store_->quiesce();  // whatever could have run has
  EXPECT_FALSE(request.done);
  store_->release_all();
  store_->release_all();
  scope_.wait_idle();
  EXPECT_TRUE(request.result);
}

TEST_F(DriveStoreTest, WhatWaitsCanBeCancelled) {
  add_null("d");
  store_->quiesce();
  Request request;
  scope_.spawn(read(drive("d"), request));
  store_->cancel_waiting();
  scope_.wait_idle();
  ASSERT_FALSE(request.result);
  EXPECT_EQ(request.result.error().code, ECANCELED);
  store_->release_all();
}

TEST_F(DriveStoreTest, AStoppedRequestIsTriedAgain) {
  std::atomic<int> code{0};
  store_->set_error_hook([&](const block::Drive*, const block::DriveErrorEvent& event) { code = event.code; });
  ASSERT_TRUE(add({{"if", "none"},
                   {"id", "d"},
                   {"werror", "stop"},
                   {"driver", "blkdebug"},
                   {"image.driver", "null-co"},
                   {"image.size", "1M"},
                   {"inject-error.0.event", "none"},
                   {"inject-error.0.iotype", "write"},
                   {"inject-error.0.errno", "5"},
                   {"inject-error.0.once", "on"}}));
  Request request;
  scope_.spawn(write(drive("d"), request));
  while (drive("d").stopped_requests() == 0 && !request.done) usleep(100);
  ASSERT_FALSE(request.done);
  EXPECT_EQ(code, EIO);
  store_->retry_stopped();
  scope_.wait_idle();
  EXPECT_TRUE(request.result);
}

Task<IoResult<>> flush(block::Drive& drive) { return drive.flush(); }
Task<bool> add_break(block::Drive& drive) {
  auto* const blkdebug = dynamic_cast<block::BlkdebugNode*>(drive.node()->file());
  if (blkdebug != nullptr) blkdebug->add_break("flush_to_os", "A");
  co_return blkdebug != nullptr;
}
Task<bool> resume_break(block::Drive& drive) {
  co_return dynamic_cast<block::BlkdebugNode*>(drive.node()->file())->resume("A");
}
Task<bool> is_idle(block::Drive& drive) { co_return drive.idle(); }

TEST_F(DriveStoreTest, ABreakHoldsARequestUntilItIsResumed) {
  ASSERT_TRUE(add(
      {{"if", "none"}, {"id", "d"}, {"format", "raw"}, {"file.driver", "blkdebug"}, {"file.image.driver", "null-co"}}));
  ASSERT_TRUE(store_->run(add_break(drive("d"))));
  struct Flush {
    static Task<void> run(block::Drive& drive, std::atomic<bool>& done) { done = (co_await flush(drive)).has_value(); }
  };
  std::atomic<bool> done{false};
  scope_.spawn(Flush::run(drive("d"), done));
  while (store_->run(is_idle(drive("d")))) usleep(100);
  EXPECT_FALSE(done);
  EXPECT_TRUE(store_->run(resume_break(drive("d"))));
  scope_.wait_idle();
  EXPECT_TRUE(done);
}

TEST_F(DriveStoreTest, ALimitDoesNotHinderAPause) {
  add_null("d", {{"bps", "1"}});
  Request first, second;
  scope_.spawn(read(drive("d"), first));  // fills the bucket
  scope_.wait_idle();
  scope_.spawn(read(drive("d"), second));  // has to wait for minutes
  store_->quiesce();
  EXPECT_FALSE(second.done);
  store_->cancel_waiting();
  store_->release_all();
  scope_.wait_idle();
  EXPECT_TRUE(first.result);
  EXPECT_FALSE(second.result);
}

TEST_F(DriveStoreTest, LimitsThatGoAwayLetWaitersGo) {
  add_null("d", {{"bps", "1"}});
  Request first, second;
  scope_.spawn(read(drive("d"), first));
  scope_.spawn(read(drive("d"), second));
  store_->set_throttle(*store_->find("d"), {}, "");
  scope_.wait_idle();
  EXPECT_TRUE(second.result);
}

TEST_F(DriveStoreTest, ADriveThatIsTakenAwayLeavesItsDeviceWithoutAMedium) {
  add_null("d");
  DeviceConfig disk = device("d");
  ASSERT_TRUE(store_->claim_for(disk, DriveNeed::kDisk));
  ASSERT_TRUE(store_->remove_drive("d"));
  EXPECT_FALSE(disk.drive->has_medium());
  EXPECT_EQ(store_->find("d"), nullptr);
  EXPECT_FALSE(store_->remove_drive("d"));
}

TEST_F(DriveStoreTest, AMediumComesAndGoes) {
  DeviceConfig floppy = device("", "fd0");
  ASSERT_TRUE(store_->claim_for(floppy, DriveNeed::kFloppy));
  ASSERT_TRUE(store_->add_node(*block::BlockOptions::parse("driver=null-co,node-name=disk,size=1440k")));
  auto& entry = *store_->find(floppy.drive);
  ASSERT_TRUE(store_->insert_node(entry, "disk"));
  EXPECT_EQ(floppy.drive->length(), 1440u * 1024);
  ASSERT_TRUE(store_->remove_medium(entry));
  EXPECT_FALSE(floppy.drive->has_medium());
}

TEST_F(DriveStoreTest, ADeviceHearsOfANewLength) {
  write_file(std::string(4096, 'x'));
  ASSERT_TRUE(add({{"if", "none"}, {"id", "d"}, {"file", path_}, {"format", "raw"}}));
  int heard = 0;
  drive("d").set_resize_hook([&] { ++heard; });
  ASSERT_TRUE(store_->resize("d", 8192));
  EXPECT_EQ(drive("d").length(), 8192u);
  EXPECT_EQ(heard, 1);
  drive("d").set_resize_hook(nullptr);
}

}  // namespace
}  // namespace kite::machine

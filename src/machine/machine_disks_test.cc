// A machine whose disks fail, stop and go.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "devices/types.h"
#include "machine/drive_store.h"
#include "machine/machine.h"

namespace kite::machine {
namespace {

using block::IoResult;
using block::IoSlice;

class MachineDisksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    devices::register_device_types(types_);
    executor_ = std::move(*Executor::create("test"));
    store_ = std::move(*DriveStore::create());
    config_.accelerators = {"qtest"};
    config_.ram_bytes = 16 << 20;
  }
  void TearDown() override {
    machine_.reset();
    scope_.wait_idle();
    store_.reset();
  }
  void add_drive(const std::vector<std::pair<std::string, std::string>>& settings) {
    auto spec = parse_drive(settings, {});
    ASSERT_TRUE(spec) << spec.error().message;
    const auto added = store_->add_drive(std::move(*spec));
    ASSERT_TRUE(added) << added.error().message;
  }
  void start() {
    auto made =
        Machine::create(config_, {.executor = *executor_, .types = types_, .exit = [](int) {}, .drives = store_.get()});
    ASSERT_TRUE(made) << made.error().message;
    machine_ = std::move(*made);
    machine_->add_event_listener([this](const MachineEvent& event) { events_.push_back(event); });
    ASSERT_TRUE(machine_->start());
    events_.clear();
  }
  bool saw(MachineEvent::Kind kind) const {
    return std::ranges::any_of(events_, [kind](const MachineEvent& event) { return event.kind == kind; });
  }
  block::Drive& drive() { return *store_->find("d")->drive; }
  // As a device's request.
  void write() { scope_.spawn(write_sector(drive(), result_)); }
  static Task<void> write_sector(block::Drive& to, IoResult<>& result) {
    std::vector<uint8_t> sector(512, 1);
    result = co_await to.write(0, IoSlice(std::span(sector)));
  }

  TypeRegistry types_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<DriveStore> store_;
  MachineConfig config_;
  std::vector<MachineEvent> events_;
  std::unique_ptr<Machine> machine_;
  TaskScope scope_;
  IoResult<> result_;
};

const std::vector<std::pair<std::string, std::string>> kFailsOnce = {{"if", "none"},
                                                                     {"id", "d"},
                                                                     {"werror", "stop"},
                                                                     {"driver", "blkdebug"},
                                                                     {"image.driver", "null-co"},
                                                                     {"inject-error.0.event", "none"},
                                                                     {"inject-error.0.iotype", "write"},
                                                                     {"inject-error.0.errno", "28"},
                                                                     {"inject-error.0.once", "on"}};
const std::vector<std::pair<std::string, std::string>> kWorks = {
    {"if", "none"}, {"id", "d"}, {"driver", "null-co"}, {"size", "1M"}};

TEST_F(MachineDisksTest, AFailedWriteStopsTheMachineAndIsTriedAgain) {
  add_drive(kFailsOnce);
  start();
  write();
  while (machine_->state() != RunState::kIoError) executor_->run_once(Clock::kNever);
  ASSERT_TRUE(saw(MachineEvent::Kind::kBlockIoError));
  EXPECT_EQ(events_.front().io_error.code, ENOSPC);
  EXPECT_EQ(events_.back().kind, MachineEvent::Kind::kStop);
  EXPECT_FALSE(scope_.idle());

  ASSERT_TRUE(machine_->resume());
  scope_.wait_idle();
  EXPECT_TRUE(result_);
  EXPECT_EQ(machine_->state(), RunState::kRunning);
}

TEST_F(MachineDisksTest, AResetCancelsWhatWaits) {
  add_drive(kFailsOnce);
  start();
  write();
  while (machine_->state() != RunState::kIoError) executor_->run_once(Clock::kNever);
  machine_->reset(Cause::kHostQmpSystemReset);
  scope_.wait_idle();
  ASSERT_FALSE(result_);
  EXPECT_EQ(result_.error().code, ECANCELED);
}

TEST_F(MachineDisksTest, APausedMachineStartsNoRequest) {
  add_drive(kWorks);
  start();
  machine_->pause();
  write();
  store_->quiesce();  // whatever could run has
  EXPECT_FALSE(scope_.idle());
  store_->release_all();
  ASSERT_TRUE(machine_->resume());
  scope_.wait_idle();
  EXPECT_TRUE(result_);
}

TEST_F(MachineDisksTest, TheEndOfAMachineCancelsWhatWaits) {
  add_drive(kWorks);
  start();
  machine_->pause();
  write();
  machine_.reset();
  scope_.wait_idle();
  EXPECT_FALSE(result_);
}

TEST_F(MachineDisksTest, AResetTakesADiskThatWasAskedToGo) {
  add_drive(kWorks);
  start();
  const auto options = parse_object_options("virtio-blk-pci,id=disk,drive=d", "driver");
  ASSERT_TRUE(machine_->add_device(*options));
  ASSERT_TRUE(machine_->remove_device("disk"));
  EXPECT_NE(machine_->board().find_device("disk"), nullptr);
  machine_->reset(Cause::kHostQmpSystemReset);
  EXPECT_EQ(machine_->board().find_device("disk"), nullptr);
  EXPECT_TRUE(saw(MachineEvent::Kind::kDeviceDeleted));
  EXPECT_EQ(store_->find("d"), nullptr);
}

TEST_F(MachineDisksTest, ADeviceThatIsRefusedLeavesItsDriveFree) {
  add_drive(kWorks);
  start();
  const auto wrong = parse_object_options("virtio-blk-pci,id=disk,drive=d,logical_block_size=1000", "driver");
  EXPECT_FALSE(machine_->add_device(*wrong));
  const auto right = parse_object_options("virtio-blk-pci,id=disk,drive=d", "driver");
  EXPECT_TRUE(machine_->add_device(*right));
}

}  // namespace
}  // namespace kite::machine

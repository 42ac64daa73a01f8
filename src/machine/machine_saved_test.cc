// Machines that are saved, go on elsewhere, travel through sockets, and are refused where they do not fit.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <chrono>

#include "devices/types.h"
#include "machine/incoming.h"
#include "machine/machine.h"
#include "machine/migration.h"

namespace kite::machine {
namespace {

// One pc board with the qtest accelerator: registers are driven by hand.
class Box {
 public:
  explicit Box(Executor& executor, bool incoming, uint64_t ram_bytes = 16 << 20, uint32_t cpus = 2) {
    devices::register_device_types(types_);
    config_.accelerators = {"qtest"};
    config_.ram_bytes = ram_bytes;
    config_.cpu_count = config_.max_cpus = cpus;
    config_.incoming = incoming;
    auto made = Machine::create(config_, {.executor = executor, .types = types_, .exit = [](int) {}});
    EXPECT_TRUE(made) << made.error().message;
    machine_ = std::move(*made);
    EXPECT_TRUE(machine_->start());
  }
  Machine& operator*() { return *machine_; }
  Machine* operator->() { return machine_.get(); }
  void out(uint16_t port, uint8_t value) { machine_->io().pio_write(port, 1, value); }
  uint8_t in(uint16_t port) { return static_cast<uint8_t>(machine_->io().pio_read(port, 1)); }
  // The timer counts, the RTC's memory and a page of RAM hold something.
  void use() {
    out(0x43, 0x34), out(0x40, 0x00), out(0x40, 0x80);
    out(0x70, 0x55), out(0x71, 0xa7);
    out(0x21, 0xfa);
    machine_->io().mmio_write(0x200000, 8, 0x1122334455667788);
    machine_->manual_clock()->advance(1'000'000);
    x86::ArchState state;
    machine_->vcpu(1).get_state(state);
    state.gpr[3] = 0xabcdef;
    state.activity = x86::Activity::kHalted;
    machine_->vcpu(1).set_state(state);
    machine_->vcpu(1).post_nmi();
  }
  void expect_used() {
    out(0x70, 0x55);
    EXPECT_EQ(in(0x71), 0xa7);
    EXPECT_EQ(in(0x21), 0xfa);
    EXPECT_EQ(machine_->clock().now(), 1'000'000);
    EXPECT_EQ(machine_->io().mmio_read(0x200000, 8), 0x1122334455667788u);
    out(0x43, 0x00);  // latch counter 0: 1 ms of it are 1193 ticks
    const unsigned low = in(0x40), count = low | static_cast<unsigned>(in(0x40)) << 8;
    EXPECT_NEAR(count, 0x8000 - 1193, 3);
    x86::ArchState state;
    machine_->vcpu(1).get_state(state);
    EXPECT_EQ(state.gpr[3], 0xabcdefu);
    EXPECT_EQ(state.activity, x86::Activity::kHalted);
    EXPECT_EQ(machine_->vcpu(1).asked().requests, request::kNmi);
  }

 private:
  TypeRegistry types_;
  MachineConfig config_;
  std::unique_ptr<Machine> machine_;
};

class MachineSaved : public ::testing::Test {
 protected:
  void SetUp() override { executor_ = std::move(*Executor::create("test")); }
  std::unique_ptr<Executor> executor_;
};

TEST_F(MachineSaved, GoesOnInAnotherMachine) {
  Box first(*executor_, false), second(*executor_, true);
  first.use();
  first->pause();
  const auto restored = second->restore_state(first->save_state());
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_EQ(second->save_state(), first->save_state());
  second->io().mmio_write(0x200000, 8, 0x1122334455667788);  // RAM goes another way
  second.expect_used();
}

TEST_F(MachineSaved, AnotherMachineIsRefusedByWhatDiffers) {
  Box first(*executor_, false);
  const std::vector<uint8_t> state = first->save_state();
  const auto refused = [&](uint64_t ram_bytes, uint32_t cpus) {
    Box other(*executor_, true, ram_bytes, cpus);
    const auto done = other->restore_state(state);
    return done ? "" : done.error().message;
  };
  EXPECT_NE(refused(32 << 20, 2).find("bytes of RAM"), std::string::npos);
  EXPECT_NE(refused(16 << 20, 1).find("2 CPUs, this one 1"), std::string::npos);
}

TEST_F(MachineSaved, DamagedStateIsAnErrorAndNothingWorse) {
  Box first(*executor_, false), second(*executor_, true);
  const std::vector<uint8_t> whole = first->save_state();
  uint32_t random = 1;
  for (int round = 0; round < 2000; ++round) {
    std::vector<uint8_t> damaged = whole;
    random = random * 1664525 + 1013904223;
    const size_t at = random % damaged.size();
    if (round % 4 == 0)
      damaged.resize(at);
    else
      damaged[at] ^= static_cast<uint8_t>(1 + round % 255);
    const auto done = second->restore_state(damaged);
    if (round % 4 == 0) EXPECT_FALSE(done) << at;
  }
  const auto done = second->restore_state(whole);
  EXPECT_TRUE(done) << done.error().message;
}

class MachineMoves : public MachineSaved {
 protected:
  // Runs the main loop until `over`.
  template <class Over>
  void run_until(Over over) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!over() && std::chrono::steady_clock::now() < limit) executor_->run_once(10'000'000);
    EXPECT_TRUE(over());
  }
  void pair(Fd& one, Fd& other) {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    one = Fd(ends[0]);
    other = Fd(ends[1]);
  }
  Migration::Listener note_statuses() {
    return {.status = [this](MigrationStatus status) { statuses_.push_back(status); },
            .pass = [this](uint64_t pass) { passes_ = pass; }};
  }
  Incoming::Listener note_end() {
    return {.status = [](MigrationStatus) {}, .ended = [this](const Result<>& result) { ended_ = result; }};
  }
  static snapshot::ChannelAddress socket(const std::string& path) { return *snapshot::parse_channel("unix:" + path); }

  std::vector<MigrationStatus> statuses_;
  uint64_t passes_ = 0;
  std::optional<Result<>> ended_;
};

TEST_F(MachineMoves, ThroughASocketThatAnswers) {
  const std::string path = ::testing::TempDir() + "kite-moves.sock";
  Box first(*executor_, false), second(*executor_, true);
  first.use();
  Migration out(*first, note_statuses());
  Incoming in(*second, note_end());
  EXPECT_EQ(run_state_name(second->state()), "inmigrate");
  EXPECT_FALSE(second->resume());
  ASSERT_TRUE(in.start(socket(path), {}));
  ASSERT_TRUE(out.start(socket(path), {}));
  EXPECT_FALSE(out.start(socket(path), {}));
  run_until([&] { return !out.under_way() && ended_.has_value(); });
  EXPECT_TRUE(*ended_);
  using enum MigrationStatus;
  EXPECT_EQ(statuses_, (std::vector{kSetup, kActive, kDevice, kCompleted}));
  EXPECT_EQ(run_state_name(first->state()), "postmigrate");
  EXPECT_EQ(run_state_name(second->state()), "running");
  EXPECT_GE(passes_, 1u);
  const MigrationReport report = out.report();
  EXPECT_EQ(report.total_bytes, 16u << 20);
  EXPECT_EQ(report.remaining_pages, 0u);
  EXPECT_GE(report.normal_pages + report.zero_pages, 4096u);
  second.expect_used();
}

TEST_F(MachineMoves, GoesOnHereWhenItIsRefusedThere) {
  const std::string path = ::testing::TempDir() + "kite-refused.sock";
  Box first(*executor_, false), second(*executor_, true, 16 << 20, 1);
  Migration out(*first, note_statuses());
  Incoming in(*second, note_end());
  ASSERT_TRUE(in.start(socket(path), {}));
  ASSERT_TRUE(out.start(socket(path), {}));
  run_until([&] { return !out.under_way() && ended_.has_value(); });
  EXPECT_FALSE(*ended_);
  EXPECT_EQ(statuses_.back(), MigrationStatus::kFailed);
  EXPECT_NE(out.report().error.find("2 CPUs, this one 1"), std::string::npos) << out.report().error;
  EXPECT_EQ(run_state_name(first->state()), "running");
}

TEST_F(MachineMoves, CanBeCalledBack) {
  Fd ours, theirs;
  pair(ours, theirs);
  Box first(*executor_, false);
  first.use();
  for (uint64_t page = 1024; page < 3000; ++page) first->io().mmio_write(page << kPageShift, 8, page);  // 8 MB
  Migration out(*first, note_statuses());
  ASSERT_TRUE(out.start(*snapshot::parse_channel("fd:7"), std::move(ours)));
  run_until([&] { return statuses_.back() == MigrationStatus::kActive; });  // and nobody reads
  EXPECT_FALSE(first->add_device({.type = "pci-testdev", .id = "x", .values = {}}));
  out.cancel();
  run_until([&] { return !out.under_way(); });
  EXPECT_EQ(statuses_.back(), MigrationStatus::kCancelled);
  EXPECT_EQ(run_state_name(first->state()), "running");
}

TEST_F(MachineMoves, EndsWithTheProcessInTheMiddle) {
  Fd ours, theirs;
  pair(ours, theirs);
  Box first(*executor_, false), second(*executor_, true);
  auto out = std::make_unique<Migration>(*first, note_statuses());
  ASSERT_TRUE(out->start(*snapshot::parse_channel("fd:7"), std::move(ours)));
  auto in = std::make_unique<Incoming>(*second, note_end());
  Fd more, silent;
  pair(more, silent);
  ASSERT_TRUE(in->start(*snapshot::parse_channel("fd:8"), std::move(more)));
  executor_->run_once(1'000'000);
  out.reset();
  in.reset();
  EXPECT_FALSE(ended_.has_value());
}

}  // namespace
}  // namespace kite::machine

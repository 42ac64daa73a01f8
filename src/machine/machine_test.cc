#include "machine/machine.h"

#include <gtest/gtest.h>

#include <vector>

#include "devices/types.h"

namespace kite::machine {
namespace {

// The pc board with the qtest accelerator: registers are driven by hand, time stands still.
class MachineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    devices::register_device_types(types_);
    executor_ = std::move(*Executor::create("test"));
    config_.accelerators = {"qtest"};
    config_.ram_bytes = 16 << 20;
  }
  void create() {
    auto made = Machine::create(
        config_, {.executor = *executor_, .types = types_, .exit = [this](int status) { exit_status_ = status; }});
    ASSERT_TRUE(made) << made.error().message;
    machine_ = std::move(*made);
    machine_->add_event_listener([this](const MachineEvent& event) { events_.push_back(event.kind); });
    ASSERT_TRUE(machine_->start());
    events_.clear();
  }
  void add_device(std::string_view text) {
    const auto options = parse_object_options(text, "driver");
    ASSERT_TRUE(options);
    auto properties = types_.resolve(*options, "-device");
    ASSERT_TRUE(properties) << properties.error().message;
    config_.devices.push_back({.type = options->type, .id = options->id, .properties = std::move(*properties)});
  }
  uint32_t in(uint16_t port, unsigned size) { return machine_->io().pio_read(port, size); }
  void out(uint16_t port, unsigned size, uint32_t value) { machine_->io().pio_write(port, size, value); }
  void config_write(uint8_t devfn, uint8_t offset, unsigned size, uint32_t value) {
    out(0xcf8, 4, 0x80000000u | static_cast<uint32_t>(devfn << 8) | (offset & 0xfcu));
    out(static_cast<uint16_t>(0xcfc + (offset & 3)), size, value);
  }

  TypeRegistry types_;
  std::unique_ptr<Executor> executor_;
  MachineConfig config_;
  std::optional<int> exit_status_;
  std::vector<MachineEvent::Kind> events_;
  std::unique_ptr<Machine> machine_;
};

TEST_F(MachineTest, ShadowSegmentsShowPciUntilPamOpensThem) {
  create();
  auto& io = machine_->io();
  io.mmio_write(0xc0000, 4, 0x12345678);
  EXPECT_EQ(io.mmio_read(0xc0000, 4), 0xffffffffu);
  config_write(0, 0x5a, 1, 0x03);  // 0xc0000-0xc3fff: RAM, read and write
  EXPECT_EQ(io.mmio_read(0xc0000, 4), 0u);
  io.mmio_write(0xc0000, 4, 0x12345678);
  EXPECT_EQ(io.mmio_read(0xc0000, 4), 0x12345678u);
  config_write(0, 0x5a, 1, 0x01);  // read only
  io.mmio_write(0xc0000, 4, 0);
  EXPECT_EQ(io.mmio_read(0xc0000, 4), 0x12345678u);
  config_write(0, 0x5a, 1, 0);  // PCI again
  EXPECT_EQ(io.mmio_read(0xc0000, 4), 0xffffffffu);
}

TEST_F(MachineTest, RamIsSplitAroundTheHole) {
  config_.ram_bytes = uint64_t{5} << 30;
  create();
  auto& io = machine_->io();
  io.mmio_write(0xbffffff8, 8, 1);
  io.mmio_write(0x100000000, 8, 2);
  io.mmio_write((uint64_t{6} << 30) - 8, 8, 3);
  EXPECT_EQ(io.mmio_read(0xbffffff8, 8), 1u);
  EXPECT_EQ(io.mmio_read(0xc0000000, 8), ~uint64_t{0});
  EXPECT_EQ(io.mmio_read(0x100000000, 8), 2u);
  EXPECT_EQ(io.mmio_read((uint64_t{6} << 30) - 8, 8), 3u);
  EXPECT_EQ(io.mmio_read(uint64_t{6} << 30, 8), ~uint64_t{0});
}

TEST_F(MachineTest, CmosTellsTheMemorySizes) {
  create();
  const auto cmos = [this](uint8_t index) {
    out(0x70, 1, index);
    return in(0x71, 1);
  };
  EXPECT_EQ(cmos(0x15) | cmos(0x16) << 8, 640u);
  EXPECT_EQ(cmos(0x17) | cmos(0x18) << 8, 15u * 1024);
  EXPECT_EQ(cmos(0x34) | cmos(0x35) << 8, 0u);
}

TEST_F(MachineTest, ResetRegisterResetsTheMachine) {
  create();
  out(0x43, 1, 0x34);
  out(0xcf9, 1, 0x02);
  out(0xcf9, 1, 0x06);
  executor_->run_once(0);
  EXPECT_EQ(events_, std::vector{MachineEvent::Kind::kReset});
  EXPECT_EQ(machine_->state(), RunState::kRunning);
}

TEST_F(MachineTest, NoRebootTurnsAResetIntoTheEnd) {
  config_.no_reboot = true;
  create();
  out(0xcf9, 1, 0x06);
  executor_->run_once(0);
  EXPECT_EQ(exit_status_, 0);
  EXPECT_EQ(events_, std::vector{MachineEvent::Kind::kShutdown});
}

TEST_F(MachineTest, NoShutdownStopsInsteadAndOnlyAResetGoesOn) {
  config_.no_shutdown = true;
  create();
  machine_->request_shutdown(Cause::kGuestShutdown);
  executor_->run_once(0);
  EXPECT_FALSE(exit_status_);
  EXPECT_EQ(machine_->state(), RunState::kShutdown);
  EXPECT_FALSE(machine_->resume());
  machine_->request_reset(Cause::kHostQmpSystemReset);
  machine_->serve_requests();
  EXPECT_TRUE(machine_->resume());
  executor_->run_once(0);
  EXPECT_EQ(std::ranges::count(events_, MachineEvent::Kind::kReset), 1);
}

TEST_F(MachineTest, PauseAndResumeSayWhatHappened) {
  create();
  machine_->pause();
  machine_->pause();
  EXPECT_EQ(machine_->state(), RunState::kPaused);
  EXPECT_TRUE(machine_->resume());
  EXPECT_EQ(events_, (std::vector{MachineEvent::Kind::kStop, MachineEvent::Kind::kResume}));
}

TEST_F(MachineTest, DebugExitEndsWithItsStatus) {
  add_device("isa-debug-exit,iobase=0xf4,iosize=4");
  create();
  out(0xf4, 1, 3);
  executor_->run_once(0);
  EXPECT_EQ(exit_status_, 7);
}

TEST_F(MachineTest, PciTestDeviceFindsAPlaceOnTheBus) {
  add_device("pci-testdev");
  create();
  out(0xcf8, 4, 0x80001000);  // slot 2
  EXPECT_EQ(in(0xcfc, 4), 0x00051b36u);
}

TEST_F(MachineTest, ConfigurationAddressMayCarryTheByteOffset) {
  create();
  out(0xcf8, 4, 0x80000002);  // as some programs write it; most leave bits 1:0 clear and use 0xcfe
  EXPECT_EQ(in(0xcfc, 2), 0x1237u);
  out(0xcf8, 4, 0x80000000);
  EXPECT_EQ(in(0xcfe, 2), 0x1237u);
}

TEST_F(MachineTest, HpetIsThereUnlessSwitchedOff) {
  create();
  EXPECT_EQ(machine_->io().mmio_read(0xfed00000, 4), 0x8086a201u);
  machine_.reset();
  config_.hpet = false;
  create();
  EXPECT_EQ(machine_->io().mmio_read(0xfed00000, 4), 0xffffffffu);
}

TEST_F(MachineTest, HpetReplacesTheTimerOnItsLine) {
  create();
  auto& io = machine_->io();
  std::vector<std::pair<uint32_t, bool>> seen;
  machine_->board().irq_tap("ioapic")->intercept_inputs(
      [&](uint32_t line, bool level) { seen.emplace_back(line, level); });
  io.mmio_write(0xfed00100, 4, 0x04);  // timer 0: interrupt enabled, edge
  io.mmio_write(0xfed00108, 8, 1000);  // ticks of 10 ns
  io.mmio_write(0xfed00010, 4, 3);     // run, legacy replacement
  seen.clear();
  machine_->manual_clock()->advance(20'000);
  EXPECT_NE(std::find(seen.begin(), seen.end(), std::pair(0u, true)), seen.end());
  seen.clear();
  out(0x43, 1, 0x34);  // the 8254 counts on, but its line is the HPET's
  out(0x40, 1, 0x00);
  out(0x40, 1, 0x01);
  machine_->manual_clock()->advance(10'000'000);
  EXPECT_TRUE(seen.empty());
}

TEST_F(MachineTest, TimerPulsesReachTheIoApicTap) {
  create();
  std::vector<std::pair<uint32_t, bool>> seen;
  machine_->board().irq_tap("ioapic")->intercept_inputs(
      [&](uint32_t line, bool level) { seen.emplace_back(line, level); });
  out(0x43, 1, 0x34);
  out(0x40, 1, 0xff);
  out(0x40, 1, 0xff);
  machine_->manual_clock()->advance(200'000'000);
  EXPECT_NE(std::find(seen.begin(), seen.end(), std::pair(0u, true)), seen.end());
  EXPECT_NE(std::find(seen.begin(), seen.end(), std::pair(0u, false)), seen.end());
}

TEST_F(MachineTest, MayBeResetAndEndWhileItsDirtyRateIsMeasured) {
  for (const DirtyRate::Mode mode : {DirtyRate::Mode::kPageSampling, DirtyRate::Mode::kDirtyBitmap}) {
    create();
    ASSERT_TRUE(machine_->dirty_rate().start({.seconds = 60, .mode = mode}));
    machine_->pause();
    machine_->reset(Cause::kHostQmpSystemReset);
    executor_->run_once(0);
    EXPECT_EQ(machine_->dirty_rate().report().status, DirtyRate::Status::kMeasuring);
    machine_.reset();
    executor_->run_once(0);
  }
}

TEST_F(MachineTest, UnknownAcceleratorsAreRefusedWithTheReason) {
  config_.accelerators = {"xen"};
  const auto made = Machine::create(config_, {.executor = *executor_, .types = types_, .exit = [](int) {}});
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("xen"), std::string::npos);
}

TEST_F(MachineTest, AcceleratorsAreTriedInOrder) {
  config_.accelerators = {"xen", "qtest"};
  create();
  EXPECT_EQ(machine_->accelerator().name(), "qtest");
}

TEST_F(MachineTest, EveryDeviceTakesBackItsOwnState) {
  config_.cpu_count = config_.max_cpus = 2;
  create();
  out(0x43, 1, 0x36);
  out(0x40, 1, 0x12);
  machine_->pause();
  for (bus::Device* device : machine_->board().devices()) {
    StateWriter before;
    device->save(before);
    StateReader reader(before.bytes());
    device->restore(reader);
    ASSERT_TRUE(reader.finish()) << device->path() << ": " << reader.finish().error().message;
    StateWriter after;
    device->save(after);
    EXPECT_EQ(before.bytes(), after.bytes()) << device->path();
  }
}

}  // namespace
}  // namespace kite::machine

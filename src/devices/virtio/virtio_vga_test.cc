#include "devices/virtio/virtio_vga.h"

#include "devices/virtio/test_virtio_gpu.h"

namespace kite::devices {
namespace {

using namespace virtio_gpu;  // NOLINT: the protocol
using namespace testing;     // NOLINT: the machine and the driver

struct VgaMachine : VirtioMachine {
  static constexpr uint64_t kVram = 0xd0000000;
  VgaMachine() {
    auto card = std::make_unique<VirtioGpu>(VirtioGpu::Config{.name = "gpu"}, nullptr, guest_memory, *executor,
                                            VirtioDevice::Options{});
    gpu = card.get();
    auto made = VirtioVga::create("vga", {.legacy = false, .vectors = 3, .class_code = kVgaClass, .beside_vga = true},
                                  std::move(card), {0x55, 0xaa, 1},
                                  {.vga = {.memory = memory.root(), .ports = ports.root(), .clock = clock}});
    EXPECT_TRUE(made);
    function = std::move(*made);
    EXPECT_TRUE(bus.attach(*function, kSlot, 0));
    function->reset();
    function->config_write(0x10, 4, kVram);
    function->config_write(0x18, 4, kModern);
    function->config_write(0x1c, 4, 0);
    function->config_write(0x20, 4, kMsix);
    function->config_write(bus::pci::kCommand, 2, 7);
    function->start();
    memory.commit();
  }
  ~VgaMachine() {
    function->stop();
    settle();
    function.reset();
  }
  // Bochs' interface: a picture of 64 by 48 with this color in its first pixel.
  void show_vga(uint32_t color) {
    for (const auto& [index, value] : {std::pair{1u, 64u}, {2u, 48u}, {3u, 32u}, {4u, 0x41u}}) {
      ports.out(0x1ce, index, 2);
      ports.out(0x1cf, value, 2);
    }
    memory.out(kVram, color, 4);
  }
  // The driver takes the screen: one black resource of 40 by 30.
  void take_screen() {
    ASSERT_TRUE(driver.negotiate(virtio::kVersion1));
    ring.emplace(*this, 0x10000, 8, false);
    driver.set_queue(0, *ring);
    driver.ready();
    settle();
    const auto run = [this](const std::vector<uint8_t>& request) {
      std::memcpy(host(0x80000), request.data(), request.size());
      ring->add({{0x80000, static_cast<uint32_t>(request.size()), false}, {0x81000, 64, true}});
      driver.kick();
      settle();
      EXPECT_TRUE(ring->take());
      EXPECT_EQ(get<uint32_t>(0x81000), GpuMachine::kOk);
    };
    run(GpuMachine::request(kCreate2d, Create2d{1, kB8G8R8X8, 40, 30}));
    run(GpuMachine::request(kSetScanout, SetScanout{{0, 0, 40, 30}, 0, 1}));
  }
  uint32_t width(bool all = true) {
    function->draw(surface, all);
    return surface.width();
  }

  ManualClock clock;
  VirtioGpu* gpu = nullptr;
  std::unique_ptr<VirtioVga> function;
  TestDriver driver{*this, kModern + 0x1000};
  std::optional<TestRing> ring;
  display::Surface surface;
};

TEST(VirtioVgaTest, IsAVgaWithTheBarsOfBoth) {
  VgaMachine machine;
  EXPECT_EQ(machine.function->config_read(0, 4), 0x10501af4U);
  EXPECT_EQ(machine.function->config_read(8, 4), 0x03000001U);
  EXPECT_EQ(machine.function->bar(0).size, 8U << 20);
  EXPECT_EQ(machine.function->bar(2).size, 0x4000U);
  EXPECT_TRUE(machine.function->bar(2).is_64);
  EXPECT_EQ(machine.function->bar(4).size, 0x1000U);
  machine.memory.out(VirtioMachine::kModern + 0x502, 800, 2);  // the VGA's page
  machine.ports.out(0x1ce, 1, 2);
  EXPECT_EQ(machine.ports.in(0x1cf, 2), 800U);
  EXPECT_EQ(machine.driver.read(0x12, 2), 2U);  // virtio's queues
  EXPECT_EQ(machine.driver.config(kNumScanouts, 4), 1U);
  // The capabilities name these places: common, ISR, device, notify.
  constexpr std::pair<uint32_t, uint32_t> kPlaces[] = {
      {0x1000, 0x800}, {0x1800, 0x800}, {0x2000, 0x1000}, {0x3000, 0x1000}};
  uint16_t at = 0x40;
  for (const auto& [offset, bytes] : kPlaces) {
    EXPECT_EQ(machine.function->config_read(static_cast<uint16_t>(at + 4), 1), 2U);
    EXPECT_EQ(machine.function->config_read(static_cast<uint16_t>(at + 8), 4), offset);
    EXPECT_EQ(machine.function->config_read(static_cast<uint16_t>(at + 12), 4), bytes);
    at = static_cast<uint16_t>(at + 0x10);
  }
}

TEST(VirtioVgaTest, TheWindowInTheConfigurationSpaceReachesTheSamePlaces) {
  VgaMachine machine;
  const auto read = [&](uint32_t offset, unsigned size) {
    machine.function->config_write(0x88, 1, 2);
    machine.function->config_write(0x8c, 4, offset);
    machine.function->config_write(0x90, 4, size);
    return machine.function->config_read(0x94, size);
  };
  EXPECT_EQ(read(0x1012, 2), 2U);  // queues
  EXPECT_EQ(read(0x2008, 4), 1U);  // scanouts
  EXPECT_EQ(read(0x502, 2), 0U);   // the VGA's page is none of it
  machine.driver.set_status(1);
  EXPECT_EQ(read(0x1014, 1), 1U);
}

TEST(VirtioVgaTest, TheScreenIsTheVgasUntilADriverTakesIt) {
  VgaMachine machine;
  machine.show_vga(0x00ff00);
  EXPECT_EQ(machine.width(), 64U);
  EXPECT_EQ(machine.surface.row(0)[0], 0x00ff00U);
  machine.take_screen();
  EXPECT_EQ(machine.width(false), 40U);
  EXPECT_EQ(machine.surface.row(0)[0], 0U);
  machine.driver.set_status(0);
  EXPECT_EQ(machine.width(false), 64U);
  EXPECT_EQ(machine.surface.row(0)[0], 0x00ff00U);
}

TEST(VirtioVgaTest, StateOfBothTravels) {
  VgaMachine source, target, other;
  source.show_vga(0x123456);
  source.take_screen();
  move_state(source, target);
  EXPECT_EQ(target.width(), 40U);
  target.driver.set_status(0);
  EXPECT_EQ(target.width(), 64U);
  EXPECT_EQ(target.surface.row(0)[0], 0x123456U);
  const auto state = saved_state(*source.function), before = saved_state(*other.function);
  EXPECT_FALSE(restore_state(*other.function, with_patched_field(state, 0x5000, 3, 0xff, 1)));  // sequencer index
  EXPECT_FALSE(restore_state(*other.function, with_patched_field(state, 2, 0, 9, 1)));
  EXPECT_EQ(saved_state(*other.function), before);
}

TEST(VirtioVgaTest, AResetOfTheMachineIsOneOfBoth) {
  VgaMachine machine;
  machine.show_vga(0x123456);
  machine.take_screen();
  machine.function->reset();
  machine.surface.resize(1, 1);
  EXPECT_EQ(machine.width(), 1U);  // nothing is shown
  machine.ports.out(0x1ce, 4, 2);
  EXPECT_EQ(machine.ports.in(0x1cf, 2), 0U);
}

}  // namespace
}  // namespace kite::devices

#include "devices/virtio/virtio_rng.h"

#include "devices/virtio/test_virtio.h"

namespace kite::devices {
namespace {

using namespace virtio;
using namespace testing;  // NOLINT: the machine and the driver

constexpr uint64_t kRing = 0x10000, kData = 0x100000;
constexpr uint16_t kRingSize = 8;
constexpr int64_t kMillisecond = 1'000'000;

// Gives 1, 2, 3 ... while it has some.
class TestSource final : public entropy::EntropySource {
 public:
  size_t take(std::span<uint8_t> to) override {
    const size_t count = std::min(to.size(), there);
    for (size_t i = 0; i < count; ++i) to[i] = ++last;
    there -= count;
    return count;
  }
  void add(size_t bytes) {
    there += bytes;
    tell_ready();
  }
  size_t there = SIZE_MAX;
  uint8_t last = 0;
};

struct RngMachine : VirtioMachine {
  explicit RngMachine(VirtioRng::Config config = {.name = "rng"}) {
    const VirtioPci::Config transport{
        .vectors = 2, .legacy_device_id = virtio_rng::kLegacyDeviceId, .class_code = virtio_rng::kClass};
    auto made = std::make_unique<TestSource>();
    source = made.get();
    function =
        std::make_unique<VirtioPci>("rng", transport,
                                    std::make_unique<VirtioRng>(std::move(config), std::move(made), clock, guest_memory,
                                                                *executor, VirtioDevice::Options{.packed = true}));
    attach(*function);
  }
  ~RngMachine() {
    function->stop();
    settle();
    function.reset();
  }
  void set_up(bool packed = false) {
    ASSERT_TRUE(driver.negotiate(kVersion1 | (packed ? kRingPacked : 0)));
    ring.emplace(*this, kRing, kRingSize, packed);
    driver.set_queue(0, *ring);
    driver.ready();
    settle();
  }
  void ask(uint64_t at, uint32_t bytes) {
    ring->add({{.address = kData + at, .bytes = bytes, .write = true}});
    driver.kick();
    settle();
  }
  uint32_t got() {
    const auto used = ring->take();
    return used ? used->written : 0;
  }

  ManualClock clock;
  TestSource* source = nullptr;
  std::unique_ptr<VirtioPci> function;
  TestDriver driver{*this};
  std::optional<TestRing> ring;
};

class VirtioRngRings : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Rings, VirtioRngRings, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Packed" : "Split"; });

TEST_P(VirtioRngRings, RequestsAreFilled) {
  RngMachine machine;
  machine.set_up(GetParam());
  for (uint8_t round = 0; round < 20; ++round) {
    machine.ask(0, 4);
    EXPECT_EQ(machine.got(), 4U);
    EXPECT_EQ(machine.get<uint8_t>(kData), 4 * round + 1);
    EXPECT_EQ(machine.get<uint8_t>(kData + 3), 4 * round + 4);
  }
}

TEST_P(VirtioRngRings, ARequestWaitsForTheSource) {
  RngMachine machine;
  machine.set_up(GetParam());
  machine.source->there = 0;
  machine.ask(0, 64);
  machine.ask(64, 64);
  EXPECT_EQ(machine.got(), 0U);
  machine.source->add(100);
  machine.settle();
  EXPECT_EQ(machine.got(), 64U);
  EXPECT_EQ(machine.got(), 36U);
  EXPECT_EQ(machine.got(), 0U);
}

TEST_P(VirtioRngRings, WhatWaitsTravelsInTheState) {
  RngMachine source;
  source.set_up(GetParam());
  source.source->there = 0;
  source.ask(0, 8);
  RngMachine target;
  move_state(source, target);
  EXPECT_EQ(target.get<uint8_t>(kData + 7), 8);
}

TEST_P(VirtioRngRings, AResetTakesBackWhatWaits) {
  RngMachine machine;
  machine.set_up(GetParam());
  machine.source->there = 0;
  machine.ask(0, 8);
  machine.driver.set_status(0);
  machine.settle();
  EXPECT_EQ(machine.driver.status(), 0);
  machine.source->add(8);
  machine.settle();
  EXPECT_EQ(machine.get<uint8_t>(kData), 0);
  machine.set_up(GetParam());
  machine.ask(0, 8);
  EXPECT_EQ(machine.got(), 8U);
}

TEST(VirtioRngTest, APeriodHasItsShare) {
  RngMachine machine({.name = "rng", .max_bytes = 100, .period_ms = 1000});
  machine.set_up();
  machine.ask(0, 60);
  machine.ask(0, 60);
  machine.ask(0, 60);
  EXPECT_EQ(machine.got(), 60U);
  EXPECT_EQ(machine.got(), 40U);
  EXPECT_EQ(machine.got(), 0U);
  machine.clock.advance(1000 * kMillisecond - 1);
  machine.settle();
  EXPECT_EQ(machine.got(), 0U);
  machine.clock.advance(1);
  machine.settle();
  EXPECT_EQ(machine.got(), 60U);
}

TEST(VirtioRngTest, LongRequestsGetLessThanTheyHaveRoomFor) {
  RngMachine machine;
  machine.set_up();
  machine.ask(0, 0x100000);
  EXPECT_EQ(machine.got(), 0x10000U);
}

TEST(VirtioRngTest, NonsenseBreaksTheDeviceUntilAReset) {
  for (const TestBuffer buffer : {TestBuffer{kData, 8, false}, TestBuffer{0x7000'0000'0000, 8, true}}) {
    RngMachine machine;
    machine.set_up();
    machine.ring->add({buffer});
    machine.driver.kick();
    machine.settle();
    EXPECT_NE(machine.driver.status() & kNeedsReset, 0);
    machine.set_up();
    machine.ask(0, 8);
    EXPECT_EQ(machine.got(), 8U);
  }
}

}  // namespace
}  // namespace kite::devices

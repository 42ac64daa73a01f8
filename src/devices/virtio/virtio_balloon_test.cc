#include "devices/virtio/virtio_balloon.h"

#include <sys/mman.h>

#include <nlohmann/json.hpp>

#include "devices/virtio/test_virtio.h"

namespace kite::devices {
namespace {

using namespace virtio_balloon;
using namespace virtio;
using namespace testing;  // NOLINT: the machine and the driver

constexpr uint64_t kRings[] = {0x10000, 0x20000, 0x30000, 0x38000}, kList = 0x100000, kStatsAt = 0x110000,
                   kPages = 0x200000;
constexpr uint16_t kRingSize = 8;
constexpr uint64_t kAll = kStats | kDeflateOnOom | kPagePoison | kReporting;
constexpr uint64_t kUnknown = UINT64_MAX;
constexpr int64_t kSecond = 1'000'000'000;

struct BalloonMachine : VirtioMachine {
  explicit BalloonMachine(bool extras = true) {
    const VirtioPci::Config transport{.vectors = 2, .legacy_device_id = kLegacyDeviceId, .class_code = kClass};
    VirtioBalloon::Config config{
        .name = "balloon", .ram_bytes = kRam, .deflate_on_oom = extras, .page_poison = extras, .reporting = extras};
    auto made = std::make_unique<VirtioBalloon>(
        std::move(config),
        VirtioBalloon::Wiring{
            .clock = clock, .realtime = realtime, .changed = [this](uint64_t bytes) { changes.push_back(bytes); }},
        guest_memory, *executor, VirtioDevice::Options{.packed = true});
    balloon = made.get();
    function = std::make_unique<VirtioPci>("balloon", transport, std::move(made));
    attach(*function);
  }
  ~BalloonMachine() {
    function->stop();
    settle();
    function.reset();
  }
  void set_up(bool packed = false, uint64_t features = kAll) {
    ASSERT_TRUE(driver.negotiate(kVersion1 | (packed ? kRingPacked : 0) | features));
    for (uint16_t queue = 0; queue < 4; ++queue) {
      rings[queue].emplace(*this, kRings[queue], kRingSize, packed);
      if (queue == kReportingQueue && (features & kReporting) == 0) continue;
      driver.set_queue(queue, *rings[queue]);
    }
    driver.ready();
    settle();
  }
  void kick(uint16_t queue) {
    driver.kick(queue);
    settle();
  }
  [[nodiscard]] bool broken() { return (driver.status() & kNeedsReset) != 0; }

  // Fills pages and answers how many of them are as they were.
  void fill(uint64_t from, unsigned pages) const { std::memset(host(from), 0x5a, pages * kPageBytes); }
  [[nodiscard]] unsigned filled(uint64_t from, unsigned pages) const {
    unsigned count = 0;
    for (unsigned page = 0; page < pages; ++page) count += get<uint8_t>(from + page * kPageBytes + 9) == 0x5a;
    return count;
  }
  // Whether the host has memory for the page.
  [[nodiscard]] bool resident(uint64_t address) const {
    unsigned char answer = 0;
    EXPECT_EQ(::mincore(host(address), kPageBytes, &answer), 0);
    return (answer & 1) != 0;
  }
  void inflate(const std::vector<uint32_t>& numbers) {
    std::memcpy(host(kList), numbers.data(), numbers.size() * kNumberBytes);
    rings[kInflateQueue]->add({{.address = kList, .bytes = static_cast<uint32_t>(numbers.size() * kNumberBytes)}});
    kick(kInflateQueue);
  }
  void offer_stats(const std::vector<std::pair<uint16_t, uint64_t>>& stats) {
    for (size_t i = 0; i < stats.size(); ++i) {
      put(kStatsAt + i * kStatBytes, stats[i].first);
      put(kStatsAt + i * kStatBytes + 2, stats[i].second);
    }
    rings[kStatsQueue]->add({{.address = kStatsAt, .bytes = static_cast<uint32_t>(stats.size() * kStatBytes)}});
    kick(kStatsQueue);
  }
  nlohmann::json property(std::string_view name) const {
    for (const LiveProperty& property : function->live_properties())
      if (property.name == name) return property.get();
    return {};
  }
  Result<> set_interval(const nlohmann::json& value) const {
    for (const LiveProperty& property : function->live_properties())
      if (property.name == "guest-stats-polling-interval") return property.set(value);
    return fail("there is no such property");
  }
  [[nodiscard]] uint64_t stat(const char* name) const { return property("guest-stats")["stats"][name]; }

  ManualClock clock, realtime;
  std::vector<uint64_t> changes;
  VirtioBalloon* balloon = nullptr;
  std::unique_ptr<VirtioPci> function;
  TestDriver driver{*this};
  std::optional<TestRing> rings[4];
};

class VirtioBalloonRings : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Rings, VirtioBalloonRings, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Packed" : "Split"; });

TEST_P(VirtioBalloonRings, InflatedPagesAreGivenBack) {
  BalloonMachine machine;
  machine.set_up(GetParam());
  for (int round = 0; round < 20; ++round) {
    machine.fill(kPages, 8);
    machine.inflate({0x205, 0x200, 0x201, 0x203});
    EXPECT_TRUE(machine.rings[kInflateQueue]->take());
    EXPECT_FALSE(machine.resident(kPages));  // before it is looked at
    EXPECT_TRUE(machine.resident(kPages + 2 * kPageBytes));
    EXPECT_EQ(machine.filled(kPages, 8), 4U);
    EXPECT_EQ(machine.get<uint64_t>(kPages + 5 * kPageBytes), 0U);
  }
  EXPECT_FALSE(machine.broken());
}

TEST_P(VirtioBalloonRings, DeflatingIsAcknowledged) {
  BalloonMachine machine;
  machine.set_up(GetParam());
  for (int round = 0; round < 20; ++round) {
    machine.rings[kDeflateQueue]->add({{.address = kList, .bytes = 16}});
    machine.kick(kDeflateQueue);
    EXPECT_TRUE(machine.rings[kDeflateQueue]->take());
  }
}

TEST_P(VirtioBalloonRings, ReportedPagesAreGivenBack) {
  BalloonMachine machine;
  machine.set_up(GetParam());
  machine.fill(kPages, 16);
  machine.rings[kReportingQueue]->add({{.address = kPages, .bytes = 4 * kPageBytes, .write = true},
                                       {.address = kPages + 8 * kPageBytes, .bytes = 2 * kPageBytes, .write = true}});
  machine.kick(kReportingQueue);
  EXPECT_TRUE(machine.rings[kReportingQueue]->take());
  EXPECT_FALSE(machine.resident(kPages + 9 * kPageBytes));
  EXPECT_EQ(machine.filled(kPages, 16), 10U);
}

TEST_P(VirtioBalloonRings, StateAndStatisticsBufferTravel) {
  BalloonMachine source;
  source.set_up(GetParam());
  source.balloon->set_target(VirtioMachine::kRam / 2);
  source.store(VirtioMachine::kModern + 0x2000 + kActualAt, 77, 4);
  source.offer_stats({{4, 1000}});
  BalloonMachine target;
  move_state(source, target);
  EXPECT_EQ(target.balloon->actual(), VirtioMachine::kRam - 77 * kPageBytes);
  EXPECT_EQ(target.driver.config(kWantedAt, 4), VirtioMachine::kRam / 2 / kPageBytes);
  EXPECT_EQ(target.stat("stat-free-memory"), 1000U);
}

// --- the host's wishes

TEST(VirtioBalloonTest, ATargetIsTheDriversToReach) {
  BalloonMachine machine;
  machine.driver.use_msix(*machine.function, 2);
  machine.set_up();
  machine.driver.write(0x10, 1, 2);
  machine.balloon->set_target(VirtioMachine::kRam - 5 * kPageBytes);
  EXPECT_EQ(machine.messages.sent[2], 1);
  EXPECT_EQ(machine.driver.config(kWantedAt, 4), 5U);
  EXPECT_EQ(machine.balloon->actual(), VirtioMachine::kRam);
  machine.store(VirtioMachine::kModern + 0x2000 + kActualAt, 5, 4);
  EXPECT_EQ(machine.balloon->actual(), VirtioMachine::kRam - 5 * kPageBytes);
  EXPECT_EQ(machine.changes, std::vector{VirtioMachine::kRam - 5 * kPageBytes});
  machine.store(VirtioMachine::kModern + 0x2000 + kActualAt, 5, 4);
  EXPECT_EQ(machine.changes.size(), 1U);
  machine.balloon->set_target(UINT64_MAX);
  EXPECT_EQ(machine.driver.config(kWantedAt, 4), 0U);
}

TEST(VirtioBalloonTest, ADriverCannotClaimLessThanNothing) {
  BalloonMachine machine;
  machine.set_up();
  machine.store(VirtioMachine::kModern + 0x2000 + kActualAt, UINT32_MAX, 4);
  EXPECT_EQ(machine.balloon->actual(), 0U);
}

TEST(VirtioBalloonTest, BytesOfTheActualSizeCountWithTheLast) {
  BalloonMachine machine;
  machine.set_up();
  for (unsigned i = 0; i < 4; ++i) machine.store(VirtioMachine::kModern + 0x2000 + kActualAt + i, i == 1 ? 1 : 0, 1);
  EXPECT_EQ(machine.changes, std::vector{VirtioMachine::kRam - 256 * kPageBytes});
}

TEST(VirtioBalloonTest, AResetGivesTheGuestItsMemoryAndKeepsTheWish) {
  BalloonMachine machine;
  machine.set_up();
  machine.balloon->set_target(VirtioMachine::kRam / 2);
  machine.store(VirtioMachine::kModern + 0x2000 + kActualAt, 5, 4);
  machine.driver.set_status(0);
  EXPECT_EQ(machine.balloon->actual(), VirtioMachine::kRam);
  EXPECT_EQ(machine.driver.config(kWantedAt, 4), VirtioMachine::kRam / 2 / kPageBytes);
  EXPECT_EQ(machine.changes.size(), 2U);
}

TEST(VirtioBalloonTest, WhatIsNotAskedForIsNotOffered) {
  BalloonMachine machine(false);
  EXPECT_EQ(machine.driver.features() & kAll, kStats);
  EXPECT_EQ(machine.driver.read(0x12, 2), 3U);
  machine.store(VirtioMachine::kModern + 0x2000 + kPoisonAt, 1, 4);
  EXPECT_EQ(machine.driver.config(kPoisonAt, 4), 0U);
}

TEST(VirtioBalloonTest, PoisonedPagesKeepTheirValue) {
  BalloonMachine machine;
  machine.set_up();
  machine.store(VirtioMachine::kModern + 0x2000 + kPoisonAt, 0x5a5a5a5a, 4);
  EXPECT_EQ(machine.driver.config(kPoisonAt, 4), 0x5a5a5a5aU);
  machine.fill(kPages, 4);
  machine.rings[kReportingQueue]->add({{.address = kPages, .bytes = 4 * kPageBytes, .write = true}});
  machine.kick(kReportingQueue);
  EXPECT_TRUE(machine.rings[kReportingQueue]->take());
  EXPECT_EQ(machine.filled(kPages, 4), 4U);
}

TEST(VirtioBalloonTest, CodeOnAPageThatGoesIsForgotten) {
  BalloonMachine machine;
  machine.set_up();
  const uint32_t generation = machine.ram->mark_code(kPages);
  machine.inflate({0x200});
  EXPECT_NE(machine.ram->code_generation(kPages)->load(), generation);
}

// --- statistics

TEST(VirtioBalloonTest, StatisticsAreAskedForAtIntervals) {
  BalloonMachine machine;
  machine.set_up();
  machine.realtime.advance(1'700'000'000 * kSecond);
  machine.offer_stats({{5, 0}});
  EXPECT_FALSE(machine.rings[kStatsQueue]->take());  // it is kept
  ASSERT_TRUE(machine.set_interval(3));
  machine.clock.advance(0);
  machine.settle();
  for (uint64_t round = 1; round <= 3; ++round) {
    ASSERT_TRUE(machine.rings[kStatsQueue]->take()) << round;
    machine.realtime.advance(kSecond);
    machine.offer_stats({{4, 1000 * round}, {5, 4000}, {99, 1}, {0, 7}});
    EXPECT_EQ(machine.stat("stat-free-memory"), 1000 * round);
    EXPECT_EQ(machine.stat("stat-swap-in"), 7U);
    EXPECT_EQ(machine.stat("stat-disk-caches"), kUnknown);
    EXPECT_EQ(machine.property("guest-stats")["last-update"], 1'700'000'000 + round);
    machine.clock.advance(3 * kSecond - 1);
    machine.settle();
    EXPECT_FALSE(machine.rings[kStatsQueue]->take());
    machine.clock.advance(1);
    machine.settle();
  }
  EXPECT_EQ(machine.property("guest-stats-polling-interval"), 3);
}

TEST(VirtioBalloonTest, NobodyIsAskedWithoutAnInterval) {
  BalloonMachine machine;
  machine.set_up();
  machine.offer_stats({{5, 0}});
  ASSERT_TRUE(machine.set_interval(2));
  ASSERT_TRUE(machine.set_interval(0));
  machine.clock.advance(100 * kSecond);
  machine.settle();
  EXPECT_FALSE(machine.rings[kStatsQueue]->take());
  EXPECT_FALSE(machine.set_interval(-1));
  EXPECT_FALSE(machine.set_interval(int64_t{1} << 40));
  EXPECT_FALSE(machine.set_interval("often"));
}

TEST(VirtioBalloonTest, AStoppedMachineIsAskedLater) {
  BalloonMachine machine;
  machine.set_up();
  machine.offer_stats({{5, 0}});
  machine.function->stop();
  ASSERT_TRUE(machine.set_interval(2));
  machine.clock.advance(0);
  machine.settle();
  EXPECT_FALSE(machine.rings[kStatsQueue]->take());
  machine.function->start();
  machine.clock.advance(2 * kSecond);
  machine.settle();
  EXPECT_TRUE(machine.rings[kStatsQueue]->take());
}

TEST(VirtioBalloonTest, OfTwoStatisticsTheLaterIsKept) {
  BalloonMachine machine;
  machine.set_up();
  machine.offer_stats({{4, 1}});
  machine.offer_stats({{4, 2}});
  EXPECT_TRUE(machine.rings[kStatsQueue]->take());
  EXPECT_FALSE(machine.rings[kStatsQueue]->take());
  EXPECT_EQ(machine.stat("stat-free-memory"), 2U);
}

TEST(VirtioBalloonTest, WhatALegacyDriverSaysFirstIsNotHeard) {
  BalloonMachine machine;
  machine.settle();
  machine.ports.commit();
  const auto port = [&](unsigned at, uint64_t value, unsigned size) {
    machine.ports.out(VirtioMachine::kPorts + at, value, size);
  };
  port(0x12, 3, 1);
  port(0x0e, kStatsQueue, 2);
  port(0x08, kRings[2] >> 12, 4);
  port(0x12, 7, 1);
  machine.put(kStatsAt, uint16_t{4});
  machine.put(kStatsAt + 2, uint64_t{5});
  for (uint16_t round = 1; round <= 2; ++round) {
    machine.put(kRings[2] + (round - 1) * 16, kStatsAt);
    machine.put(kRings[2] + (round - 1) * 16 + 8, uint32_t{kStatBytes});
    machine.put(kRings[2] + 2048 + 4 + (round - 1) * 2, static_cast<uint16_t>(round - 1));
    machine.put(kRings[2] + 2048 + 2, round);
    port(0x10, kStatsQueue, 2);
    machine.settle();
    EXPECT_EQ(machine.stat("stat-free-memory"), round == 1 ? kUnknown : 5U);
  }
}

// --- what a driver must not do

TEST(VirtioBalloonTest, PagesThatAreNoRamAreSkipped) {
  BalloonMachine machine;
  machine.set_up();
  machine.fill(kPages, 2);
  machine.inflate({0xffffffff, 0x80000, 0x200, static_cast<uint32_t>(VirtioMachine::kRam / kPageBytes)});
  EXPECT_TRUE(machine.rings[kInflateQueue]->take());
  EXPECT_EQ(machine.filled(kPages, 2), 1U);
  machine.rings[kReportingQueue]->add({{.address = 0x7000'0000'0000, .bytes = 1 << 20, .write = true},
                                       {.address = kPages + kPageBytes + 1, .bytes = kPageBytes, .write = true}});
  machine.kick(kReportingQueue);
  EXPECT_TRUE(machine.rings[kReportingQueue]->take());
  EXPECT_EQ(machine.filled(kPages, 2), 1U);  // not a whole page
  EXPECT_FALSE(machine.broken());
}

TEST(VirtioBalloonTest, LongListsAreWorkedOffInPieces) {
  BalloonMachine machine;
  machine.set_up();
  // The same two mebibytes, as a list of numbers, many times over.
  std::vector<TestBuffer> buffers(7, {.address = kPages, .bytes = 0x1f0000});
  machine.rings[kInflateQueue]->add(buffers);
  machine.driver.kick(kInflateQueue);
  for (int i = 0; i < 3; ++i) machine.executor->run_once(0);
  EXPECT_FALSE(machine.rings[kInflateQueue]->take());
  machine.driver.set_status(0);
  machine.settle();
  EXPECT_EQ(machine.driver.status(), 0);
  machine.set_up();
  machine.inflate({0x200});
  EXPECT_TRUE(machine.rings[kInflateQueue]->take());
}

TEST(VirtioBalloonTest, ListsThatAreNoWholeNumbersEnd) {
  BalloonMachine machine;
  machine.set_up();
  for (const uint32_t bytes : {1U, 3U, 5U, 7U}) {
    machine.put(kList, uint64_t{0});
    machine.rings[kInflateQueue]->add({{.address = kList, .bytes = bytes}});
    machine.kick(kInflateQueue);
    EXPECT_TRUE(machine.rings[kInflateQueue]->take());
  }
  machine.rings[kInflateQueue]->add({{.address = kList, .bytes = 64, .write = true}});
  machine.rings[kReportingQueue]->add({{.address = kList, .bytes = 64}});
  machine.kick(kInflateQueue);
  machine.kick(kReportingQueue);
  EXPECT_TRUE(machine.rings[kInflateQueue]->take());
  EXPECT_TRUE(machine.rings[kReportingQueue]->take());
  EXPECT_FALSE(machine.broken());
}

TEST(VirtioBalloonTest, ListsOutsideOfMemoryBreakTheDevice) {
  for (const uint16_t queue : {kInflateQueue, kStatsQueue}) {
    BalloonMachine machine;
    machine.set_up();
    machine.rings[queue]->add({{.address = 0x7000'0000'0000, .bytes = 40}});
    machine.kick(queue);
    EXPECT_TRUE(machine.broken());
    machine.set_up();
    machine.inflate({0x200});
    EXPECT_TRUE(machine.rings[kInflateQueue]->take());
  }
}

}  // namespace
}  // namespace kite::devices

#include "devices/virtio/virtio_pci.h"

#include <random>

#include "devices/virtio/test_virtio_blk.h"

namespace kite::devices {
namespace {

using namespace virtio;
using namespace virtio_blk;
using namespace testing;  // NOLINT: the machine, the driver and the places in memory

constexpr Choice kSplit{false, false}, kPacked{true, false};
constexpr uint8_t kNeedsResetAndAll = 15 | kNeedsReset;

// --- what the function shows

TEST(VirtioPciTest, TransitionalFunctionsHaveTheOldNumbers) {
  BlkMachine machine;
  EXPECT_EQ(machine.function->config_read(0, 4), 0x10011af4U);
  EXPECT_EQ(machine.function->config_read(8, 4), 0x01000000U);
  EXPECT_EQ(machine.function->config_read(0x2c, 4), 0x00021af4U);
}

TEST(VirtioPciTest, ModernFunctionsHaveTheNewNumbersAndNoPorts) {
  VirtioPci::Config transport;
  transport.legacy = false;
  BlkMachine machine({}, transport);
  EXPECT_EQ(machine.function->config_read(0, 4), 0x10421af4U);
  EXPECT_EQ(machine.function->config_read(8, 1), 1U);
  EXPECT_EQ(machine.function->bar(0).size, 0U);
  machine.set_up(kSplit);
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kOk);
}

TEST(VirtioPciTest, LegacyFunctionsHaveNoModernBar) {
  VirtioPci::Config transport;
  transport.modern = false;
  BlkMachine machine({}, transport);
  EXPECT_EQ(machine.function->bar(4).size, 0U);
  EXPECT_EQ(machine.function->find_capability(virtio_pci::kVendorCapability), 0);
}

TEST(VirtioPciTest, CapabilitiesNameTheParts) {
  BlkMachine machine;
  std::map<unsigned, std::pair<uint32_t, uint32_t>> parts;  // by type: offset and length in BAR 4
  for (uint16_t at = static_cast<uint8_t>(machine.function->config_read(0x34, 1)); at != 0;
       at = static_cast<uint8_t>(machine.function->config_read(at + 1u, 1))) {
    if (machine.function->config_read(at, 1) != virtio_pci::kVendorCapability) continue;
    parts[machine.function->config_read(at + 3u, 1)] = {machine.function->config_read(at + 8u, 4),
                                                        machine.function->config_read(at + 12u, 4)};
  }
  ASSERT_EQ(parts.size(), 5U);
  EXPECT_EQ(parts[virtio_pci::kCommonCap].first, 0U);
  EXPECT_EQ(parts[virtio_pci::kNotifyCap].first, 0x3000U);
}

TEST(VirtioPciTest, RegistersAreReachedThroughTheConfigurationSpace) {
  BlkMachine machine;
  constexpr uint16_t kAccess = 0x84;
  bus::PciDevice& function = *machine.function;
  ASSERT_EQ(function.config_read(kAccess + 3, 1), virtio_pci::kPciCap);
  function.config_write(kAccess + 4, 1, 4);
  function.config_write(kAccess + 8, 4, 0x14);
  function.config_write(kAccess + 12, 4, 1);
  function.config_write(kAccess + 16, 1, 1);
  EXPECT_EQ(machine.driver.status(), 1);
  EXPECT_EQ(function.config_read(kAccess + 16, 1), 1U);
  function.config_write(kAccess + 8, 4, 0x2000);
  function.config_write(kAccess + 12, 4, 4);
  EXPECT_EQ(function.config_read(kAccess + 16, 4), kDiskBytes / 512);
  function.config_write(kAccess + 8, 4, 0xfffffff0);
  EXPECT_EQ(function.config_read(kAccess + 16, 4), 0U);
}

// --- setting up

TEST(VirtioPciTest, FeaturesThatWereNotOfferedAreRefused) {
  BlkMachine machine({}, {}, {});
  EXPECT_FALSE(machine.driver.negotiate(kVersion1 | kRingPacked));
  EXPECT_FALSE(machine.driver.negotiate(kVersion1 | uint64_t{1} << 63));
  EXPECT_FALSE(machine.driver.negotiate(kFlush));  // without VERSION_1
  EXPECT_TRUE(machine.driver.negotiate(kVersion1));
}

TEST(VirtioPciTest, ThePlatformsAddressesMustBeAcceptedWhenOffered) {
  VirtioPci::Config transport;
  transport.legacy = false;
  BlkMachine machine({}, transport, {.access_platform = true});
  EXPECT_FALSE(machine.driver.negotiate(kVersion1));
  EXPECT_TRUE(machine.driver.negotiate(kVersion1 | kAccessPlatform));
}

TEST(VirtioPciTest, FeaturesStandOnceTheyAreOk) {
  BlkMachine machine;
  ASSERT_TRUE(machine.driver.negotiate(kVersion1 | kFlush));
  machine.driver.write(8, 0, 4);
  machine.driver.write(0xc, 0, 4);
  EXPECT_EQ(machine.driver.read(0xc, 4), kFlush);
}

TEST(VirtioPciTest, QueuesCanBeMadeSmallerButNotLarger) {
  BlkMachine machine;
  machine.driver.write(0x16, 0, 2);
  EXPECT_EQ(machine.driver.read(0x18, 2), 256U);
  machine.driver.write(0x18, 16, 2);
  EXPECT_EQ(machine.driver.read(0x18, 2), 16U);
  machine.driver.write(0x18, 512, 2);
  EXPECT_EQ(machine.driver.read(0x18, 2), 16U);
  machine.driver.write(0x16, 1, 2);
  EXPECT_EQ(machine.driver.read(0x18, 2), 0U);
}

TEST(VirtioPciTest, VectorsThatDoNotExistReadAsNone) {
  BlkMachine machine;
  machine.driver.write(0x10, 2, 2);
  EXPECT_EQ(machine.driver.read(0x10, 2), 2U);
  machine.driver.write(0x10, 3, 2);
  EXPECT_EQ(machine.driver.read(0x10, 2), kNoVector);
}

TEST(VirtioPciTest, NothingIsServedBeforeTheDriverIsReady) {
  BlkMachine machine;
  ASSERT_TRUE(machine.driver.negotiate(kVersion1 | kFlush));
  machine.ring.emplace(machine, kRing, kRingSize, false);
  machine.driver.set_queue(0, *machine.ring);
  machine.add(0, kFlushRequest, 0, {});
  machine.driver.kick();
  machine.settle();
  EXPECT_FALSE(machine.ring->take());
  machine.driver.ready();
  machine.settle();
  EXPECT_TRUE(machine.ring->take());
}

TEST(VirtioPciTest, WithoutBusMasteringNothingIsServed) {
  BlkMachine machine;
  machine.set_up(kSplit);
  machine.function->config_write(bus::pci::kCommand, 2, 3);
  machine.add(0, kFlushRequest, 0, {});
  machine.driver.kick();
  machine.settle();
  EXPECT_FALSE(machine.ring->take());
  machine.function->config_write(bus::pci::kCommand, 2, 7);
  machine.settle();
  EXPECT_TRUE(machine.ring->take());
}

TEST(VirtioPciTest, AStoppedMachineServesWhenItGoesOn) {
  BlkMachine machine;
  machine.set_up(kSplit);
  machine.function->stop();
  machine.add(0, kFlushRequest, 0, {});
  machine.driver.kick();
  machine.settle();
  EXPECT_FALSE(machine.ring->take());
  machine.function->start();
  machine.settle();
  EXPECT_TRUE(machine.ring->take());
}

TEST(VirtioPciTest, KicksArriveWithoutDoorbells) {
  VirtioPci::Config transport;
  transport.doorbells = false;
  transport.page_per_queue = true;
  BlkMachine machine({}, transport);
  machine.set_up(kSplit);
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kOk);
}

// --- interrupts

TEST(VirtioPciTest, ThePinFollowsTheInterruptStatus) {
  BlkMachine machine;
  machine.set_up(kSplit);
  const uint32_t line = bus::PciBus::pirq_of(VirtioMachine::kSlot, 1);
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kOk);
  EXPECT_TRUE(machine.lines.level(line));
  EXPECT_EQ(machine.driver.isr(), 1);
  EXPECT_FALSE(machine.lines.level(line));
  EXPECT_EQ(machine.driver.isr(), 0);
}

TEST(VirtioPciTest, ADriverThatWantsNoInterruptsGetsNone) {
  BlkMachine machine;
  machine.driver.use_msix(*machine.function, 3);
  machine.set_up(kSplit);
  machine.put(machine.ring->driver, kNoInterrupt);
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kOk);
  EXPECT_EQ(machine.messages.sent[2], 0);
  machine.put(machine.ring->driver, uint16_t{0});
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kOk);
  EXPECT_EQ(machine.messages.sent[2], 1);
}

TEST(VirtioPciTest, TheEventIndexSaysWhenToInterrupt) {
  BlkMachine machine;
  machine.driver.use_msix(*machine.function, 3);
  machine.set_up({.packed = false, .event_index = true});
  machine.put(machine.ring->used_event(), uint16_t{3});
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kOk);  // the first always does
  for (int i = 1; i < 3; ++i) EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kOk);
  EXPECT_EQ(machine.messages.sent[2], 1);
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kOk);
  EXPECT_EQ(machine.messages.sent[2], 2);
  EXPECT_EQ(machine.get<uint16_t>(machine.ring->avail_event()), 4);
}

TEST(VirtioPciTest, PackedEventsAreBySlotAndLap) {
  BlkMachine machine;
  machine.driver.use_msix(*machine.function, 3);
  machine.set_up({.packed = true, .event_index = true});
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}, kTables), kOk);  // slot 0
  machine.put(machine.ring->driver, uint16_t{2});                  // slot 2 of the second lap
  machine.put(machine.ring->driver + 2, uint16_t{kEventsAt});
  for (int i = 1; i < 10; ++i) EXPECT_EQ(machine.request(kFlushRequest, 0, {}, kTables), kOk);
  EXPECT_EQ(machine.messages.sent[2], 1);
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}, kTables), kOk);
  EXPECT_EQ(machine.messages.sent[2], 2);
}

TEST(VirtioPciTest, AWholeLapIsNotTakenForNothing) {
  BlkMachine machine;
  machine.driver.use_msix(*machine.function, 3);
  machine.set_up({.packed = true, .event_index = true});
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}, kTables), kOk);
  machine.put(machine.ring->driver, uint16_t{0x8000 | 5});
  machine.put(machine.ring->driver + 2, uint16_t{kEventsAt});
  for (unsigned i = 0; i < kRingSize; ++i) machine.add(i, kFlushRequest, 0, {}, kTables + i * 256);
  machine.driver.kick();
  machine.settle();
  EXPECT_EQ(machine.messages.sent[2], 2);
}

// --- the legacy interface

class LegacyDriver {
 public:
  explicit LegacyDriver(BlkMachine& machine) : machine_(machine) {}
  uint64_t in(unsigned at, unsigned size) { return machine_.ports.in(VirtioMachine::kPorts + at, size); }
  void out(unsigned at, uint64_t value, unsigned size) { machine_.ports.out(VirtioMachine::kPorts + at, value, size); }
  // The ring where legacy rings have their parts.
  void set_up(uint64_t features) {
    out(18, 0, 1);
    out(18, 3, 1);
    out(4, features, 4);
    out(14, 0, 2);
    queue_size = static_cast<uint16_t>(in(12, 2));
    out(8, kRing / 4096, 4);
    out(18, 7, 1);
    machine_.memory.commit();
  }
  uint16_t queue_size = 0;

 private:
  BlkMachine& machine_;
};

TEST(VirtioLegacyTest, RequestsThroughThePorts) {
  VirtioBlk::Config config;
  config.queue_size = 256;
  BlkMachine machine(config);
  LegacyDriver driver(machine);
  EXPECT_EQ(driver.in(0, 4) & 0xff000000, kNotifyOnEmpty | kAnyLayout | kIndirect | kEventIndex);
  driver.set_up(kFlush);
  ASSERT_EQ(driver.queue_size, 256);
  EXPECT_EQ(driver.in(20, 4), kDiskBytes / 512);
  const uint64_t at = machine.header(0, kIn, 1);
  machine.disk->data[512] = 0x66;
  const uint64_t avail = kRing + 4096, used = kRing + 8192;
  std::memset(machine.host(kRing), 0, 16384);
  TestRing ring(machine, 0x40000, 8, false);
  ring.put_descriptor(kRing, 0, at, 16, kNext, 1);
  ring.put_descriptor(kRing, 1, kData, 512, kNext | kWrite, 2);
  ring.put_descriptor(kRing, 2, at + 16, 1, kWrite, 0);
  machine.put(avail + 2, uint16_t{1});
  driver.out(16, 0, 2);
  machine.settle();
  EXPECT_EQ(machine.get<uint16_t>(used + 2), 1);
  EXPECT_EQ(machine.get<uint8_t>(kData), 0x66);
  EXPECT_EQ(driver.in(19, 1), 1U);
  driver.out(8, 0, 4);
  EXPECT_EQ(driver.in(8, 4), 0U);
}

TEST(VirtioLegacyTest, MsixMovesTheConfiguration) {
  BlkMachine machine;
  LegacyDriver driver(machine);
  machine.driver.use_msix(*machine.function, 3);
  EXPECT_EQ(driver.in(24, 4), kDiskBytes / 512);
  driver.out(20, 1, 2);
  EXPECT_EQ(driver.in(20, 2), 1U);
  driver.out(22, 7, 2);
  EXPECT_EQ(driver.in(22, 2), kNoVector);
}

TEST(VirtioLegacyTest, ALegacyDriverMayKickBeforeItIsReady) {
  BlkMachine machine;
  LegacyDriver driver(machine);
  driver.set_up(kFlush);
  driver.out(18, 3, 1);
  std::memset(machine.host(kRing), 0, 16384);
  const uint64_t at = machine.header(0, kFlushRequest, 0);
  TestRing ring(machine, 0x40000, 8, false);
  ring.put_descriptor(kRing, 0, at, 16, kNext, 1);
  ring.put_descriptor(kRing, 1, at + 16, 1, kWrite, 0);
  machine.put(kRing + 4096 + 2, uint16_t{1});
  driver.out(16, 0, 2);
  machine.settle();
  EXPECT_EQ(machine.request_status(), kOk);
}

// --- drivers that do what they must not

struct Malformed {
  const char* name;
  void (*make)(BlkMachine& machine);
};
void PrintTo(const Malformed& malformed, std::ostream* to) { *to << malformed.name; }

class VirtioMalformed : public ::testing::TestWithParam<Malformed> {};

constexpr Malformed kMalformed[] = {
    {"HeadBeyondTheTable", [](BlkMachine& m) { m.ring->publish(kRingSize); }},
    {"NextBeyondTheTable",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kRing, 0, kHeaders, 16, kNext, kRingSize);
       m.ring->publish(0);
     }},
    {"ChainInACircle",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kRing, 0, kHeaders, 16, kNext, 1);
       m.ring->put_descriptor(kRing, 1, kHeaders, 16, kNext, 0);
       m.ring->publish(0);
     }},
    {"EmptyDescriptor",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kRing, 0, kHeaders, 0, 0, 0);
       m.ring->publish(0);
     }},
    {"ReadableAfterWritable",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kRing, 0, kHeaders, 16, kNext | kWrite, 1);
       m.ring->put_descriptor(kRing, 1, kHeaders, 16, 0, 0);
       m.ring->publish(0);
     }},
    {"IndexRunsAway", [](BlkMachine& m) { m.put(m.ring->driver + 2, uint16_t{kRingSize + 1}); }},
    {"AddressWithoutMemory",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kRing, 0, uint64_t{1} << 39, 16, kNext, 1);
       m.ring->put_descriptor(kRing, 1, kHeaders + 16, 1, kWrite, 0);
       m.ring->publish(0);
     }},
    {"AddressOverTheEnd",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kRing, 0, ~uint64_t{0} - 3, 16, 0, 0);
       m.ring->publish(0);
     }},
    {"DataInADevice",
     [](BlkMachine& m) {
       m.header(0, kIn, 0);
       m.ring->put_descriptor(kRing, 0, kHeaders, 16, kNext, 1);
       m.ring->put_descriptor(kRing, 1, VirtioMachine::kModern, 512, kNext | kWrite, 2);
       m.ring->put_descriptor(kRing, 2, kHeaders + 16, 1, kWrite, 0);
       m.ring->publish(0);
     }},
    {"NoRoomForTheStatus",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kRing, 0, kHeaders, 16, 0, 0);
       m.ring->publish(0);
     }},
    {"HeaderTooShort",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kRing, 0, kHeaders, 15, kNext, 1);
       m.ring->put_descriptor(kRing, 1, kHeaders + 16, 1, kWrite, 0);
       m.ring->publish(0);
     }},
    {"TableInATable",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kTables, 0, kHeaders, 16, kTable, 0);
       m.ring->put_descriptor(kRing, 0, kTables, 16, kTable, 0);
       m.ring->publish(0);
     }},
    {"TableOfOddSize",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kRing, 0, kTables, 24, kTable, 0);
       m.ring->publish(0);
     }},
    {"TableAndMore",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kRing, 0, kTables, 16, kTable | kNext, 1);
       m.ring->publish(0);
     }},
    {"TableWithoutMemory",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kRing, 0, uint64_t{1} << 38, 16, kTable, 0);
       m.ring->publish(0);
     }},
    {"HugeTable",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kRing, 0, kTables, 16 * 4096, kTable, 0);
       m.ring->publish(0);
     }},
    {"CircleInATable",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kTables, 0, kHeaders, 16, kNext, 1);
       m.ring->put_descriptor(kTables, 1, kHeaders, 16, kNext, 0);
       m.ring->put_descriptor(kRing, 0, kTables, 32, kTable, 0);
       m.ring->publish(0);
     }},
    {"NextBeyondTheIndirectTable",
     [](BlkMachine& m) {
       m.ring->put_descriptor(kTables, 0, kHeaders, 16, kNext, 7);
       m.ring->put_descriptor(kRing, 0, kTables, 32, kTable, 0);
       m.ring->publish(0);
     }},
    {"MoreInFlightThanDescriptors",
     [](BlkMachine& m) {
       m.drive->hold();
       const uint64_t at = m.header(0, kFlushRequest, 0);
       m.ring->put_descriptor(kRing, 0, at, 16, kNext, 1);
       m.ring->put_descriptor(kRing, 1, at + 16, 1, kWrite, 0);
       for (unsigned i = 0; i < kRingSize; ++i) m.ring->publish(0);
       m.driver.kick();
       m.settle();
       m.ring->publish(0);
     }},
};
INSTANTIATE_TEST_SUITE_P(Rings, VirtioMalformed, ::testing::ValuesIn(kMalformed),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(VirtioMalformed, BreaksTheDeviceUntilAReset) {
  BlkMachine machine;
  machine.driver.use_msix(*machine.function, 3);
  machine.set_up(kSplit);
  machine.driver.write(0x10, 2, 2);
  GetParam().make(machine);
  machine.driver.kick();
  machine.settle();
  EXPECT_EQ(machine.driver.status(), kNeedsResetAndAll);
  EXPECT_EQ(machine.messages.sent[3], 1);
  machine.driver.set_status(0);
  machine.settle();
  EXPECT_EQ(machine.driver.status(), 0);
  machine.set_up(kSplit);
  if (std::string(GetParam().name) == "MoreInFlightThanDescriptors") machine.drive->release();
  EXPECT_EQ(machine.request(kFlushRequest, 0, {}), kOk);
}

TEST(VirtioMalformedTest, RingsOutsideOfMemoryBreakTheDevice) {
  BlkMachine machine;
  ASSERT_TRUE(machine.driver.negotiate(kVersion1));
  machine.driver.write(0x16, 0, 2);
  machine.driver.write(0x24, 0x7f, 4);
  machine.driver.write(0x1c, 1, 2);
  machine.driver.ready();
  machine.settle();
  EXPECT_EQ(machine.driver.status(), kNeedsResetAndAll);
}

TEST(VirtioMalformedTest, PackedCirclesEndAtTheQueuesSize) {
  BlkMachine machine;
  machine.set_up(kPacked);
  for (unsigned i = 0; i < kRingSize; ++i) machine.ring->put_descriptor(kRing, i, kHeaders, 16, 0, kNext | kAvail);
  machine.driver.kick();
  machine.settle();
  EXPECT_EQ(machine.driver.status(), kNeedsResetAndAll);
}

// Random rings and registers: whatever happens, a reset makes the device work again.
TEST(VirtioMalformedTest, StormsHarmNothing) {
  std::mt19937_64 random(11);
  const auto below = [&random](uint64_t limit) { return random() % limit; };
  BlkMachine machine;
  for (int round = 0; round < 300; ++round) {
    const bool packed = below(2) == 0;
    machine.set_up({.packed = packed, .event_index = below(2) == 0}, kFlush | kRingReset | kWriteZeroes | kDiscard);
    for (int step = 0; step < 40; ++step) {
      switch (below(6)) {
        case 0:
        case 1: {  // a descriptor that could be one
          const uint64_t at = below(2) == 0 ? kRing : kTables;
          const auto flags = static_cast<uint16_t>(random() & (packed ? 0x8087 : 7));
          const auto other = static_cast<uint16_t>(below(kRingSize + 1));
          const uint64_t address = below(8) == 0 ? random() : kHeaders + below(512);
          machine.ring->put_descriptor(at, static_cast<unsigned>(below(kRingSize)), address,
                                       static_cast<uint32_t>(below(700)), packed ? other : flags,
                                       packed ? flags : other);
          break;
        }
        case 2: machine.header(static_cast<unsigned>(below(16)), static_cast<uint32_t>(below(16)), below(3000)); break;
        case 3:
          if (!packed) machine.ring->publish(static_cast<uint16_t>(below(kRingSize)));
          break;
        case 4: machine.driver.write(static_cast<uint8_t>(below(0x3c)), random() >> below(64), 1u << below(3)); break;
        default: machine.driver.kick(static_cast<uint16_t>(below(2)));
      }
      machine.executor->run_once(0);
    }
    if (round % 10 == 0) {
      const auto state = saved_state(*machine.function);
      ASSERT_TRUE(restore_state(*machine.function, state));
      ASSERT_EQ(saved_state(*machine.function).size(), state.size());
    }
    machine.driver.set_status(0);
    machine.settle();
    ASSERT_EQ(machine.driver.status(), 0);
    machine.set_up(kSplit);
    ASSERT_EQ(machine.request(kFlushRequest, 0, {}), kOk) << round;
  }
}

TEST(VirtioStateTest, DamagedStateIsRefusedOrHarmless) {
  BlkMachine machine;
  machine.set_up(kSplit);
  machine.drive->hold();
  machine.add(0, kIn, 0, {{kData, 512, true}});
  machine.driver.kick();
  machine.settle();
  machine.function->stop();
  const auto good = saved_state(*machine.function);
  std::mt19937_64 random(3);
  unsigned refused = 0;
  for (int i = 0; i < 3000; ++i) {
    const auto before = saved_state(*machine.function);
    auto damaged = good;
    damaged[random() % damaged.size()] ^= static_cast<uint8_t>(1u << random() % 8);
    if (restore_state(*machine.function, damaged)) continue;
    ++refused;
    ASSERT_EQ(saved_state(*machine.function), before);
  }
  EXPECT_GT(refused, 500U);
  machine.drive->release();
}

}  // namespace
}  // namespace kite::devices

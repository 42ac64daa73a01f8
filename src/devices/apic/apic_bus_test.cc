#include "devices/apic/apic_bus.h"

#include <gtest/gtest.h>

#include <thread>

#include "devices/apic/test_apic.h"

namespace kite::devices {
namespace {

using testing::ApicMachine;
using testing::Reg;

constexpr uint32_t kLogical = 1u << 11, kAssert = 1u << 14, kLevelTrigger = 1u << 15;
constexpr uint32_t kToSelf = 1u << 18, kToAll = 2u << 18, kToOthers = 3u << 18;
constexpr uint32_t kLowest = 0x100, kNmi = 0x400, kInit = 0x500, kStartup = 0x600;

TEST(ApicBusTest, PhysicalDestination) {
  ApicMachine m(3);
  m.ipi(0, 2, 0x4051);
  EXPECT_EQ(m.requested(0x51), 0b100u);
}

TEST(ApicBusTest, PhysicalBroadcast) {
  ApicMachine m(3);
  m.ipi(1, 0xff, 0x4051);
  EXPECT_EQ(m.requested(0x51), 0b111u);
}

TEST(ApicBusTest, Shorthands) {
  ApicMachine m(3);
  m.ipi(1, 0, kToSelf | 0x51);
  EXPECT_EQ(m.requested(0x51), 0b010u);
  m.ipi(1, 0, kToAll | 0x52);
  EXPECT_EQ(m.requested(0x52), 0b111u);
  m.ipi(1, 0, kToOthers | 0x53);
  EXPECT_EQ(m.requested(0x53), 0b101u);
}

TEST(ApicBusTest, WritableXapicIdIsTheDestination) {
  ApicMachine m(2);
  m.write(1, Reg::ID, 0x42000000);
  m.ipi(0, 0x42, 0x4051);
  EXPECT_EQ(m.requested(0x51), 0b10u);
  m.write(0, Reg::ID, 0x42000000);  // an alias: both take it
  m.ipi(0, 0x42, 0x4052);
  EXPECT_EQ(m.requested(0x52), 0b11u);
}

TEST(ApicBusTest, LogicalFlat) {
  ApicMachine m(3);
  for (unsigned i = 0; i < 3; ++i) m.write(i, Reg::LDR, 1u << (24 + i));
  m.ipi(0, 0b101, kLogical | 0x51);
  EXPECT_EQ(m.requested(0x51), 0b101u);
  m.ipi(0, 0b1000, kLogical | 0x52);
  EXPECT_EQ(m.requested(0x52), 0u);
}

TEST(ApicBusTest, LogicalCluster) {
  ApicMachine m(4);
  for (unsigned i = 0; i < 4; ++i) {
    m.write(i, Reg::DFR, 0x0fffffff);
    m.write(i, Reg::LDR, (i / 2) << 28 | 1u << (24 + i % 2));
  }
  m.ipi(0, 0x13, kLogical | 0x51);
  EXPECT_EQ(m.requested(0x51), 0b1100u);
  m.ipi(0, 0x02, kLogical | 0x52);
  EXPECT_EQ(m.requested(0x52), 0b0010u);
}

TEST(ApicBusTest, X2apicDestinations) {
  ApicMachine m(20);
  for (unsigned i = 0; i < 20; ++i) {
    ASSERT_TRUE(m.enter_x2apic(i));
    ASSERT_TRUE(m.apics[i]->msr_write(0x80f, 0x1ff));
  }
  const auto ipi = [&](uint32_t destination, uint32_t low) {
    ASSERT_TRUE(m.apics[0]->msr_write(0x830, uint64_t{destination} << 32 | low));
  };
  ipi(17, 0x4051);
  EXPECT_EQ(m.requested(0x51), 1u << 17);
  ipi(0xffffffff, 0x4052);
  EXPECT_EQ(m.requested(0x52), 0xfffffu);
  ipi(0x0001000a, kLogical | 0x53);
  EXPECT_EQ(m.requested(0x53), 1u << 17 | 1u << 19);
  ipi(0xff, 0x4054);  // no broadcast with 32 bits
  EXPECT_EQ(m.requested(0x54), 0u);
}

TEST(ApicBusTest, EightBitDestinationsReachX2apicProcessors) {
  ApicMachine m(4);
  for (unsigned i = 0; i < 4; ++i) {
    ASSERT_TRUE(m.enter_x2apic(i));
    ASSERT_TRUE(m.apics[i]->msr_write(0x80f, 0x1ff));
  }
  m.bus.send({.destination = 0xd, .logical = true, .vector = 0x51});
  EXPECT_EQ(m.requested(0x51), 0b1101u);
  m.bus.send({.destination = 0xff, .vector = 0x52});
  EXPECT_EQ(m.requested(0x52), 0b1111u);
}

TEST(ApicBusTest, LowestPriorityGoesToOne) {
  ApicMachine m(3);
  m.write(0, Reg::TPR, 0x40);
  m.write(1, Reg::TPR, 0x20);
  m.write(2, Reg::TPR, 0x30);
  m.ipi(0, 0xff, kLowest | 0x51);
  EXPECT_EQ(m.requested(0x51), 0b010u);
}

TEST(ApicBusTest, LowestPrioritySkipsDisabledProcessors) {
  ApicMachine m(2);
  m.write(0, Reg::SVR, 0xff);
  m.write(1, Reg::TPR, 0xf0);
  EXPECT_TRUE(m.bus.send({.destination = 0xff, .mode = DeliveryMode::kLowestPriority, .vector = 0x51}));
  EXPECT_EQ(m.requested(0x51), 0b10u);
}

TEST(ApicBusTest, InitAndStartup) {
  ApicMachine m(3);
  m.ipi(0, 0, kToOthers | kInit | kAssert | kLevelTrigger);
  m.ipi(0, 0, kToOthers | kInit | kLevelTrigger);  // de-assert: nothing
  m.ipi(0, 0, kToOthers | kStartup | 0x9a);
  EXPECT_EQ(m.cpus[0]->inits, 0);
  for (unsigned i = 1; i < 3; ++i) {
    EXPECT_EQ(m.cpus[i]->inits, 1);
    EXPECT_EQ(m.cpus[i]->sipis, (std::vector<uint8_t>{0x9a}));
  }
}

TEST(ApicBusTest, NmiIgnoresPriorities) {
  ApicMachine m(2);
  m.write(1, Reg::TPR, 0xff);
  m.ipi(0, 1, kNmi);
  EXPECT_EQ(m.cpus[1]->nmis, 1);
  m.ipi(0, 0, kNmi);
  EXPECT_EQ(m.cpus[0]->nmis, 1);
}

TEST(ApicBusTest, DeliveryModesThatAreNotForIpisAreDropped) {
  ApicMachine m(2);
  m.ipi(0, 1, 0x300 | 0x51);
  m.ipi(0, 1, 0x700 | 0x51);
  m.pic.vector = 8;
  EXPECT_FALSE(m.apics[1]->has_interrupt());
  EXPECT_EQ(m.requested(0x51), 0u);
}

TEST(ApicBusTest, DeliveryStatusIsAlwaysIdle) {
  ApicMachine m(1);
  m.ipi(0, 0x77, 0xffffffff & ~0x700u);
  EXPECT_EQ(m.read(0, Reg::ICR) & 0x1000, 0u);
  EXPECT_EQ(m.read(0, Reg::ICR_HIGH), 0x77000000u);
}

TEST(ApicBusTest, HardwareDisabledProcessorHearsNothing) {
  ApicMachine m(2);
  ASSERT_TRUE(m.apics[1]->set_base(0xfee00000));
  m.ipi(0, 0, kToOthers | kNmi);
  m.ipi(0, 0, kToOthers | kInit | kAssert);
  EXPECT_EQ(m.cpus[1]->nmis, 0);
  EXPECT_EQ(m.cpus[1]->inits, 0);
}

TEST(ApicBusTest, MessageSignalledInterrupt) {
  ApicMachine m(3);
  EXPECT_TRUE(m.bus.send_msi(0xfee02000, 0x0051));
  EXPECT_EQ(m.requested(0x51), 0b100u);
  EXPECT_FALSE(m.bit(2, Reg::TMR, 0x51));
}

TEST(ApicBusTest, LevelMessageSetsTmr) {
  ApicMachine m(1);
  EXPECT_FALSE(m.bus.send_msi(0xfee00000, 0x8051));  // not asserted
  EXPECT_TRUE(m.bus.send_msi(0xfee00000, 0xc051));
  EXPECT_TRUE(m.bit(0, Reg::TMR, 0x51));
}

TEST(ApicBusTest, RedirectionHintPicksOne) {
  ApicMachine m(3);
  for (unsigned i = 0; i < 3; ++i) m.write(i, Reg::LDR, 1u << (24 + i));
  m.write(0, Reg::TPR, 0x20);
  EXPECT_TRUE(m.bus.send_msi(0xfee0700c, 0x51));
  EXPECT_EQ(m.requested(0x51), 0b010u);
}

TEST(ApicBusTest, NonsenseMessagesAreDropped) {
  ApicMachine m(1);
  EXPECT_FALSE(m.bus.send_msi(0xfed00000, 0x51));
  EXPECT_FALSE(m.bus.send_msi(0xfef00000, 0x51));
  EXPECT_FALSE(m.bus.send_msi(0xfee00000, 0x351));
  EXPECT_FALSE(m.bus.send_msi(0xfee00000, 0x651));
  EXPECT_FALSE(m.bus.send_msi(0xfee00000, 0x005));
  EXPECT_FALSE(m.bus.send_msi(0xfee55000, 0x51));
}

TEST(ApicBusTest, MessagesToMemoryAreWrites) {
  ApicMachine m(1);
  auto block = RamBlock::create("ram", 4096);
  ASSERT_TRUE(block);
  AddressSpace space("memory", uint64_t{1} << 40);
  space.root().add(0, Region::ram("ram", *block));
  space.commit();
  GuestMemory memory(space);
  m.bus.set_memory(memory);
  EXPECT_FALSE(m.bus.send_msi(0x100, 0x12345678));
  EXPECT_EQ(memory.load<uint32_t>(0x100).value(), 0x12345678u);
  EXPECT_FALSE(m.bus.send_msi(0xfed00000, 0x51));
}

TEST(ApicBusTest, MessageSpaceReadsAllOnesAndTakes32BitWrites) {
  ApicMachine m(1);
  IoHandler* space = m.bus.message_region()->handler();
  EXPECT_EQ(space->io_read(0x30, 4), 0xffffffffu);
  EXPECT_EQ(space->io_read(0, 8), ~uint64_t{0});
  space->io_write(0, 1, 0x51);
  space->io_write(0, 8, 0x51);
  EXPECT_EQ(m.requested(0x51), 0u);
  space->io_write(0, 4, 0x51);
  EXPECT_EQ(m.requested(0x51), 1u);
}

TEST(ApicBusTest, ManySendersLoseNothing) {
  ApicMachine m(1);
  constexpr int kRounds = 20'000;
  std::array<std::atomic<int>, 2> sent{};
  std::atomic<int> served[2]{};
  const auto sender = [&](unsigned i) {
    for (int round = 0; round < kRounds; ++round) {
      m.bus.send({.vector = static_cast<uint8_t>(0x60 + 0x23 * i)});
      ++sent[i];
      while (served[i].load() != sent[i].load()) std::this_thread::yield();
    }
  };
  std::thread first(sender, 0), second(sender, 1);
  for (int total = 0; total < 2 * kRounds;) {
    const auto vector = m.apics[0]->acknowledge();
    if (!vector) {
      std::this_thread::yield();
      continue;
    }
    m.write(0, Reg::EOI, 0);
    ++served[*vector == 0x60 ? 0 : 1];
    ++total;
  }
  first.join();
  second.join();
  EXPECT_EQ(served[0], kRounds);
  EXPECT_EQ(served[1], kRounds);
}

}  // namespace
}  // namespace kite::devices

#include "devices/apic/cpu_apic.h"

#include <gtest/gtest.h>

#include "devices/apic/test_apic.h"

namespace kite::devices {
namespace {

using testing::ApicMachine;
using testing::Reg;
using testing::restore_state;
using testing::saved_state;
using testing::with_patched_field;

using Vectors = std::vector<int>;

constexpr uint32_t kPeriodic = 1u << 17, kDeadline = 1u << 18, kMasked = 1u << 16;

class CpuApicTest : public ::testing::Test {
 protected:
  CpuApic& apic() { return *m_.apics[0]; }
  testing::FakeCpu& cpu() { return *m_.cpus[0]; }
  void request(uint8_t vector) { m_.bus.send({.vector = vector}); }
  bool msr(uint32_t index, uint64_t& value) { return apic().msr_read(index, value); }
  uint64_t msr(uint32_t index) {
    uint64_t value = 0;
    EXPECT_TRUE(apic().msr_read(index, value)) << index;
    return value;
  }

  ApicMachine m_{1};
};

TEST_F(CpuApicTest, PowerOnState) {
  apic().reset(true);
  EXPECT_EQ(apic().base(), 0xfee00900u);
  EXPECT_EQ(m_.read(0, Reg::ID), 0u);
  EXPECT_EQ(m_.read(0, Reg::VERSION), 0x01050014u);
  EXPECT_EQ(m_.read(0, Reg::SVR), 0xffu);
  EXPECT_EQ(m_.read(0, Reg::DFR), 0xffffffffu);
  EXPECT_EQ(m_.read(0, Reg::LDR), 0u);
  for (unsigned entry = 0; entry < apic::kLvtCount; ++entry) EXPECT_EQ(apic().mmio_read(0x320 + entry * 16), kMasked);
}

TEST_F(CpuApicTest, RequestGoesIntoServiceAndEndsWithEoi) {
  request(0x51);
  EXPECT_EQ(cpu().interrupts, 1);
  EXPECT_TRUE(m_.bit(0, Reg::IRR, 0x51));
  EXPECT_EQ(apic().acknowledge(), 0x51);
  EXPECT_FALSE(m_.bit(0, Reg::IRR, 0x51));
  EXPECT_TRUE(m_.bit(0, Reg::ISR, 0x51));
  EXPECT_EQ(m_.read(0, Reg::PPR), 0x50u);
  m_.write(0, Reg::EOI, 0);
  EXPECT_FALSE(m_.bit(0, Reg::ISR, 0x51));
  EXPECT_EQ(m_.read(0, Reg::PPR), 0u);
}

TEST_F(CpuApicTest, HigherVectorsComeFirst) {
  for (const uint8_t vector : {uint8_t{0x31}, uint8_t{0xf0}, uint8_t{0x80}}) request(vector);
  EXPECT_EQ(m_.serve(0), (Vectors{0xf0, 0x80, 0x31}));
}

TEST_F(CpuApicTest, SamePriorityClassWaitsForTheEnd) {
  request(0x51);
  apic().acknowledge();
  request(0x5f);
  EXPECT_FALSE(apic().has_interrupt());
  cpu().interrupts = 0;
  m_.write(0, Reg::EOI, 0);
  EXPECT_TRUE(apic().has_interrupt());
  EXPECT_EQ(cpu().interrupts, 1);  // woken by the EOI
}

TEST_F(CpuApicTest, TaskPriorityHoldsInterruptsBack) {
  m_.write(0, Reg::TPR, 0x50);
  request(0x5f);
  EXPECT_FALSE(apic().has_interrupt());
  EXPECT_EQ(apic().acknowledge(), std::nullopt);
  cpu().interrupts = 0;
  m_.write(0, Reg::TPR, 0x4f);
  EXPECT_EQ(cpu().interrupts, 1);
  EXPECT_EQ(apic().acknowledge(), 0x5f);
}

TEST_F(CpuApicTest, Cr8IsTheHighHalfOfTpr) {
  m_.write(0, Reg::TPR, 0x5a);
  EXPECT_EQ(apic().cr8(), 5);
  apic().set_cr8(0xc);
  EXPECT_EQ(m_.read(0, Reg::TPR), 0xc0u);
}

TEST_F(CpuApicTest, PprIsTprWhenItIsHigher) {
  m_.write(0, Reg::TPR, 0x93);
  request(0xa1);
  EXPECT_EQ(m_.read(0, Reg::PPR), 0x93u);
  apic().acknowledge();
  EXPECT_EQ(m_.read(0, Reg::PPR), 0xa0u);
}

TEST_F(CpuApicTest, SoftwareDisabledAcceptsNoFixedInterrupt) {
  m_.write(0, Reg::SVR, 0xff);
  EXPECT_FALSE(m_.bus.send({.vector = 0x51}));
  EXPECT_TRUE(m_.bus.send({.mode = DeliveryMode::kNmi}));
  EXPECT_EQ(cpu().nmis, 1);
}

TEST_F(CpuApicTest, SoftwareDisableMasksTheLocalVectorTable) {
  m_.lvt(0, apic::kLvtLint0, 0x700);
  m_.write(0, Reg::SVR, 0xff);
  EXPECT_EQ(m_.read(0, Reg::LVT_LINT0), 0x10700u);
  m_.write(0, Reg::LVT_LINT0, 0x700);
  EXPECT_EQ(m_.read(0, Reg::LVT_LINT0), 0x10700u);
}

TEST_F(CpuApicTest, LvtReservedBitsReadAsZero) {
  for (unsigned entry = 0; entry < apic::kLvtCount; ++entry) apic().mmio_write(0x320 + entry * 16, 0xffffffff);
  EXPECT_EQ(m_.read(0, Reg::LVT_TIMER), 0x700ffu);
  EXPECT_EQ(m_.read(0, Reg::LVT_THERMAL), 0x107ffu);
  EXPECT_EQ(m_.read(0, Reg::LVT_PERF), 0x107ffu);
  EXPECT_EQ(m_.read(0, Reg::LVT_LINT0), 0x1a7ffu);
  EXPECT_EQ(m_.read(0, Reg::LVT_LINT1), 0x1a7ffu);
  EXPECT_EQ(m_.read(0, Reg::LVT_ERROR), 0x100ffu);
}

// ---- Virtual wire

TEST_F(CpuApicTest, ExtIntComesThroughLint0) {
  m_.lvt(0, apic::kLvtLint0, 0x700);
  m_.pic.vector = 0x08;
  m_.bus.intr_line().raise();
  EXPECT_EQ(cpu().interrupts, 1);
  EXPECT_TRUE(apic().has_interrupt());
  EXPECT_EQ(apic().acknowledge(), 0x08);
  EXPECT_FALSE(m_.bit(0, Reg::ISR, 0x08));  // the 8259 keeps it, not the APIC
  EXPECT_FALSE(apic().has_interrupt());
}

TEST_F(CpuApicTest, MaskedLint0KeepsExtIntOut) {
  m_.lvt(0, apic::kLvtLint0, 0x10700);
  m_.pic.vector = 0x08;
  m_.bus.intr_line().raise();
  EXPECT_FALSE(apic().has_interrupt());
  m_.lvt(0, apic::kLvtLint0, 0x700);
  EXPECT_EQ(cpu().interrupts, 1);  // unmasking finds it
}

TEST_F(CpuApicTest, DisabledApicPassesIntrAndNmiThrough) {
  ASSERT_TRUE(apic().set_base(0xfee00000));
  m_.pic.vector = 0x08;
  m_.bus.intr_line().raise();
  m_.bus.nmi_line().raise();
  EXPECT_EQ(cpu().nmis, 1);
  EXPECT_EQ(apic().acknowledge(), 0x08);
}

TEST_F(CpuApicTest, VirtualWireModeIsWhatFirmwareLeaves) {
  ApicMachine m(2);
  for (auto& one : m.apics) {
    one->reset(true);
    one->enter_virtual_wire_mode();
  }
  m.pic.vector = 0x30;
  EXPECT_TRUE(m.apics[0]->has_interrupt());
  EXPECT_FALSE(m.apics[1]->has_interrupt());
  m.bus.nmi_line().pulse();
  EXPECT_EQ(m.cpus[0]->nmis, 1);
  EXPECT_EQ(m.cpus[1]->nmis, 1);
}

TEST_F(CpuApicTest, ExtIntMessageReachesTheProcessor) {
  m_.pic.vector = 0x40;
  m_.bus.send({.mode = DeliveryMode::kExtInt});
  EXPECT_EQ(apic().acknowledge(), 0x40);
  m_.pic.vector = 0x41;  // one message, one interrupt
  EXPECT_FALSE(apic().has_interrupt());
}

TEST_F(CpuApicTest, ExtIntLeavesOtherInterruptsPending) {
  m_.lvt(0, apic::kLvtLint0, 0x700);
  request(0x51);
  m_.pic.vector = 0x08;
  EXPECT_EQ(apic().acknowledge(), 0x08);
  EXPECT_EQ(apic().acknowledge(), 0x51);
}

TEST_F(CpuApicTest, FixedLint0TakesEdges) {
  m_.lvt(0, apic::kLvtLint0, 0x61);
  m_.bus.intr_line().raise();
  m_.bus.intr_line().raise();
  EXPECT_EQ(m_.serve(0), (Vectors{0x61}));
  m_.bus.intr_line().lower();
  m_.bus.intr_line().raise();
  EXPECT_EQ(m_.serve(0), (Vectors{0x61}));
}

TEST_F(CpuApicTest, LevelTriggeredLintAsksAgainWhileItIsHigh) {
  m_.lvt(0, apic::kLvtLint0, 0x8061);
  m_.bus.intr_line().raise();
  EXPECT_EQ(m_.read(0, Reg::LVT_LINT0), 0xc061u);  // remote IRR
  EXPECT_EQ(apic().acknowledge(), 0x61);
  EXPECT_TRUE(m_.bit(0, Reg::TMR, 0x61));
  m_.write(0, Reg::EOI, 0);
  EXPECT_EQ(apic().acknowledge(), 0x61);
  m_.bus.intr_line().lower();
  m_.write(0, Reg::EOI, 0);
  EXPECT_EQ(m_.read(0, Reg::LVT_LINT0), 0x8061u);
  EXPECT_EQ(apic().acknowledge(), std::nullopt);
}

// ---- Errors

TEST_F(CpuApicTest, IllegalVectorsAreErrorsNotInterrupts) {
  m_.lvt(0, apic::kLvtError, 0x77);
  EXPECT_FALSE(m_.bus.send({.vector = 0x0f}));
  EXPECT_EQ(m_.serve(0), (Vectors{0x77}));
  EXPECT_EQ(m_.read(0, Reg::ESR), 0u);  // shown after a write only
  m_.write(0, Reg::ESR, 0);
  EXPECT_EQ(m_.read(0, Reg::ESR), 0x40u);
  m_.write(0, Reg::ESR, 0);
  EXPECT_EQ(m_.read(0, Reg::ESR), 0u);
}

TEST_F(CpuApicTest, SendingAnIllegalVectorIsTheSendersError) {
  m_.ipi(0, 0, 0x4005);
  m_.write(0, Reg::ESR, 0);
  EXPECT_EQ(m_.read(0, Reg::ESR), 0x20u);
}

TEST_F(CpuApicTest, ReservedRegistersAreErrors) {
  EXPECT_EQ(apic().mmio_read(0x000), 0u);
  apic().mmio_write(0x040, 1);
  EXPECT_EQ(apic().mmio_read(0x2f0), 0u);
  apic().mmio_write(0x400, 1);
  m_.write(0, Reg::ESR, 0);
  EXPECT_EQ(m_.read(0, Reg::ESR), 0x80u);
}

TEST_F(CpuApicTest, ErrorVectorThatIsIllegalItselfDoesNotLoop) {
  m_.lvt(0, apic::kLvtError, 0x05);
  m_.ipi(0, 0, 0x4001);
  m_.write(0, Reg::ESR, 0);
  EXPECT_EQ(m_.read(0, Reg::ESR), 0x60u);
}

TEST_F(CpuApicTest, OffsetsBetweenRegistersReadZero) {
  EXPECT_EQ(apic().mmio_read(0x34), 0u);
  apic().mmio_write(0x84, 0xff);
  EXPECT_EQ(m_.read(0, Reg::TPR), 0u);
}

// ---- Timer

TEST_F(CpuApicTest, OneShotExpiresOnce) {
  m_.write(0, Reg::TIMER_DIVIDE, 0x0b);
  m_.lvt(0, apic::kLvtTimer, 0x30);
  m_.write(0, Reg::TIMER_INITIAL, 1000);
  m_.clock.advance(400);
  EXPECT_EQ(m_.read(0, Reg::TIMER_CURRENT), 600u);
  m_.clock.advance(599);
  EXPECT_EQ(m_.serve(0), Vectors{});
  m_.clock.advance(1);
  EXPECT_EQ(m_.serve(0), (Vectors{0x30}));
  EXPECT_EQ(m_.read(0, Reg::TIMER_CURRENT), 0u);
  m_.clock.advance(100'000);
  EXPECT_EQ(m_.serve(0), Vectors{});
  EXPECT_EQ(m_.read(0, Reg::TIMER_INITIAL), 1000u);
}

TEST_F(CpuApicTest, PeriodicExpiresWithoutDrift) {
  m_.write(0, Reg::TIMER_DIVIDE, 0x03);  // by 16
  m_.lvt(0, apic::kLvtTimer, kPeriodic | 0x30);
  m_.write(0, Reg::TIMER_INITIAL, 10'000);
  for (int i = 1; i <= 50; ++i) {
    m_.clock.advance_to(i * 160'000 - 1);
    EXPECT_EQ(m_.serve(0), Vectors{});
    m_.clock.advance(1);
    EXPECT_EQ(m_.serve(0), (Vectors{0x30}));
  }
}

TEST_F(CpuApicTest, DividersDivide) {
  struct Case {
    uint8_t code;
    uint32_t by;
  };
  for (const Case c : {Case{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}}) {
    m_.write(0, Reg::TIMER_DIVIDE, c.code);
    m_.write(0, Reg::TIMER_INITIAL, 1'000'000);
    m_.clock.advance(c.by * 1000);
    EXPECT_EQ(m_.read(0, Reg::TIMER_CURRENT), 999'000u) << c.by;
  }
}

TEST_F(CpuApicTest, MaskedTimerCountsInSilence) {
  m_.lvt(0, apic::kLvtTimer, kMasked | 0x30);
  m_.write(0, Reg::TIMER_INITIAL, 1000);
  m_.clock.advance(10'000);
  EXPECT_EQ(m_.serve(0), Vectors{});
  EXPECT_EQ(m_.read(0, Reg::TIMER_CURRENT), 0u);
}

TEST_F(CpuApicTest, ModeChangeKeepsTheCount) {
  m_.write(0, Reg::TIMER_DIVIDE, 0x0b);
  m_.write(0, Reg::TIMER_INITIAL, 1'000'000);
  m_.clock.advance(700'000);
  m_.lvt(0, apic::kLvtTimer, kPeriodic | 0x30);
  EXPECT_EQ(m_.read(0, Reg::TIMER_INITIAL), 1'000'000u);
  EXPECT_EQ(m_.read(0, Reg::TIMER_CURRENT), 300'000u);
  m_.clock.advance(400'000);
  EXPECT_EQ(m_.read(0, Reg::TIMER_CURRENT), 900'000u);
  m_.lvt(0, apic::kLvtTimer, 0x30);
  m_.clock.advance(900'000);
  EXPECT_EQ(m_.read(0, Reg::TIMER_CURRENT), 0u);
  m_.lvt(0, apic::kLvtTimer, kPeriodic | 0x30);  // an expired one-shot stays at rest
  m_.clock.advance(10'000'000);
  EXPECT_EQ(m_.read(0, Reg::TIMER_CURRENT), 0u);
}

TEST_F(CpuApicTest, ZeroInitialCountStops) {
  m_.lvt(0, apic::kLvtTimer, kPeriodic | 0x30);
  m_.write(0, Reg::TIMER_INITIAL, 1'000'000);
  m_.write(0, Reg::TIMER_INITIAL, 0);
  EXPECT_EQ(m_.clock.next_deadline(), Clock::kNever);
}

TEST_F(CpuApicTest, PeriodOfANanosecondIsPaced) {
  m_.write(0, Reg::TIMER_DIVIDE, 0x0b);
  m_.lvt(0, apic::kLvtTimer, kPeriodic | 0x30);
  m_.write(0, Reg::TIMER_INITIAL, 1);
  cpu().interrupts = 0;
  m_.clock.advance(10'000'000);
  EXPECT_GT(cpu().interrupts, 100);
  EXPECT_LE(cpu().interrupts, 501);
}

TEST_F(CpuApicTest, TscDeadlineFiresOnceAndReadsZero) {
  m_.lvt(0, apic::kLvtTimer, kDeadline | 0x30);
  apic().set_tsc_deadline(5000);
  EXPECT_EQ(apic().tsc_deadline(), 5000u);
  m_.clock.advance(4999);
  EXPECT_EQ(m_.serve(0), Vectors{});
  m_.clock.advance(1);
  EXPECT_EQ(m_.serve(0), (Vectors{0x30}));
  EXPECT_EQ(apic().tsc_deadline(), 0u);
}

TEST_F(CpuApicTest, PastTscDeadlineFiresAtOnce) {
  m_.clock.advance(1000);
  m_.lvt(0, apic::kLvtTimer, kDeadline | 0x30);
  apic().set_tsc_deadline(1000);
  EXPECT_EQ(apic().tsc_deadline(), 0u);
  EXPECT_EQ(m_.serve(0), (Vectors{0x30}));
}

TEST_F(CpuApicTest, TscDeadlineFollowsTheGuestsOffset) {
  cpu().offset = -1'000'000;
  m_.clock.advance(1'000'000);
  m_.lvt(0, apic::kLvtTimer, kDeadline | 0x30);
  apic().set_tsc_deadline(500);
  m_.clock.advance(499);
  EXPECT_EQ(m_.serve(0), Vectors{});
  m_.clock.advance(1);
  EXPECT_EQ(m_.serve(0), (Vectors{0x30}));
}

TEST_F(CpuApicTest, TscDeadlineFarBeyondTimeNeverFires) {
  m_.lvt(0, apic::kLvtTimer, kDeadline | 0x30);
  cpu().offset = -5;
  apic().set_tsc_deadline(~uint64_t{0});
  m_.clock.advance(1'000'000'000'000);
  EXPECT_EQ(m_.serve(0), Vectors{});
}

TEST_F(CpuApicTest, TscDeadlineIsIgnoredInOtherModes) {
  m_.lvt(0, apic::kLvtTimer, 0x30);
  apic().set_tsc_deadline(5000);
  EXPECT_EQ(apic().tsc_deadline(), 0u);
  m_.lvt(0, apic::kLvtTimer, kDeadline | 0x30);
  m_.write(0, Reg::TIMER_INITIAL, 100);
  EXPECT_EQ(m_.read(0, Reg::TIMER_INITIAL), 0u);
  apic().set_tsc_deadline(5000);
  m_.lvt(0, apic::kLvtTimer, 0x30);  // leaving the mode disarms
  m_.clock.advance(10'000);
  EXPECT_EQ(m_.serve(0), Vectors{});
}

TEST_F(CpuApicTest, StoppedTimerIsSilentAndFiresAfterStart) {
  m_.write(0, Reg::TIMER_DIVIDE, 0x0b);
  m_.lvt(0, apic::kLvtTimer, 0x30);
  m_.write(0, Reg::TIMER_INITIAL, 1000);
  apic().stop();
  m_.clock.advance(5000);
  EXPECT_EQ(m_.serve(0), Vectors{});
  apic().start();
  m_.clock.run_due();
  EXPECT_EQ(m_.serve(0), (Vectors{0x30}));
}

// ---- IA32_APIC_BASE and x2APIC

TEST_F(CpuApicTest, BaseTransitions) {
  constexpr uint64_t kOff = 0xfee00100, kX = 0xfee00900, kX2 = 0xfee00d00, kInvalid = 0xfee00500;
  EXPECT_FALSE(apic().set_base(kInvalid));
  EXPECT_TRUE(apic().set_base(kX2));
  EXPECT_FALSE(apic().set_base(kX));
  EXPECT_FALSE(apic().set_base(kInvalid));
  EXPECT_TRUE(apic().set_base(kOff));
  EXPECT_FALSE(apic().set_base(kX2));
  EXPECT_FALSE(apic().set_base(kInvalid));
  EXPECT_TRUE(apic().set_base(kX));
  EXPECT_EQ(apic().base(), kX);
}

TEST_F(CpuApicTest, BaseReservedBitsAreRefused) {
  EXPECT_FALSE(apic().set_base(0xfee00901));
  EXPECT_FALSE(apic().set_base(0xfee00b00));
  EXPECT_FALSE(apic().set_base(0xfee00900 | uint64_t{1} << 40));
  EXPECT_TRUE(apic().set_base(0xfed40900));
}

TEST_F(CpuApicTest, X2apicNeedsTheFeature) {
  ApicMachine m(1, {.x2apic = false});
  EXPECT_FALSE(m.enter_x2apic(0));
}

TEST_F(CpuApicTest, DisablingLosesTheState) {
  m_.write(0, Reg::TPR, 0x50);
  m_.write(0, Reg::ID, 0x07000000);
  request(0x81);
  ASSERT_TRUE(apic().set_base(0xfee00000));
  EXPECT_FALSE(apic().has_interrupt());
  ASSERT_TRUE(apic().set_base(0xfee00900));
  EXPECT_EQ(m_.read(0, Reg::ID), 0u);
  EXPECT_EQ(m_.read(0, Reg::SVR), 0xffu);
  EXPECT_EQ(apic().cr8(), 0);
}

TEST_F(CpuApicTest, Cr8WorksWhileDisabled) {
  ASSERT_TRUE(apic().set_base(0xfee00000));
  apic().set_cr8(0xf);
  EXPECT_EQ(apic().cr8(), 0xf);
}

TEST_F(CpuApicTest, InitKeepsIdAndBase) {
  ASSERT_TRUE(m_.enter_x2apic(0));
  ASSERT_TRUE(apic().msr_write(0x80f, 0x1ff));
  apic().reset(false);
  EXPECT_TRUE(apic().x2apic_mode());
  EXPECT_EQ(msr(0x80f), 0xffu);
  EXPECT_EQ(msr(0x802), 0u);
}

TEST_F(CpuApicTest, MsrsNeedX2apicMode) {
  uint64_t value = 0;
  EXPECT_FALSE(msr(0x802, value));
  EXPECT_FALSE(apic().msr_write(0x80b, 0));
}

TEST_F(CpuApicTest, RegisterPageIsGoneInX2apicMode) {
  ASSERT_TRUE(m_.enter_x2apic(0));
  m_.write(0, Reg::ID, 0x07000000);
  EXPECT_EQ(m_.read(0, Reg::SVR), 0u);
  uint64_t id = 0;
  EXPECT_TRUE(apic().msr_read(0x802, id));
  EXPECT_EQ(id, 0u);
}

TEST_F(CpuApicTest, X2apicIdAndLogicalId) {
  ApicMachine m(20);
  ASSERT_TRUE(m.enter_x2apic(18));
  uint64_t value = 0;
  ASSERT_TRUE(m.apics[18]->msr_read(0x802, value));
  EXPECT_EQ(value, 18u);
  ASSERT_TRUE(m.apics[18]->msr_read(0x80d, value));
  EXPECT_EQ(value, 0x00010004u);
}

TEST_F(CpuApicTest, X2apicRegistersThatDoNotExist) {
  ASSERT_TRUE(m_.enter_x2apic(0));
  uint64_t value = 0;
  for (const uint32_t index : {0x800u, 0x809u, 0x80bu, 0x80cu, 0x80eu, 0x82fu, 0x831u, 0x83au, 0x83fu, 0x840u, 0x8ffu})
    EXPECT_FALSE(msr(index, value)) << index;
  for (const uint32_t index : {0x802u, 0x803u, 0x80au, 0x80du, 0x80eu, 0x810u, 0x818u, 0x820u, 0x831u, 0x839u, 0x8ffu})
    EXPECT_FALSE(apic().msr_write(index, 0)) << index;
}

TEST_F(CpuApicTest, X2apicReservedBitsFault) {
  ASSERT_TRUE(m_.enter_x2apic(0));
  struct Case {
    uint32_t index;
    uint64_t bad, good;
  };
  for (const Case c : {Case{0x808, 0x100, 0xff},
                       {0x80b, 1, 0},
                       {0x80f, 0x400, 0x1ff},
                       {0x828, 1, 0},
                       {0x830, 0x2000, 0xc00ff},
                       {0x832, 0x80000, 0x700ff},
                       {0x835, 0x20000, 0x1f7ff},
                       {0x837, 0x700, 0x100ff},
                       {0x838, uint64_t{1} << 32, 0xffffffff},
                       {0x83e, 4, 0xb},
                       {0x83f, 0x100, 0xff}}) {
    EXPECT_FALSE(apic().msr_write(c.index, c.bad)) << c.index;
    EXPECT_TRUE(apic().msr_write(c.index, c.good)) << c.index;
  }
}

TEST_F(CpuApicTest, X2apicIcrIsOneRegister) {
  ASSERT_TRUE(m_.enter_x2apic(0));
  ASSERT_TRUE(apic().msr_write(0x80f, 0x1ff));
  ASSERT_TRUE(apic().msr_write(0x830, 0x4051));
  EXPECT_EQ(msr(0x830), 0x4051u);
  EXPECT_EQ(apic().acknowledge(), 0x51);
}

TEST_F(CpuApicTest, SelfIpiRegister) {
  ASSERT_TRUE(m_.enter_x2apic(0));
  ASSERT_TRUE(apic().msr_write(0x80f, 0x1ff));
  ASSERT_TRUE(apic().msr_write(0x83f, 0x61));
  EXPECT_EQ(apic().acknowledge(), 0x61);
  EXPECT_EQ(msr(0x830), 0u);
  ASSERT_TRUE(apic().msr_write(0x83f, 0x05));
  ASSERT_TRUE(apic().msr_write(0x828, 0));
  EXPECT_EQ(msr(0x828), 0x20u);
}

// ---- State

std::vector<int> observe(ApicMachine& m) {
  std::vector<int> seen;
  for (int i = 0; i < 40; ++i) {
    m.clock.advance(33'333);
    seen.push_back(static_cast<int>(m.read(0, Reg::TIMER_CURRENT)));
    for (const int vector : m.serve(0)) seen.push_back(vector);
    seen.push_back(static_cast<int>(m.read(0, Reg::PPR)));
    if (i == 5) m.write(0, Reg::TPR, 0);
    if (i == 9) m.bus.intr_line().lower();
    if (i == 12) m.write(0, Reg::ESR, 0);
    seen.push_back(static_cast<int>(m.read(0, Reg::ESR)));
  }
  return seen;
}

TEST_F(CpuApicTest, RestoredInTheMiddleFinishesIdentically) {
  m_.write(0, Reg::TIMER_DIVIDE, 0x03);
  m_.lvt(0, apic::kLvtTimer, kPeriodic | 0x91);
  m_.write(0, Reg::TIMER_INITIAL, 5000);
  m_.lvt(0, apic::kLvtLint0, 0x8061);
  m_.bus.intr_line().raise();
  m_.clock.advance(100'123);
  m_.ipi(0, 0, 0x4003);
  request(0xa3);
  request(0x43);
  apic().acknowledge();
  m_.write(0, Reg::TPR, 0x95);
  ApicMachine other(1);
  other.clock.advance_to(m_.clock.now());
  ASSERT_TRUE(restore_state(*other.apics[0], saved_state(apic())));
  EXPECT_EQ(observe(other), observe(m_));
  EXPECT_EQ(saved_state(*other.apics[0]), saved_state(apic()));
}

TEST_F(CpuApicTest, RestoredTscDeadlineFires) {
  m_.lvt(0, apic::kLvtTimer, kDeadline | 0x91);
  apic().set_tsc_deadline(5000);
  ApicMachine other(1);
  ASSERT_TRUE(restore_state(*other.apics[0], saved_state(apic())));
  other.clock.advance(5000);
  EXPECT_EQ(other.serve(0), (Vectors{0x91}));
}

TEST_F(CpuApicTest, RestoringAPendingInterruptWakesTheProcessor) {
  request(0x51);
  ApicMachine other(1);
  ASSERT_TRUE(restore_state(*other.apics[0], saved_state(apic())));
  EXPECT_EQ(other.cpus[0]->interrupts, 1);
}

TEST_F(CpuApicTest, ImpossibleStatesAreRejectedAndChangeNothing) {
  const auto good = saved_state(apic());
  struct Case {
    uint16_t field;
    size_t at;
    uint64_t value;
    size_t size;
  };
  for (const Case c : {Case{1, 0, 0xfee00500, 8},
                       {1, 0, 0xfee00901, 8},
                       {2, 0, 0x1000, 8},
                       {3, 0, 0x100, 4},
                       {4, 0, 0x100, 4},
                       {5, 0, 1, 4},
                       {6, 0, 0x10, 4},
                       {7, 0, 0x800, 4},
                       {8, 0, 1, 4},
                       {9, 0, 0x100, 4},
                       {10, 0, 0x60000, 4},
                       {10, 20, 0x700, 4},
                       {11, 0, 1, 4},
                       {12, 0, 0x8000, 4},
                       {13, 0, 1, 4},
                       {14, 1, 2, 1},
                       {15, 0, 2, 1},
                       {16, 0, 1, 1},
                       {17, 0, 4, 1},
                       {18, 0, 1, 1},
                       {20, 0, 7, 4},
                       {22, 0, 7, 8},
                       {23, 0, 7, 8}}) {
    EXPECT_FALSE(restore_state(apic(), with_patched_field(good, c.field, c.at, c.value, c.size))) << c.field;
    EXPECT_EQ(saved_state(apic()), good) << c.field;
  }
}

TEST_F(CpuApicTest, UnmaskedLvtOfADisabledApicIsRejected) {
  m_.write(0, Reg::SVR, 0xff);
  EXPECT_FALSE(restore_state(apic(), with_patched_field(saved_state(apic()), 10, 12, 0x700, 4)));
}

}  // namespace
}  // namespace kite::devices

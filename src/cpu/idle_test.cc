// Waiting and being woken: MONITOR and MWAIT, NMIs; and the small instructions of system software beside them.
#include <gtest/gtest.h>

#include "cpu/monitor.h"
#include "cpu/test_machine.h"
#include "support/bits.h"

namespace kite::cpu {
namespace {

using Mode = TestMachine::Mode;
using x86::FeatureWord;
namespace flag = x86::flag;

constexpr uint64_t kData = TestMachine::kData, kCode = TestMachine::kCode;
constexpr uint8_t kVector = 0x40;

// monitor [kData]; mwait with ECX = `hints`; inc rdi
void watch_and_wait(TestMachine& m, uint8_t hints) {
  m.gpr(x86::kRax) = kData;
  m.gpr(x86::kRcx) = m.gpr(x86::kRdx) = 0;
  m.run({0x0f, 0x01, 0xc8, 0xb1, hints, 0x0f, 0x01, 0xc9, 0x48, 0xff, 0xc7});
}
constexpr uint64_t kBehindMwait = kCode + 8;

TEST(Mwait, WaitsUntilSomebodyStores) {
  TestMachine m;
  watch_and_wait(m, 0);
  EXPECT_EQ(m.cpu().state.rip, kBehindMwait);
  EXPECT_FALSE(m.cpu().has_work(m.requests));
  m.poke<uint8_t>(kData + 8, 1);
  EXPECT_TRUE(m.cpu().has_work(m.requests));
  m.cpu().run(m, m.requests, m.sipi_vector);
  EXPECT_EQ(m.gpr(x86::kRdi), 1u);
}

TEST(Mwait, StoreOfAnotherCpuEndsIt) {
  TestMachine m;
  watch_and_wait(m, 0);
  auto second = m.make_second_cpu();
  m.load(kCode + 0x100, std::array<uint8_t, 3>{0x89, 0x03, 0xf4});  // mov [rbx], eax; hlt
  second->state.gpr[x86::kRbx] = kData;
  second->state.rip = kCode + 0x100;
  std::atomic<uint32_t> requests{0};
  second->run(m, requests, m.sipi_vector);
  EXPECT_TRUE(m.cpu().has_work(m.requests));
}

TEST(Mwait, DoesNotWaitWhenTheStoreCameFirst) {
  TestMachine m;
  m.gpr(x86::kRax) = m.gpr(x86::kRbx) = kData;
  m.run({0x0f, 0x01, 0xc8, 0x89, 0x0b, 0x0f, 0x01, 0xc9, 0x48, 0xff, 0xc7});  // monitor; mov [rbx], ecx; mwait; inc
  EXPECT_EQ(m.gpr(x86::kRdi), 1u);
}

TEST(Mwait, DoesNotWaitWithoutMonitor) {
  TestMachine m;
  m.run({0x0f, 0x01, 0xc9, 0x48, 0xff, 0xc7});
  EXPECT_EQ(m.gpr(x86::kRdi), 1u);
}

TEST(Mwait, MaskedInterruptsEndItOnlyWhenAsked) {
  for (const uint8_t hints : {uint8_t{0}, uint8_t{1}}) {
    TestMachine m;
    watch_and_wait(m, hints);
    m.apic.pending.push_back(kVector);
    m.requests |= request::kInterrupt;
    EXPECT_EQ(m.cpu().has_work(m.requests), hints == 1);
    m.cpu().run(m, m.requests, m.sipi_vector);
    EXPECT_EQ(m.gpr(x86::kRdi), hints);
    EXPECT_EQ(m.apic.pending.size(), 1u);  // it was not taken
  }
}

TEST(Mwait, AnyExtensionButBreakingInterruptsIsRefused) {
  TestMachine m;
  watch_and_wait(m, 2);
  EXPECT_EQ(m.vector(), 13);
}

TEST(Mwait, AndMonitorAreUndefinedAbovePrivilege0AndWhenSwitchedOff) {
  TestMachine user, off;
  user.enter_user();
  watch_and_wait(user, 0);
  EXPECT_EQ(user.vector(), 6);
  ASSERT_TRUE(off.cpu().write_msr(x86::msr::kMiscEnable, 1));
  watch_and_wait(off, 0);
  EXPECT_EQ(off.vector(), 6);
}

TEST(Mwait, SavedStateIsAwake) {
  TestMachine m;
  watch_and_wait(m, 0);
  x86::ArchState state;
  m.cpu().get_state(state);
  EXPECT_EQ(state.activity, x86::Activity::kActive);
}

// --- NMI

TEST(Nmi, TwoOfThreeCountWhenNoneIsInService) {
  TestMachine m;
  m.requests |= request::kNmi | request::kSecondNmi;
  m.cpu().run(m, m.requests, m.sipi_vector);  // the first's handler halts
  EXPECT_EQ(m.vector(), 2);
  EXPECT_EQ(m.cpu().arch.nmi_pending, 1);
  m.requests |= request::kNmi;
  m.cpu().arch.activity = x86::Activity::kActive;
  m.load(TestMachine::kHandlers + 2 * 16 + 1, std::array<uint8_t, 1>{0xf4});
  m.cpu().run(m, m.requests, m.sipi_vector);
  EXPECT_EQ(m.cpu().arch.nmi_pending, 1);
}

TEST(Nmi, TheOneThatWaitsComesAfterIret) {
  TestMachine m;
  const Gpa handler = TestMachine::kHandlers + 2 * 16;
  m.load(handler, std::array<uint8_t, 5>{0x48, 0xff, 0xc7, 0x48, 0xcf});  // inc rdi; iretq
  m.requests |= request::kNmi | request::kSecondNmi;
  m.run({0x90});
  EXPECT_EQ(m.gpr(x86::kRdi), 2u);
  EXPECT_EQ(m.cpu().arch.nmi_pending, 0);
  EXPECT_FALSE(m.cpu().arch.nmi_blocked);
}

// --- counters

TEST(Rdpmc, IsRefusedWithoutCounters) {
  TestMachine m;
  m.run({0x0f, 0x33});
  EXPECT_EQ(m.vector(), 13);
}

TEST(Rdpmc, ReadsTheFourCountersOfAmd) {
  x86::CpuSpec spec = TestMachine::everything();
  spec.vendor = "AuthenticAMD";
  TestMachine m(Mode::k64, spec);
  m.gpr(x86::kRax) = m.gpr(x86::kRdx) = 5;
  m.gpr(x86::kRcx) = 3;
  m.run({0x0f, 0x33});
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(x86::kRax) | m.gpr(x86::kRdx), 0u);
  m.gpr(x86::kRcx) = 4;
  m.run({0x0f, 0x33});
  EXPECT_EQ(m.vector(), 13);
}

TEST(Rdpmc, NeedsPceAbovePrivilege0) {
  x86::CpuSpec spec = TestMachine::everything();
  spec.vendor = "AuthenticAMD";
  TestMachine refused(Mode::k64, spec), allowed(Mode::k64, spec);
  refused.enter_user();
  refused.run({0x0f, 0x33});
  EXPECT_EQ(refused.vector(), 13);
  allowed.cpu().arch.cr4 |= x86::cr4::kPce;
  allowed.enter_user();
  allowed.step({0x0f, 0x33});
  EXPECT_EQ(allowed.cpu().state.rip, kCode + 2);
}

TEST(Rdpru, ReadsAtTheRateOfTheTsc) {
  TestMachine m;
  m.cpu().arch.tsc_offset = 0x1'2345'6789;
  m.gpr(x86::kRcx) = 1;
  m.run({0x0f, 0x01, 0xfd});
  EXPECT_EQ(m.gpr(x86::kRdx) << 32 | m.gpr(x86::kRax), m.cpu().tsc());
  m.gpr(x86::kRcx) = 2;
  m.run({0x0f, 0x01, 0xfd});
  EXPECT_EQ(m.gpr(x86::kRax), 0u);
}

TEST(Rdpru, ObeysTsd) {
  TestMachine m;
  m.cpu().arch.cr4 |= x86::cr4::kTsd;
  m.enter_user();
  m.run({0x0f, 0x01, 0xfd});
  EXPECT_EQ(m.vector(), 13);
}

TEST(Wbnoinvd, IsForPrivilege0) {
  TestMachine m;
  m.enter_user();
  m.run({0xf3, 0x0f, 0x09});
  EXPECT_EQ(m.vector(), 13);
}

}  // namespace
}  // namespace kite::cpu

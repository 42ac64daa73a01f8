#include "cpu/debugger.h"

#include <gtest/gtest.h>

#include "cpu/mmu.h"
#include "cpu/test_machine.h"

namespace kite::cpu {
namespace {

using Watch = GuestDebug::Watch;
namespace flag = x86::flag;

constexpr uint64_t kCode = TestMachine::kCode, kData = TestMachine::kData;

GuestDebug breakpoints(std::vector<uint64_t> at) { return {.breakpoints = std::move(at)}; }
GuestDebug watch(Watch::Kind kind, uint64_t address, uint64_t bytes) {
  return {.watches = {{.kind = kind, .address = address, .bytes = bytes}}};
}
constexpr GuestDebug kStep{.single_step = true, .hold_interrupts = true};

Exit step(TestMachine& m) {
  m.cpu().set_debugger(kStep);
  return m.resume();
}

TEST(DebuggersBreakpoint, StopsInFrontOfItsInstruction) {
  TestMachine m;
  m.cpu().set_debugger(breakpoints({kCode + 2}));
  EXPECT_EQ(m.run({0xff, 0xc0, 0xff, 0xc0}), Exit::kDebug);  // inc eax; inc eax
  EXPECT_EQ(m.gpr(x86::kRax), 1u);
  EXPECT_TRUE(m.cpu().debug_stop().breakpoint);
  EXPECT_EQ(m.cpu().debug_stop().rip, kCode + 2);
  EXPECT_EQ(m.resume(), Exit::kDebug);  // it is still there
  m.cpu().set_debugger({});
  EXPECT_EQ(m.resume(), Exit::kHalted);
  EXPECT_EQ(m.gpr(x86::kRax), 2u);
}

TEST(DebuggersBreakpoint, StopsInCodeThatHasRunBefore) {
  TestMachine m;
  m.run({0xff, 0xc0, 0xff, 0xc0});
  m.cpu().set_debugger(breakpoints({kCode + 2}));
  EXPECT_EQ(m.run({0xff, 0xc0, 0xff, 0xc0}), Exit::kDebug);
  EXPECT_EQ(m.gpr(x86::kRax), 3u);
}

TEST(DebuggersBreakpoint, IsMetInALoopEachTime) {
  TestMachine m;
  m.gpr(x86::kRcx) = 3;
  const std::initializer_list<uint8_t> loop{0xff, 0xc0, 0xff, 0xc9, 0x75, 0xfa};  // 1: inc eax; dec ecx; jnz 1b
  m.cpu().set_debugger(breakpoints({kCode + 2}));
  Exit exit = m.run(loop);
  for (uint64_t round = 1; round <= 3; ++round) {
    ASSERT_EQ(exit, Exit::kDebug);
    EXPECT_EQ(m.gpr(x86::kRax), round);
    m.cpu().set_debugger(kStep);
    ASSERT_EQ(m.resume(), Exit::kDebug);
    m.cpu().set_debugger(breakpoints({kCode + 2}));
    exit = m.resume();
  }
  EXPECT_EQ(exit, Exit::kHalted);
}

TEST(DebuggersBreakpoint, IsALinearAddressWhateverTheSegment) {
  TestMachine m(TestMachine::Mode::k16);  // the base of CS is kCode
  m.cpu().set_debugger(breakpoints({kCode + 1}));
  EXPECT_EQ(m.run({0x40, 0x40}), Exit::kDebug);  // inc ax; inc ax
  EXPECT_EQ(m.gpr(x86::kRax), 1u);
  EXPECT_EQ(m.cpu().debug_stop().rip, kCode + 1);
}

TEST(DebuggersBreakpoint, ThatIsAsFarIntoAnotherPageIsPassed) {
  TestMachine m(TestMachine::Mode::k16);
  m.cpu().set_debugger(breakpoints({kCode + 0x5001}));
  EXPECT_EQ(m.run({0x40, 0x40}), Exit::kHalted);
  EXPECT_EQ(m.gpr(x86::kRax), 2u);
}

TEST(DebuggersBreakpoint, StandsOverCodeThatIsRewritten) {
  TestMachine m;
  m.cpu().set_debugger(breakpoints({kCode + 10}));
  // mov byte [kCode + 11], 0xc3; 2 bytes of NOP; at kCode + 10: inc eax, which becomes inc ebx
  EXPECT_EQ(m.run({0xc6, 0x04, 0x25, 0x0b, 0x00, 0x01, 0x00, 0xc3, 0x66, 0x90, 0xff, 0xc0}), Exit::kDebug);
  m.cpu().set_debugger({});
  EXPECT_EQ(m.resume(), Exit::kHalted);
  EXPECT_EQ(m.gpr(x86::kRbx), 1u);
  EXPECT_EQ(m.gpr(x86::kRax), 0u);
}

TEST(DebuggersBreakpoint, InTheHandlerOfAnException) {
  TestMachine m;
  m.cpu().set_debugger(breakpoints({TestMachine::kHandlers + 6 * 16}));
  EXPECT_EQ(m.run({0x0f, 0x0b}), Exit::kDebug);  // ud2
  EXPECT_EQ(m.cpu().debug_stop().rip, TestMachine::kHandlers + 6 * 16);
}

TEST(DebuggersStep, IsOneInstruction) {
  TestMachine m;
  m.cpu().set_debugger(kStep);
  EXPECT_EQ(m.run({0xff, 0xc0, 0xff, 0xc0}), Exit::kDebug);
  EXPECT_EQ(m.gpr(x86::kRax), 1u);
  EXPECT_EQ(m.cpu().debug_stop().dr6, x86::dr6::kBs);
  EXPECT_EQ(m.cpu().debug_stop().rip, kCode + 2);
  EXPECT_EQ(step(m), Exit::kDebug);
  EXPECT_EQ(m.gpr(x86::kRax), 2u);
}

TEST(DebuggersStep, IsNotSeenByTheGuest) {
  TestMachine m;
  m.cpu().set_debugger(kStep);
  EXPECT_EQ(m.run({0x9c, 0x58}), Exit::kDebug);  // pushfq; pop rax
  EXPECT_EQ(step(m), Exit::kDebug);
  EXPECT_EQ(m.gpr(x86::kRax) & flag::kTf, 0u);
  EXPECT_EQ(m.cpu().arch.dr6, x86::dr6::kReset);
  EXPECT_EQ(m.vector(), std::nullopt);
}

TEST(DebuggersStep, OfARepeatedInstructionIsOneElement) {
  TestMachine m;
  m.gpr(x86::kRcx) = 3;
  m.gpr(x86::kRdi) = kData;
  m.cpu().set_debugger(kStep);
  EXPECT_EQ(m.run({0xf3, 0xaa}), Exit::kDebug);  // rep stosb
  EXPECT_EQ(m.gpr(x86::kRcx), 2u);
  EXPECT_EQ(m.cpu().state.rip, kCode);
  EXPECT_EQ(step(m), Exit::kDebug);
  EXPECT_EQ(step(m), Exit::kDebug);
  EXPECT_EQ(m.cpu().state.rip, kCode + 2);
}

TEST(DebuggersStep, IntoAnExceptionEndsAtItsHandler) {
  TestMachine m;
  m.cpu().set_debugger(kStep);
  EXPECT_EQ(m.run({0x0f, 0x0b}), Exit::kDebug);
  EXPECT_EQ(m.cpu().state.rip, TestMachine::kHandlers + 6 * 16);
}

TEST(DebuggersStep, TheGuestsOwnTrapIsDelivered) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kTf;
  m.cpu().set_debugger(kStep);
  EXPECT_EQ(m.run({0xff, 0xc0}), Exit::kDebug);
  EXPECT_EQ(m.gpr(x86::kRax), 1u);
  EXPECT_EQ(m.cpu().state.rip, TestMachine::kHandlers + 1 * 16);
  EXPECT_EQ(m.cpu().arch.dr6, x86::dr6::kReset | x86::dr6::kBs);
}

TEST(DebuggersStep, StopsBehindMovSsAndSti) {
  TestMachine m;
  m.gpr(x86::kRcx) = TestMachine::kData32;
  m.cpu().set_debugger(kStep);
  EXPECT_EQ(m.run({0x8e, 0xd1, 0xfb, 0x90}), Exit::kDebug);  // mov ss, ecx; sti; nop
  EXPECT_EQ(m.cpu().state.rip, kCode + 2);
  EXPECT_EQ(step(m), Exit::kDebug);
  EXPECT_EQ(m.cpu().state.rip, kCode + 3);
  EXPECT_TRUE(m.cpu().interrupt_shadow);
}

TEST(DebuggersStep, HoldsInterruptsOrTakesThem) {
  for (const bool hold : {true, false}) {
    TestMachine m;
    m.cpu().state.rflags |= flag::kIf;
    m.apic.pending = {0x40};
    m.requests = request::kInterrupt;
    m.cpu().set_debugger({.single_step = true, .hold_interrupts = hold});
    EXPECT_EQ(m.run({0xff, 0xc0}), Exit::kDebug);
    EXPECT_EQ(m.gpr(x86::kRax), hold ? 1u : 0u);
  }
}

TEST(DebuggersStep, BeginsAtABreakpoint) {
  TestMachine m;
  GuestDebug both = kStep;
  both.breakpoints = {kCode};
  m.cpu().set_debugger(both);
  EXPECT_EQ(m.run({0xff, 0xc0}), Exit::kDebug);
  EXPECT_EQ(m.gpr(x86::kRax), 1u);
}

TEST(DebuggersWatch, StopsBehindAStore) {
  TestMachine m;
  m.cpu().set_debugger(watch(Watch::Kind::kWrite, kData + 4, 8));
  m.gpr(x86::kRdi) = kData;
  // mov eax, [rdi + 4]; mov [rdi], eax; mov [rdi + 11], al; inc ebx
  EXPECT_EQ(m.run({0x8b, 0x47, 0x04, 0x89, 0x07, 0x88, 0x47, 0x0b, 0xff, 0xc3}), Exit::kDebug);
  EXPECT_EQ(m.cpu().debug_stop().watch, 0u);
  EXPECT_EQ(m.cpu().state.rip, kCode + 8);
  EXPECT_EQ(m.resume(), Exit::kHalted);
}

TEST(DebuggersWatch, TellsReadsFromWrites) {
  TestMachine m;
  m.cpu().set_debugger({.watches = {{.kind = Watch::Kind::kRead, .address = kData, .bytes = 4},
                                    {.kind = Watch::Kind::kAccess, .address = kData + 4096, .bytes = 1}}});
  m.gpr(x86::kRdi) = kData;
  // mov [rdi], eax; add [rdi], eax; mov [rdi + 4096], al
  EXPECT_EQ(m.run({0x89, 0x07, 0x01, 0x07, 0x88, 0x87, 0x00, 0x10, 0x00, 0x00}), Exit::kDebug);
  EXPECT_EQ(m.cpu().state.rip, kCode + 4);
  EXPECT_EQ(m.cpu().debug_stop().watch, 0u);
  EXPECT_EQ(m.resume(), Exit::kDebug);
  EXPECT_EQ(m.cpu().debug_stop().watch, 1u);
}

TEST(DebuggersWatch, StopsInTheMiddleOfARepeatedStore) {
  TestMachine m;
  m.gpr(x86::kRcx) = 64;
  m.gpr(x86::kRdi) = kData;
  m.cpu().set_debugger(watch(Watch::Kind::kWrite, kData + 16, 1));
  EXPECT_EQ(m.run({0xf3, 0xaa}), Exit::kDebug);
  EXPECT_EQ(m.gpr(x86::kRdi), kData + 17);
  EXPECT_EQ(m.resume(), Exit::kHalted);
  EXPECT_EQ(m.gpr(x86::kRcx), 0u);
}

TEST(DebuggersWatch, IsBesideTheGuestsOwn) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_debug(0, kData));
  ASSERT_TRUE(m.cpu().write_debug(7, 2u | 1u << 16));
  m.cpu().set_debugger(watch(Watch::Kind::kWrite, kData, 1));
  m.gpr(x86::kRdi) = kData;
  EXPECT_EQ(m.run({0x88, 0x07}), Exit::kDebug);                   // mov [rdi], al
  EXPECT_EQ(m.cpu().state.rip, TestMachine::kHandlers + 1 * 16);  // its #DB is on its way
  EXPECT_EQ(m.cpu().arch.dr6, x86::dr6::kReset | 1);
  EXPECT_EQ(m.cpu().arch.dr7 & 0xff, 2u);
}

TEST(Debugger, WithoutOneNothingIsLeft) {
  TestMachine m;
  m.cpu().set_debugger({.breakpoints = {kCode}, .watches = {{.kind = Watch::Kind::kWrite, .address = kData}}});
  m.cpu().set_debugger({});
  EXPECT_EQ(m.cpu().debugger, nullptr);
  EXPECT_EQ(m.cpu().debug.data_armed, 0);
  m.gpr(x86::kRdi) = kData;
  EXPECT_EQ(m.run({0x88, 0x07}), Exit::kHalted);
}

TEST(Debugger, ABreakpointThatComesBackNeedsNoDecoding) {
  Debugger debugger;
  EXPECT_TRUE(debugger.ask(breakpoints({8, 4})));
  EXPECT_FALSE(debugger.ask(breakpoints({8})));
  EXPECT_FALSE(debugger.ask(breakpoints({4, 8})));
  EXPECT_TRUE(debugger.ask(breakpoints({4, 9})));
}

TEST(Debugger, SeesWherePagesLead) {
  TestMachine m;
  m.set_pte(0x40000, 0x50000 | 3);  // not accessed yet
  EXPECT_EQ(Mmu(m.cpu()).where(0x40123), 0x50123u);
  EXPECT_EQ(m.peek<uint64_t>(TestMachine::kPt + 0x40 * 8), 0x50003u);
  m.set_pte(0x40000, 0);
  EXPECT_EQ(Mmu(m.cpu()).where(0x40123), std::nullopt);
  EXPECT_EQ(Mmu(m.cpu()).where(0x600123), 0x600123u);  // in a large page
  EXPECT_EQ(Mmu(m.cpu()).where(uint64_t{1} << 60), std::nullopt);
}

}  // namespace
}  // namespace kite::cpu

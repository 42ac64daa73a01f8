#include "cpu/events.h"

#include <gtest/gtest.h>

#include "cpu/test_machine.h"

namespace kite::cpu {
namespace {

using Mode = TestMachine::Mode;
using x86::Seg;
using x86::Vector;
namespace flag = x86::flag;

constexpr uint64_t kCode = TestMachine::kCode, kStackTop = TestMachine::kStackTop;

void set_gate64(TestMachine& m, unsigned vector, uint64_t handler, uint16_t selector, uint8_t type_byte,
                uint8_t ist = 0) {
  const Gpa at = TestMachine::kIdt + vector * 16;
  m.poke<uint64_t>(at, (handler & 0xffff) | uint64_t{selector} << 16 | uint64_t{ist} << 32 | uint64_t{type_byte} << 40 |
                           (handler & 0xffff0000) << 32);
  m.poke<uint64_t>(at + 8, handler >> 32);
}
void set_gate32(TestMachine& m, unsigned vector, uint32_t handler, uint16_t selector, uint8_t type_byte) {
  m.poke<uint64_t>(TestMachine::kIdt + vector * 8, (handler & 0xffff) | uint64_t{selector} << 16 |
                                                       uint64_t{type_byte} << 40 |
                                                       uint64_t{handler & 0xffff0000} << 32);
}
uint64_t handler_of(unsigned vector) { return TestMachine::kHandlers + vector * 16; }

// --- long mode ---

TEST(Events, LongModeFrame) {
  TestMachine m;
  m.gpr(x86::kRsp) = kStackTop - 3;  // delivery aligns to 16
  m.run({0x0f, 0x0b});               // ud2
  EXPECT_EQ(m.vector(), 6);
  EXPECT_EQ(m.gpr(x86::kRsp), kStackTop - 16 - 40);
  EXPECT_EQ(m.frame(0), kCode);
  EXPECT_EQ(m.frame(1), TestMachine::kCode64);
  EXPECT_EQ(m.frame(2), flag::kFixed1 | flag::kRf);
  EXPECT_EQ(m.frame(3), kStackTop - 3);
  EXPECT_EQ(m.frame(4), TestMachine::kData32);
}

TEST(Events, ErrorCodeIsPushedLast) {
  TestMachine m;
  m.set_pte(TestMachine::kData, 0);
  m.gpr(x86::kRax) = TestMachine::kData;
  m.run({0x8b, 0x00});  // mov eax, [rax]
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.error_code(), 0u);
  EXPECT_EQ(m.faulting_rip(), kCode);
  EXPECT_EQ(m.cpu().arch.cr2, TestMachine::kData);
}

TEST(Events, UserFaultSwitchesToTheRing0Stack) {
  TestMachine m;
  m.enter_user();
  m.run({0x0f, 0x0b});
  EXPECT_EQ(m.vector(), 6);
  EXPECT_EQ(m.cpu().cpl, 0);
  EXPECT_EQ(m.gpr(x86::kRsp), TestMachine::kRing0Stack - 40);
  EXPECT_EQ(m.cpu().seg(Seg::kSs).selector, 0);
  EXPECT_EQ(m.frame(1), TestMachine::kUserCode64 | 3u);
  EXPECT_EQ(m.frame(3), kStackTop);
  EXPECT_EQ(m.frame(4), TestMachine::kUserData | 3u);
}

TEST(Events, IstIsUsedWithoutAPrivilegeChange) {
  TestMachine m;
  m.poke<uint64_t>(TestMachine::kTss + 0x24 + 8, 0x18000);
  set_gate64(m, 6, handler_of(6), TestMachine::kCode64, 0x8e, 2);
  m.run({0x0f, 0x0b});
  EXPECT_EQ(m.vector(), 6);
  EXPECT_EQ(m.gpr(x86::kRsp), 0x18000u - 40);
  EXPECT_EQ(m.cpu().seg(Seg::kSs).selector, TestMachine::kData32);
}

TEST(Events, InterruptGatesClearIfAndTrapGatesDoNot) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kIf | flag::kNt;
  set_gate64(m, 0x40, handler_of(0x40), TestMachine::kCode64, 0x8f);
  m.run({0xcd, 0x40});
  EXPECT_EQ(m.vector(), 0x40);
  EXPECT_EQ(m.cpu().state.rflags & (flag::kIf | flag::kNt), flag::kIf);
  EXPECT_EQ(m.pushed_flags() & (flag::kIf | flag::kNt), flag::kIf | flag::kNt);

  TestMachine n;
  n.cpu().state.rflags |= flag::kIf;
  n.run({0xcd, 0x40});
  EXPECT_EQ(n.cpu().state.rflags & flag::kIf, 0u);
}

TEST(Events, SoftwareInterruptReturnsBehindItself) {
  TestMachine m;
  m.run({0xcd, 0x80});
  EXPECT_EQ(m.vector(), 0x80);
  EXPECT_EQ(m.faulting_rip(), kCode + 2);
  EXPECT_EQ(m.pushed_flags() & flag::kRf, 0u);
}

TEST(Events, SoftwareInterruptNeedsTheGatesDpl) {
  TestMachine m;
  m.enter_user();
  m.run({0xcd, 0x80});
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.error_code(), 0x80u * 8 + 2);  // EXT clear
  EXPECT_EQ(m.faulting_rip(), kCode);
}

TEST(Events, Int3AndInt1) {
  TestMachine m;
  m.run({0xcc});
  EXPECT_EQ(m.vector(), 3);
  EXPECT_EQ(m.faulting_rip(), kCode + 1);
  TestMachine n;
  n.enter_user();
  n.run({0xf1});  // INT1 does not look at the DPL of the gate
  EXPECT_EQ(n.vector(), 1);
  EXPECT_EQ(n.faulting_rip(), kCode + 1);
}

TEST(Events, AbsentGateIsNotPresentWithExt) {
  TestMachine m;
  set_gate64(m, 6, handler_of(6), TestMachine::kCode64, 0x0e);
  m.run({0x0f, 0x0b});
  EXPECT_EQ(m.vector(), 11);
  EXPECT_EQ(m.error_code(), 6u * 8 + 2 + 1);
  EXPECT_EQ(m.faulting_rip(), kCode);
}

TEST(Events, GateBeyondTheIdtIsAGeneralFault) {
  TestMachine m;
  m.cpu().arch.idtr.limit = 16 * 0x80 - 1;
  m.run({0xcd, 0x80});
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.error_code(), 0x80u * 8 + 2);
}

TEST(Events, HandlersAre64BitCode) {
  TestMachine m;
  set_gate64(m, 6, handler_of(6), TestMachine::kCode32, 0x8e);
  m.run({0x0f, 0x0b});
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.error_code(), TestMachine::kCode32 | 1u);
}

TEST(Events, NonCanonicalHandlerFaults) {
  TestMachine m;
  set_gate64(m, 6, uint64_t{1} << 50, TestMachine::kCode64, 0x8e);
  m.run({0x0f, 0x0b});
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.error_code(), 1u);
}

// --- double and triple faults ---

TEST(Events, ContributoryTwiceIsADoubleFault) {
  TestMachine m;
  set_gate64(m, 13, handler_of(13), TestMachine::kCode64, 0x0e);  // #NP while delivering #GP
  m.gpr(x86::kRax) = uint64_t{1} << 50;
  m.run({0x8b, 0x00});
  EXPECT_EQ(m.vector(), 8);
  EXPECT_EQ(m.error_code(), 0u);
  EXPECT_EQ(m.faulting_rip(), kCode);
}

TEST(Events, PageFaultInAPageFaultIsADoubleFault) {
  TestMachine m;
  m.poke<uint64_t>(TestMachine::kTss + 0x24, 0x19000);
  set_gate64(m, 8, handler_of(8), TestMachine::kCode64, 0x8e, 1);
  m.set_pte(kStackTop - 0x1000, 0);
  m.run({0x50});  // push rax: #PF, whose frame does not fit either
  EXPECT_EQ(m.vector(), 8);
  EXPECT_EQ(m.cpu().arch.cr2, kStackTop - 8);
}

TEST(Events, ContributoryThenPageFaultIsHandledInSeries) {
  TestMachine m;
  m.poke<uint64_t>(TestMachine::kTss + 0x24, 0x19000);
  set_gate64(m, 14, handler_of(14), TestMachine::kCode64, 0x8e, 1);
  m.set_pte(kStackTop - 0x1000, 0);
  m.gpr(x86::kRax) = uint64_t{1} << 50;
  m.run({0x8b, 0x00});  // #GP, whose frame raises #PF
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.error_code(), x86::pf::kWrite);
}

TEST(Events, FaultInADoubleFaultShutsDown) {
  TestMachine m;
  set_gate64(m, 13, handler_of(13), TestMachine::kCode64, 0x0e);
  set_gate64(m, 11, handler_of(11), TestMachine::kCode64, 0x0e);
  set_gate64(m, 8, handler_of(8), TestMachine::kCode64, 0x0e);
  m.gpr(x86::kRax) = uint64_t{1} << 50;
  EXPECT_EQ(m.run({0x8b, 0x00}), Exit::kShutdown);
}

TEST(Events, FailedDeliveryChangesNothing) {
  TestMachine m(Mode::k64);
  m.enter_user();
  m.poke<uint64_t>(TestMachine::kTss + 4, uint64_t{1} << 50);  // RSP0 is not canonical: #SS, then #DF and shutdown
  EXPECT_EQ(m.run({0x0f, 0x0b}), Exit::kShutdown);
  EXPECT_EQ(m.cpu().cpl, 3);
  EXPECT_EQ(m.cpu().state.rip, kCode);
  EXPECT_EQ(m.gpr(x86::kRsp), kStackTop);
}

// --- external interrupts ---

TEST(Events, ExternalInterruptAndReturn) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kIf;
  m.load(handler_of(0x41), std::array<uint8_t, 3>{0xff, 0xc3, 0x48});  // inc ebx; iretq
  m.poke<uint8_t>(handler_of(0x41) + 3, 0xcf);
  m.apic.pending = {0x41};
  m.requests = request::kInterrupt;
  m.run({0xff, 0xc0, 0xff, 0xc0});  // inc eax; inc eax
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(x86::kRbx), 1u);
  EXPECT_EQ(m.gpr(x86::kRax), 2u);
  EXPECT_EQ(m.gpr(x86::kRsp), kStackTop);
  EXPECT_NE(m.cpu().state.rflags & flag::kIf, 0u);
}

TEST(Events, NmiIsBlockedUntilIret) {
  TestMachine m;
  m.requests = request::kNmi;
  m.run({0x90});
  EXPECT_EQ(m.vector(), 2);
  EXPECT_TRUE(m.cpu().arch.nmi_blocked);
  m.requests |= request::kNmi;
  m.run({0x90}, 0x11000);
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_TRUE(m.cpu().arch.nmi_pending);
  m.gpr(x86::kRsp) = TestMachine::kStackTop - 40;
  m.run({0x48, 0xcf}, 0x12000);  // iretq to the first NMI's frame: the second one comes at once
  EXPECT_EQ(m.vector(), 2);
}

// --- 32-bit ---

TEST(Events, Legacy32BitFrame) {
  TestMachine m(Mode::k32);
  m.run({0x0f, 0x0b});
  EXPECT_EQ(m.vector(), 6);
  EXPECT_EQ(m.gpr(x86::kRsp), kStackTop - 12);
  EXPECT_EQ(m.frame(0), kCode);
  EXPECT_EQ(m.frame(1), TestMachine::kCode32);
}

TEST(Events, Legacy32BitStackSwitchAndReturn) {
  TestMachine m(Mode::k32);
  m.enter_user();
  m.poke<uint8_t>(handler_of(0x80), 0xcf);  // iretd
  set_gate32(m, 0x80, static_cast<uint32_t>(handler_of(0x80)), TestMachine::kCode32, 0xee);
  m.step({0xcd, 0x80});
  EXPECT_EQ(m.cpu().cpl, 0);
  EXPECT_EQ(m.gpr(x86::kRsp), TestMachine::kRing0Stack - 20);
  EXPECT_EQ(m.cpu().seg(Seg::kSs).selector, TestMachine::kData32);
  EXPECT_EQ(m.frame(3), kStackTop);
  EXPECT_EQ(m.frame(4), TestMachine::kUserData | 3u);
  m.cpu().step(m);
  EXPECT_EQ(m.cpu().cpl, 3);
  EXPECT_EQ(m.cpu().state.rip, kCode + 2);
  EXPECT_EQ(m.gpr(x86::kRsp), kStackTop);
}

TEST(Events, SixteenBitGatesPushWords) {
  TestMachine m(Mode::k32);
  m.poke<uint64_t>(TestMachine::kIdt + 0x50 * 8,
                   handler_of(0x50) | uint64_t{TestMachine::kCode32} << 16 | uint64_t{0x8600} << 32);
  m.run({0xcd, 0x50});
  EXPECT_EQ(m.gpr(x86::kRsp), kStackTop - 6);
  EXPECT_EQ(m.peek<uint16_t>(kStackTop - 6), (kCode + 2) & 0xffff);
}

TEST(Events, BadInnerStackIsAnInvalidTss) {
  TestMachine m(Mode::k32);
  m.enter_user();
  m.poke<uint16_t>(TestMachine::kTss + 8, TestMachine::kCode32);  // SS0 is code
  EXPECT_EQ(m.run({0x0f, 0x0b}), Exit::kShutdown);                // #TS, and again for #DF
  m.cpu().set_state(m.initial_state());
  m.enter_user();
  set_gate32(m, 10, static_cast<uint32_t>(handler_of(10)), TestMachine::kUserCode32 | 3, 0x8e);  // stays at CPL 3
  EXPECT_EQ(m.run({0x0f, 0x0b}), Exit::kShutdown);  // its HLT at CPL 3 faults again
  EXPECT_EQ(m.cpu().state.rip, handler_of(10));
  EXPECT_EQ(m.frame(0), TestMachine::kCode32 | 1u);
}

// --- IRET ---

TEST(Iret, ToUserModeNullsInnerDataSegments) {
  TestMachine m;
  auto& cpu = m.cpu();
  cpu.seg(Seg::kGs).base = 0x1234;
  const uint64_t frame[] = {kCode + 0x100, TestMachine::kUserCode64 | 3, 0x202, 0x7000, TestMachine::kUserData | 3};
  m.load(kStackTop - 40, std::span(reinterpret_cast<const uint8_t*>(frame), sizeof frame));
  m.gpr(x86::kRsp) = kStackTop - 40;
  m.step({0x48, 0xcf});
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.state.rip, kCode + 0x100);
  EXPECT_EQ(m.gpr(x86::kRsp), 0x7000u);
  EXPECT_NE(cpu.state.rflags & flag::kIf, 0u);
  EXPECT_EQ(cpu.seg(Seg::kDs).selector, 0);
  EXPECT_TRUE(cpu.seg(Seg::kGs).unusable());
  EXPECT_EQ(cpu.seg(Seg::kGs).base, 0x1234u);
}

// Runs IRETQ on a frame and answers the exception with its error code.
std::pair<std::optional<uint8_t>, uint64_t> iretq(uint64_t rip, uint64_t cs, uint64_t ss) {
  TestMachine m;
  const uint64_t frame[] = {rip, cs, 2, 0x7000, ss};
  m.load(0x15000, std::span(reinterpret_cast<const uint8_t*>(frame), sizeof frame));
  m.gpr(x86::kRsp) = 0x15000;
  m.run({0x48, 0xcf});
  return {m.vector(), m.vector_has_error() ? m.error_code() : 0};
}

TEST(Iret, ChecksOfTheFrame) {
  using Answer = std::pair<std::optional<uint8_t>, uint64_t>;
  constexpr uint64_t kKernel = TestMachine::kCode64, kUser = TestMachine::kUserCode64 | 3;
  EXPECT_EQ(iretq(kCode, 0, 0), (Answer{13, 0}));                                                // null CS
  EXPECT_EQ(iretq(kCode, 0x100, 0), (Answer{13, 0x100}));                                        // outside of the GDT
  EXPECT_EQ(iretq(kCode, TestMachine::kData32, 0), (Answer{13, TestMachine::kData32}));          // not code
  EXPECT_EQ(iretq(kCode, TestMachine::kUserCode64, 0), (Answer{13, TestMachine::kUserCode64}));  // RPL is not DPL
  EXPECT_EQ(iretq(uint64_t{1} << 50, kKernel, TestMachine::kData32), (Answer{13, 0}));
  EXPECT_EQ(iretq(kCode, kUser, 0), (Answer{13, 0}));    // null SS at CPL 3
  EXPECT_EQ(iretq(kCode, kKernel, 3), (Answer{13, 0}));  // null SS with another RPL
  EXPECT_EQ(iretq(kCode, kUser, TestMachine::kData32), (Answer{13, TestMachine::kData32}));
  EXPECT_EQ(iretq(handler_of(0x99), kKernel, 0), (Answer{0x99, 0}));  // null SS at CPL 0 is fine
}

TEST(Iret, UserCannotRaiseIoplOrIf) {
  TestMachine m;
  m.enter_user();
  const uint64_t frame[] = {kCode + 0x100, TestMachine::kUserCode64 | 3, 0x3202, 0x7000, TestMachine::kUserData | 3};
  m.load(kStackTop - 40, std::span(reinterpret_cast<const uint8_t*>(frame), sizeof frame));
  m.gpr(x86::kRsp) = kStackTop - 40;
  m.step({0x48, 0xcf});
  EXPECT_EQ(m.cpu().state.rip, kCode + 0x100);
  EXPECT_EQ(m.cpu().state.rflags & (flag::kIf | flag::kIopl), 0u);
}

TEST(Iret, NestedTaskBitFaultsInLongMode) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kNt;
  m.run({0x48, 0xcf});
  EXPECT_EQ(m.vector(), 13);
}

// --- real mode and virtual-8086 mode ---

TEST(Events, RealModeVectorTable) {
  TestMachine m(Mode::kReal);
  m.poke<uint16_t>(0x21 * 4, 0x0040);
  m.poke<uint16_t>(0x21 * 4 + 2, 0x1200);
  m.cpu().state.rflags |= flag::kIf;
  m.step({0xcd, 0x21});
  EXPECT_EQ(m.cpu().seg(Seg::kCs).base, 0x12000u);
  EXPECT_EQ(m.cpu().state.rip, 0x40u);
  EXPECT_EQ(m.gpr(x86::kRsp), 0xf000u - 6);
  EXPECT_EQ(m.peek<uint16_t>(0xf000 - 6), 2);
  EXPECT_EQ(m.peek<uint16_t>(0xf000 - 4), kCode >> 4);
  EXPECT_NE(m.peek<uint16_t>(0xf000 - 2) & flag::kIf, 0u);
  EXPECT_EQ(m.cpu().state.rflags & flag::kIf, 0u);
  m.poke<uint8_t>(0x12040, 0xcf);  // iret
  m.cpu().step(m);
  EXPECT_EQ(m.cpu().state.rip, 2u);
  EXPECT_EQ(m.cpu().seg(Seg::kCs).base, kCode);
  EXPECT_NE(m.cpu().state.rflags & flag::kIf, 0u);
}

TEST(Events, RealModeExceptionsHaveNoErrorCode) {
  TestMachine m(Mode::kReal);
  m.poke<uint32_t>(13 * 4, 0x12000000);
  m.gpr(x86::kRbx) = 0xffff;
  m.step({0x8b, 0x07});  // mov ax, [bx]: the word runs over the limit
  EXPECT_EQ(m.cpu().seg(Seg::kCs).base, 0x12000u);
  EXPECT_EQ(m.gpr(x86::kRsp), 0xf000u - 6);
}

// A virtual-8086 task at 0x1000:0, entered by IRETD from 32-bit code.
void enter_v86(TestMachine& m, uint32_t iopl) {
  const uint32_t frame[] = {0, 0x1000, 0x20002 | iopl << 12, 0x800, 0x1800, 0x2001, 0x2002, 0x2003, 0x2004};
  m.load(kStackTop - 36, std::span(reinterpret_cast<const uint8_t*>(frame), sizeof frame));
  m.gpr(x86::kRsp) = kStackTop - 36;
  m.step({0xcf}, 1, 0x14000);
}

TEST(V86, EnteredByIret) {
  TestMachine m(Mode::k32);
  enter_v86(m, 0);
  EXPECT_TRUE(m.cpu().v86());
  EXPECT_EQ(m.cpu().cpl, 3);
  EXPECT_EQ(m.cpu().seg(Seg::kCs).base, 0x10000u);
  EXPECT_EQ(m.cpu().seg(Seg::kSs).base, 0x18000u);
  EXPECT_EQ(m.cpu().seg(Seg::kEs).base, 0x20010u);
  EXPECT_EQ(m.cpu().seg(Seg::kGs).base, 0x20040u);
  EXPECT_EQ(m.gpr(x86::kRsp), 0x800u);
  EXPECT_EQ(m.cpu().code_width, 2);
}

TEST(V86, FaultsLeaveToRing0WithTheSegments) {
  TestMachine m(Mode::k32);
  enter_v86(m, 0);
  m.load(0x10000, std::array<uint8_t, 2>{0xcd, 0x21});  // int 0x21 with IOPL 0
  m.cpu().step(m);
  EXPECT_EQ(m.cpu().state.rip, handler_of(13));
  EXPECT_FALSE(m.cpu().v86());
  EXPECT_EQ(m.cpu().cpl, 0);
  EXPECT_EQ(m.gpr(x86::kRsp), TestMachine::kRing0Stack - 40);
  const uint32_t expected[] = {0, 0, 0x1000, 0x30002, 0x800, 0x1800, 0x2001, 0x2002, 0x2003, 0x2004};
  for (unsigned i = 0; i < 10; ++i) {
    if (i != 3) EXPECT_EQ(m.frame(i), expected[i]) << i;
  }
  EXPECT_NE(m.frame(3) & flag::kVm, 0u);
  EXPECT_TRUE(m.cpu().seg(Seg::kDs).unusable());
}

TEST(V86, InterruptsThroughTheIdtWithIopl3) {
  TestMachine m(Mode::k32);
  set_gate32(m, 0x21, static_cast<uint32_t>(handler_of(0x21)), TestMachine::kCode32, 0xee);
  enter_v86(m, 3);
  m.load(0x10000, std::array<uint8_t, 2>{0xcd, 0x21});
  m.cpu().step(m);
  EXPECT_EQ(m.cpu().state.rip, handler_of(0x21));
  EXPECT_EQ(m.frame(0), 2u);
}

TEST(V86, IretWithLowIoplFaults) {
  TestMachine m(Mode::k32);
  enter_v86(m, 0);
  m.load(0x10000, std::array<uint8_t, 1>{0xcf});
  m.cpu().step(m);
  EXPECT_EQ(m.cpu().state.rip, handler_of(13));
}

// --- shadows ---

TEST(Events, StiHoldsInterruptsForOneInstruction) {
  TestMachine m;
  m.apic.pending = {0x41};
  m.requests = request::kInterrupt;
  m.run({0xfb, 0xff, 0xc0, 0xff, 0xc0});  // sti; inc eax; inc eax
  EXPECT_EQ(m.vector(), 0x41);
  EXPECT_EQ(m.gpr(x86::kRax), 1u);
}

TEST(Events, MovSsHoldsInterruptsForOneInstruction) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kIf;
  m.gpr(x86::kRcx) = TestMachine::kData32;
  m.step({0x8e, 0xd1});  // mov ss, ecx
  EXPECT_TRUE(m.cpu().interrupt_shadow);
  m.apic.pending = {0x41};
  m.requests = request::kInterrupt;
  m.load(kCode + 2, std::array<uint8_t, 5>{0xff, 0xc0, 0xff, 0xc0, 0xf4});
  m.resume();
  EXPECT_EQ(m.vector(), 0x41);
  EXPECT_EQ(m.gpr(x86::kRax), 1u);
}

}  // namespace
}  // namespace kite::cpu

// Far transfers, call gates, task switches, SYSCALL and SYSENTER.
#include <gtest/gtest.h>

#include "cpu/segments.h"
#include "cpu/test_machine.h"

namespace kite::cpu {
namespace {

using Mode = TestMachine::Mode;
using x86::Seg;
using x86::Vector;
namespace flag = x86::flag;

constexpr uint64_t kCode = TestMachine::kCode, kStackTop = TestMachine::kStackTop, kData = TestMachine::kData;
constexpr uint16_t kFree = 0x58;  // GDT slots behind those of TestMachine

// Puts descriptors at kFree and extends the GDT over them.
void add_descriptors(TestMachine& m, std::initializer_list<uint64_t> descriptors) {
  Gpa at = TestMachine::kGdt + kFree;
  for (const uint64_t descriptor : descriptors) {
    m.poke<uint64_t>(at, descriptor);
    at += 8;
  }
  m.cpu().arch.gdtr.limit = static_cast<uint16_t>(at - TestMachine::kGdt - 1);
}
uint64_t call_gate32(uint16_t selector, uint32_t offset, uint8_t access, uint8_t parameters = 0) {
  return (offset & 0xffff) | uint64_t{selector} << 16 | uint64_t{parameters} << 32 | uint64_t{access} << 40 |
         uint64_t{offset & 0xffff0000} << 32;
}
// The exception and error code of a far jump to the selector.
std::pair<std::optional<Vector>, uint32_t> jump(TestMachine& m, uint16_t selector, uint64_t offset = 0x100) {
  m.cpu().exception.reset();
  if (m.cpu().far_jump(selector, offset, m.cpu().code64 ? 8 : 4, kCode + 7)) return {std::nullopt, 0};
  return {m.cpu().exception->vector, m.cpu().exception->error_code};
}
using Answer = std::pair<std::optional<Vector>, uint32_t>;

TEST(FarJump, RealModeSetsTheBase) {
  TestMachine m(Mode::kReal);
  m.step({0xea, 0x34, 0x12, 0x00, 0x20});
  EXPECT_EQ(m.cpu().seg(Seg::kCs).base, 0x20000u);
  EXPECT_EQ(m.cpu().state.rip, 0x1234u);
}

TEST(FarJump, ChecksCodeDescriptors) {
  TestMachine m(Mode::k32);
  add_descriptors(m, {0x00cf1b000000ffff, 0x00cf9f000000ffff, 0x00409b000000000f});  // absent, conforming, 16 bytes
  EXPECT_EQ(jump(m, 0), (Answer{Vector::kGp, 0}));
  EXPECT_EQ(jump(m, 0x200), (Answer{Vector::kGp, 0x200}));
  EXPECT_EQ(jump(m, 0x204), (Answer{Vector::kGp, 0x204}));  // no LDT
  EXPECT_EQ(jump(m, TestMachine::kData32), (Answer{Vector::kGp, TestMachine::kData32}));
  EXPECT_EQ(jump(m, TestMachine::kUserCode32 | 3), (Answer{Vector::kGp, TestMachine::kUserCode32}));
  EXPECT_EQ(jump(m, TestMachine::kCode32 | 3), (Answer{Vector::kGp, TestMachine::kCode32}));
  EXPECT_EQ(jump(m, kFree), (Answer{Vector::kNp, kFree}));
  EXPECT_EQ(jump(m, kFree + 16), (Answer{Vector::kGp, 0}));  // offset beyond the limit
  EXPECT_EQ(jump(m, kFree + 8 + 3), (Answer{std::nullopt, 0}));
  EXPECT_EQ(m.cpu().seg(Seg::kCs).selector, kFree + 8);  // RPL becomes CPL
}

TEST(FarJump, SetsTheAccessedBit) {
  TestMachine m(Mode::k32);
  add_descriptors(m, {0x00cf9a000000ffff});
  EXPECT_EQ(jump(m, kFree), (Answer{std::nullopt, 0}));
  EXPECT_EQ(m.peek<uint8_t>(TestMachine::kGdt + kFree + 5), 0x9b);
}

TEST(FarJump, LongModeRefusesLWithDAndTasks) {
  TestMachine m;
  add_descriptors(m, {0x00ef9b000000ffff, 0x0000890a00000067});
  EXPECT_EQ(jump(m, kFree), (Answer{Vector::kGp, kFree}));
  EXPECT_EQ(jump(m, kFree + 8), (Answer{Vector::kGp, kFree + 8}));
  EXPECT_EQ(jump(m, TestMachine::kCode64, uint64_t{1} << 50), (Answer{Vector::kGp, 0}));
}

TEST(FarJump, FromLongTo32BitCode) {
  TestMachine m;
  EXPECT_EQ(jump(m, TestMachine::kCode32, kCode), (Answer{std::nullopt, 0}));
  EXPECT_FALSE(m.cpu().code64);
  EXPECT_EQ(m.cpu().code_width, 4);
}

TEST(FarCall, PushesAndReturns) {
  TestMachine m(Mode::k32);
  m.load(0x14000, std::array<uint8_t, 1>{0xcb});                      // retf
  m.run({0x9a, 0x00, 0x40, 0x01, 0x00, TestMachine::kCode32, 0x00});  // call 8:0x14000
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.cpu().state.rip, kCode + 8);
  EXPECT_EQ(m.gpr(x86::kRsp), kStackTop);
}

TEST(FarCall, ThroughMemoryIn64BitMode) {
  TestMachine m;
  m.poke<uint64_t>(kData, 0x14000);
  m.poke<uint16_t>(kData + 8, TestMachine::kCode64);
  m.gpr(x86::kRbx) = kData;
  m.step({0x48, 0xff, 0x1b});  // call m16:64
  EXPECT_EQ(m.cpu().state.rip, 0x14000u);
  EXPECT_EQ(m.peek<uint64_t>(kStackTop - 16), kCode + 3);
  EXPECT_EQ(m.peek<uint64_t>(kStackTop - 8), TestMachine::kCode64);
}

TEST(CallGate, CopiesParametersToTheInnerStack) {
  TestMachine m(Mode::k32);
  add_descriptors(m, {call_gate32(TestMachine::kCode32, 0x14000, 0xec, 2)});
  m.enter_user();
  m.gpr(x86::kRsp) = kStackTop - 8;
  m.poke<uint32_t>(kStackTop - 8, 0xaaaa);
  m.poke<uint32_t>(kStackTop - 4, 0xbbbb);
  m.load(0x14000, std::array<uint8_t, 3>{0xca, 0x08, 0x00});  // retf 8
  m.step({0x9a, 0, 0, 0, 0, kFree | 3, 0});
  EXPECT_EQ(m.cpu().cpl, 0);
  EXPECT_EQ(m.cpu().state.rip, 0x14000u);
  const uint32_t expected[] = {kCode + 7,     TestMachine::kUserCode32 | 3, 0xaaaa, 0xbbbb,
                               kStackTop - 8, TestMachine::kUserData | 3};
  for (unsigned i = 0; i < 6; ++i) EXPECT_EQ(m.frame(i), expected[i]) << i;
  m.cpu().step(m);
  EXPECT_EQ(m.cpu().cpl, 3);
  EXPECT_EQ(m.cpu().state.rip, kCode + 7);
  EXPECT_EQ(m.gpr(x86::kRsp), kStackTop);
}

TEST(CallGate, NeedsItsDpl) {
  TestMachine m(Mode::k32);
  add_descriptors(m, {call_gate32(TestMachine::kCode32, 0x14000, 0x8c), call_gate32(TestMachine::kCode32, 0, 0x6c)});
  m.enter_user();
  EXPECT_FALSE(m.cpu().far_call(kFree, 0, 4, kCode + 7));
  EXPECT_EQ(m.cpu().exception->error_code, kFree);
  EXPECT_FALSE(m.cpu().far_call(kFree + 8, 0, 4, kCode + 7));
  EXPECT_EQ(m.cpu().exception->vector, Vector::kNp);
}

TEST(CallGate, JumpsDoNotChangePrivilege) {
  TestMachine m(Mode::k32);
  add_descriptors(m, {call_gate32(TestMachine::kCode32, 0x14000, 0xec)});
  m.enter_user();
  EXPECT_EQ(jump(m, kFree | 3), (Answer{Vector::kGp, TestMachine::kCode32}));
}

TEST(CallGate, LongModeTakesRsp0AndANullStack) {
  TestMachine m;
  add_descriptors(m, {call_gate32(TestMachine::kCode64, 0x14000, 0xec), 0});
  m.enter_user();
  ASSERT_TRUE(m.cpu().far_call(kFree | 3, 0, 4, kCode + 7));
  EXPECT_EQ(m.cpu().cpl, 0);
  EXPECT_EQ(m.cpu().seg(Seg::kSs).selector, 0);
  EXPECT_EQ(m.gpr(x86::kRsp), TestMachine::kRing0Stack - 32);
  EXPECT_EQ(m.frame(0), kCode + 7);
  EXPECT_EQ(m.frame(2), kStackTop);
  m.poke<uint64_t>(TestMachine::kGdt + kFree + 8, uint64_t{0x1f} << 40);  // upper half has a type
  m.enter_user();
  EXPECT_FALSE(m.cpu().far_call(kFree | 3, 0, 4, kCode + 7));
  EXPECT_EQ(m.cpu().exception->error_code, kFree);
}

TEST(FarReturn, ToTheOuterPrivilege) {
  TestMachine m;
  const uint64_t frame[] = {kCode + 0x100, TestMachine::kUserCode64 | 3, 0x7000, TestMachine::kUserData | 3};
  m.load(0x15000, std::span(reinterpret_cast<const uint8_t*>(frame), sizeof frame));
  m.gpr(x86::kRsp) = 0x15000;
  m.step({0x48, 0xcb});  // retfq
  EXPECT_EQ(m.cpu().cpl, 3);
  EXPECT_EQ(m.gpr(x86::kRsp), 0x7000u);
  EXPECT_EQ(m.cpu().seg(Seg::kSs).selector, TestMachine::kUserData | 3);
}

TEST(FarReturn, NeverInwards) {
  TestMachine m(Mode::k32);
  m.enter_user();
  m.poke<uint32_t>(kStackTop - 8, kCode);
  m.poke<uint32_t>(kStackTop - 4, TestMachine::kCode32);
  m.gpr(x86::kRsp) = kStackTop - 8;
  m.run({0xcb});
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.error_code(), TestMachine::kCode32);
}

TEST(FarReturn, RealMode) {
  TestMachine m(Mode::kReal);
  m.poke<uint16_t>(0xeffc, 0x10);
  m.poke<uint16_t>(0xeffe, 0x3000);
  m.gpr(x86::kRsp) = 0xeffc;
  m.step({0xca, 0x04, 0x00});  // retf 4
  EXPECT_EQ(m.cpu().seg(Seg::kCs).base, 0x30000u);
  EXPECT_EQ(m.cpu().state.rip, 0x10u);
  EXPECT_EQ(m.gpr(x86::kRsp), 0xf004u);
}

// --- fast system calls ---

TEST(Syscall, EntersAndReturns) {
  TestMachine m;
  auto& cpu = m.cpu();
  cpu.arch.star = uint64_t{TestMachine::kCode64} << 32 | uint64_t{0x20 | 3} << 48;  // user: 0x30 code64, 0x28 data
  cpu.arch.lstar = 0x14000;
  cpu.arch.sfmask = flag::kIf | flag::kDf;
  m.enter_user();
  cpu.state.rflags |= flag::kIf;
  cpu.state.cc = flag::kCf;
  m.load(0x14000, std::array<uint8_t, 3>{0x48, 0x0f, 0x07});  // sysretq
  m.step({0x0f, 0x05});
  EXPECT_EQ(cpu.state.rip, 0x14000u);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_EQ(cpu.seg(Seg::kSs).selector, TestMachine::kCode64 + 8);
  EXPECT_EQ(m.gpr(x86::kRcx), kCode + 2);
  EXPECT_EQ(m.gpr(x86::kR11), 0x203u);
  EXPECT_EQ(cpu.state.rflags & flag::kIf, 0u);
  EXPECT_EQ(m.gpr(x86::kRsp), kStackTop);
  cpu.step(m);
  EXPECT_EQ(cpu.state.rip, kCode + 2);
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.seg(Seg::kCs).selector, TestMachine::kUserCode64 | 3);
  EXPECT_EQ(cpu.seg(Seg::kSs).selector, TestMachine::kUserData | 3);
  EXPECT_EQ(cpu.flags(), 0x203u);
}

TEST(Syscall, NeedsSce) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_msr(x86::msr::kEfer, m.cpu().arch.efer & ~x86::efer::kSce));
  m.run({0x0f, 0x05});
  EXPECT_EQ(m.vector(), 6);
}

TEST(Syscall, SysretChecksRcxBeforeThePrivilegeDrops) {
  TestMachine m;
  m.gpr(x86::kRcx) = uint64_t{1} << 50;
  m.run({0x48, 0x0f, 0x07});
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.frame(2), TestMachine::kCode64);
}

TEST(Syscall, CompatibilityModeByVendor) {
  TestMachine intel(Mode::kCompat);
  intel.run({0x0f, 0x05});
  EXPECT_EQ(intel.vector(), 6);
  x86::CpuSpec spec = TestMachine::everything();
  spec.vendor = "AuthenticAMD";
  TestMachine amd(Mode::kCompat, spec);
  amd.cpu().arch.star = uint64_t{TestMachine::kCode64} << 32;
  amd.cpu().arch.cstar = 0x14000;
  amd.step({0x0f, 0x05});
  EXPECT_EQ(amd.cpu().state.rip, 0x14000u);
  EXPECT_TRUE(amd.cpu().code64);
}

TEST(Sysenter, EntersAndExits) {
  TestMachine m(Mode::k32);
  auto& cpu = m.cpu();
  cpu.arch.sysenter_cs = TestMachine::kCode32;
  cpu.arch.sysenter_eip = 0x14000;
  cpu.arch.sysenter_esp = 0x15000;
  m.enter_user();
  m.step({0x0f, 0x34});
  EXPECT_EQ(cpu.state.rip, 0x14000u);
  EXPECT_EQ(m.gpr(x86::kRsp), 0x15000u);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_EQ(cpu.seg(Seg::kSs).selector, TestMachine::kData32);
  m.gpr(x86::kRdx) = kCode + 0x20;
  m.gpr(x86::kRcx) = 0x7000;
  m.load(0x14000, std::array<uint8_t, 2>{0x0f, 0x35});
  cpu.step(m);
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.state.rip, kCode + 0x20);
  EXPECT_EQ(m.gpr(x86::kRsp), 0x7000u);
  EXPECT_EQ(cpu.seg(Seg::kCs).selector, TestMachine::kCode32 + 16 + 3);
}

TEST(Sysenter, NeedsItsSelector) {
  TestMachine m(Mode::k32);
  m.run({0x0f, 0x34});
  EXPECT_EQ(m.vector(), 13);
}

// --- tasks ---

constexpr Gpa kTask = 0x16000;

// A second 32-bit task at kTask with selector kFree, in ring 0, at 0x14000.
void add_task(TestMachine& m) {
  add_descriptors(m, {uint64_t{0x0000890000000067} | (kTask & 0xffff) << 16 | (kTask >> 16) << 32,
                      uint64_t{0x0000850000000000} | uint64_t{kFree} << 16});  // and a task gate to it
  m.poke<uint32_t>(kTask + 0x1c, 0);
  m.poke<uint32_t>(kTask + 0x20, 0x14000);
  m.poke<uint32_t>(kTask + 0x24, 2);
  m.poke<uint32_t>(kTask + 0x28, 0xa5a5);   // eax
  m.poke<uint32_t>(kTask + 0x38, 0x18000);  // esp
  const uint16_t selectors[] = {
      TestMachine::kData32, TestMachine::kCode32, TestMachine::kData32, TestMachine::kData32, 0, 0};
  for (unsigned i = 0; i < 6; ++i) m.poke<uint16_t>(kTask + 0x48 + i * 4, selectors[i]);
}
uint8_t access_byte(TestMachine& m, uint16_t selector) { return m.peek<uint8_t>(TestMachine::kGdt + selector + 5); }

TEST(Task, CallNestsAndIretReturns) {
  TestMachine m(Mode::k32);
  add_task(m);
  m.gpr(x86::kRax) = 0x1111;
  m.load(0x14000, std::array<uint8_t, 1>{0xcf});
  m.step({0x9a, 0, 0, 0, 0, kFree, 0});
  auto& cpu = m.cpu();
  EXPECT_EQ(cpu.state.rip, 0x14000u);
  EXPECT_EQ(m.gpr(x86::kRax), 0xa5a5u);
  EXPECT_EQ(m.gpr(x86::kRsp), 0x18000u);
  EXPECT_NE(cpu.state.rflags & flag::kNt, 0u);
  EXPECT_NE(cpu.arch.cr0 & x86::cr0::kTs, 0u);
  EXPECT_EQ(cpu.arch.tr.selector, kFree);
  EXPECT_EQ(m.peek<uint16_t>(kTask), TestMachine::kTssSelector);
  EXPECT_EQ(access_byte(m, kFree), 0x8b);
  EXPECT_EQ(access_byte(m, TestMachine::kTssSelector), 0x8b);
  EXPECT_EQ(m.peek<uint32_t>(TestMachine::kTss + 0x20), kCode + 7);
  cpu.step(m);
  EXPECT_EQ(cpu.state.rip, kCode + 7);
  EXPECT_EQ(m.gpr(x86::kRax), 0x1111u);
  EXPECT_EQ(cpu.state.rflags & flag::kNt, 0u);
  EXPECT_EQ(access_byte(m, kFree), 0x89);
  EXPECT_EQ(m.peek<uint32_t>(kTask + 0x20), 0x14001u);
}

TEST(Task, JumpFreesTheOldTask) {
  TestMachine m(Mode::k32);
  add_task(m);
  m.step({0xea, 0, 0, 0, 0, kFree, 0});
  EXPECT_EQ(access_byte(m, TestMachine::kTssSelector), 0x89);
  EXPECT_EQ(access_byte(m, kFree), 0x8b);
  EXPECT_EQ(m.cpu().state.rflags & flag::kNt, 0u);
}

TEST(Task, BusyTasksAreRefused) {
  TestMachine m(Mode::k32);
  add_task(m);
  EXPECT_EQ(jump(m, TestMachine::kTssSelector), (Answer{Vector::kGp, TestMachine::kTssSelector}));
}

TEST(Task, ShortTssIsInvalid) {
  TestMachine m(Mode::k32);
  add_task(m);
  m.poke<uint8_t>(TestMachine::kGdt + kFree, 0x66);
  EXPECT_EQ(jump(m, kFree), (Answer{Vector::kTs, kFree}));
}

TEST(Task, GateInTheIdtPushesTheErrorCode) {
  TestMachine m(Mode::k32);
  add_task(m);
  m.poke<uint64_t>(TestMachine::kIdt + 13 * 8, uint64_t{0x0000850000000000} | uint64_t{kFree} << 16);
  m.cpu().arch.idtr.limit = 0x100;
  m.step({0xcd, 0x80});  // beyond the IDT
  EXPECT_EQ(m.cpu().state.rip, 0x14000u);
  EXPECT_EQ(m.gpr(x86::kRsp), 0x18000u - 4);
  EXPECT_EQ(m.peek<uint32_t>(0x18000 - 4), 0x80u * 8 + 2);
  EXPECT_EQ(m.peek<uint32_t>(TestMachine::kTss + 0x20), kCode);
}

TEST(Task, BadSegmentFaultsInTheNewTask) {
  TestMachine m(Mode::k32);
  add_task(m);
  m.poke<uint16_t>(kTask + 0x48 + 2 * 4, TestMachine::kCode32);  // SS is code
  m.poke<uint32_t>(kTask + 0x38, 0x18000);
  EXPECT_TRUE(m.cpu().far_jump(kFree, 0, 4, kCode + 7));
  ASSERT_TRUE(m.cpu().exception);
  EXPECT_EQ(m.cpu().exception->vector, Vector::kTs);
  EXPECT_EQ(m.cpu().exception->error_code, TestMachine::kCode32);
  EXPECT_EQ(m.cpu().state.rip, 0x14000u);
  EXPECT_EQ(m.cpu().arch.tr.selector, kFree);
}

TEST(Task, TrapFlagRaisesADebugTrap) {
  TestMachine m(Mode::k32);
  add_task(m);
  m.poke<uint16_t>(kTask + 0x64, 1);
  m.run({0xea, 0, 0, 0, 0, kFree, 0});
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.faulting_rip(), 0x14000u);
  EXPECT_NE(m.cpu().arch.dr6 & x86::dr6::kBt, 0u);
}

TEST(Task, SixteenBitTss) {
  TestMachine m(Mode::k32);
  add_descriptors(m, {uint64_t{0x000081000000002b} | (kTask & 0xffff) << 16 | (kTask >> 16) << 32});
  m.poke<uint16_t>(kTask + 0x0e, 0x8000);
  m.poke<uint16_t>(kTask + 0x10, 2);
  m.poke<uint16_t>(kTask + 0x12, 0x4321);
  m.poke<uint16_t>(kTask + 0x1a, 0x7000);
  const uint16_t selectors[] = {0, TestMachine::kCode32, TestMachine::kData32, 0};
  for (unsigned i = 0; i < 4; ++i) m.poke<uint16_t>(kTask + 0x22 + i * 2, selectors[i]);
  EXPECT_EQ(jump(m, kFree), (Answer{std::nullopt, 0}));
  EXPECT_FALSE(m.cpu().exception);
  EXPECT_EQ(m.cpu().state.rip, 0x8000u);
  EXPECT_EQ(static_cast<uint16_t>(m.gpr(x86::kRax)), 0x4321);
  EXPECT_EQ(static_cast<uint16_t>(m.gpr(x86::kRsp)), 0x7000);
}

// --- the I/O permission bitmap ---

TEST(IoPermission, BitmapDecidesAboveIopl) {
  TestMachine m(Mode::k32);
  m.enter_user();
  m.cpu().arch.tr.limit = 0x67 + 0x20;
  m.poke<uint16_t>(TestMachine::kTss + 102, 0x68);
  for (unsigned i = 0; i < 0x20; ++i) m.poke<uint8_t>(TestMachine::kTss + 0x68 + i, 0);
  m.poke<uint8_t>(TestMachine::kTss + 0x68 + 2, 0x10);  // port 0x14
  EXPECT_TRUE(m.cpu().check_io(0x13, 1));
  EXPECT_TRUE(m.cpu().check_io(0x10, 4));
  EXPECT_FALSE(m.cpu().check_io(0x14, 1));
  EXPECT_FALSE(m.cpu().check_io(0x11, 4));
  EXPECT_FALSE(m.cpu().check_io(0x200, 1));  // beyond the TSS
  m.cpu().state.rflags |= flag::kIopl;
  EXPECT_TRUE(m.cpu().check_io(0x14, 1));
}

}  // namespace
}  // namespace kite::cpu

#include <gtest/gtest.h>

#include "cpu/events.h"
#include "cpu/test_machine.h"

namespace kite::cpu {
namespace {

using x86::Vector;
namespace flag = x86::flag;
namespace dr6 = x86::dr6;

constexpr uint64_t kCode = TestMachine::kCode, kData = TestMachine::kData;

// Enables breakpoint 0 at `address`: condition 0 execute, 1 write, 2 I/O, 3 read or write; `length` as DR7 encodes it.
void arm(Cpu& cpu, uint64_t address, unsigned condition, unsigned length) {
  ASSERT_TRUE(cpu.write_debug(0, address));
  ASSERT_TRUE(cpu.write_debug(7, 2u | condition << 16 | length << 18));
}

TEST(SingleStep, TrapsAfterEachInstruction) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kTf;
  m.run({0xff, 0xc0, 0xff, 0xc0});  // inc eax; inc eax
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.gpr(x86::kRax), 1u);
  EXPECT_EQ(m.faulting_rip(), kCode + 2);
  EXPECT_EQ(m.cpu().arch.dr6, dr6::kReset | dr6::kBs);
  EXPECT_NE(m.pushed_flags() & flag::kTf, 0u);
  EXPECT_EQ(m.cpu().state.rflags & flag::kTf, 0u);
}

TEST(SingleStep, BeginsBehindTheInstructionThatSetsTf) {
  TestMachine m;
  m.gpr(x86::kRax) = flag::kTf | 2;
  m.run({0x50, 0x9d, 0xff, 0xc3, 0xff, 0xc3});  // push rax; popfq; inc ebx; inc ebx
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.gpr(x86::kRbx), 1u);
}

TEST(SingleStep, StiDoesNotHoldTheTrap) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kTf;
  m.run({0xfb, 0xff, 0xc0});  // sti; inc eax
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.faulting_rip(), kCode + 1);
}

TEST(SingleStep, MovSsHoldsTheTrap) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kTf;
  m.gpr(x86::kRcx) = TestMachine::kData32;
  m.run({0x8e, 0xd1, 0xff, 0xc0, 0xff, 0xc0});
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.faulting_rip(), kCode + 4);
}

TEST(SingleStep, SoftwareInterruptClearsItBeforeTheHandler) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kTf;
  m.run({0xcd, 0x40});
  EXPECT_EQ(m.vector(), 0x40);
}

TEST(SingleStep, SyscallMaskSuppressesTheTrap) {
  TestMachine m;
  m.cpu().arch.star = uint64_t{TestMachine::kCode64} << 32;
  m.cpu().arch.lstar = TestMachine::kHandlers + 0x77 * 16;
  m.cpu().arch.sfmask = flag::kTf;
  m.cpu().state.rflags |= flag::kTf;
  m.run({0x0f, 0x05});
  EXPECT_EQ(m.vector(), 0x77);
}

TEST(SingleStep, StopsBehindBranchesThatHaveBeenTakenBefore) {
  TestMachine m;
  m.load(0x14000, std::array<uint8_t, 5>{0xff, 0xc3, 0xff, 0xc3, 0xf4});  // inc ebx; inc ebx; hlt
  m.gpr(x86::kRax) = 0x14000;
  for (int i = 0; i < 3; ++i) m.run({0xff, 0xe0});  // jmp rax
  m.gpr(x86::kRbx) = 0;
  m.cpu().state.rflags |= flag::kTf;
  m.run({0xff, 0xe0});
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.faulting_rip(), 0x14000u);
  EXPECT_EQ(m.gpr(x86::kRbx), 0u);
}

TEST(SingleStep, TrapEndsHlt) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kTf;
  m.run({});  // hlt
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.faulting_rip(), kCode + 1);
}

TEST(SingleStep, SysretTrapsByTheTfThatItLoads) {
  TestMachine m;
  m.cpu().arch.star = uint64_t{0x20 | 3} << 48;
  m.gpr(x86::kRcx) = kCode + 0x100;
  m.gpr(x86::kR11) = flag::kTf | 2;
  m.run({0x48, 0x0f, 0x07});  // sysretq
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.faulting_rip(), kCode + 0x100);
  EXPECT_EQ(m.frame(1), TestMachine::kUserCode64 | 3u);
}

TEST(SingleStep, FaultsComeInsteadOfTheTrap) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kTf;
  m.run({0x0f, 0x0b});
  EXPECT_EQ(m.vector(), 6);
}

TEST(Breakpoint, CodeIsAFaultThatRfHoldsBack) {
  TestMachine m;
  arm(m.cpu(), kCode + 2, 0, 0);
  m.run({0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc0});
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.faulting_rip(), kCode + 2);
  EXPECT_EQ(m.gpr(x86::kRax), 1u);
  EXPECT_EQ(m.cpu().arch.dr6 & 15, 1u);
  m.poke<uint64_t>(m.gpr(x86::kRsp) + 16, m.pushed_flags() | flag::kRf);
  m.poke<uint16_t>(TestMachine::kHandlers + 16, 0xcf48);  // iretq
  m.cpu().state.rip = TestMachine::kHandlers + 16;
  m.resume();
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(x86::kRax), 3u);
  EXPECT_EQ(m.cpu().state.rflags & flag::kRf, 0u);
}

TEST(Breakpoint, CodeBehindMovSsByVendor) {
  x86::CpuSpec spec = TestMachine::everything();
  spec.vendor = "AuthenticAMD";
  TestMachine intel, amd(TestMachine::Mode::k64, spec);
  for (TestMachine* m : {&intel, &amd}) {
    arm(m->cpu(), kCode + 2, 0, 0);
    m->gpr(x86::kRcx) = TestMachine::kData32;
    m->run({0x8e, 0xd1, 0xff, 0xc0});  // mov ss, ecx; inc eax
  }
  EXPECT_EQ(intel.vector(), std::nullopt);
  EXPECT_EQ(amd.vector(), 1);
}

TEST(Breakpoint, HeldBackByMovSsMergesWithInt1) {
  TestMachine m;
  arm(m.cpu(), kData, 3, 1);
  m.poke<uint16_t>(kData, TestMachine::kData32);
  m.gpr(x86::kRbx) = kData;
  m.run({0x8e, 0x13, 0xf1});  // mov ss, [rbx]; int1
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.faulting_rip(), kCode + 3);
  EXPECT_EQ(m.cpu().arch.dr6 & 15, 1u);
  EXPECT_EQ(m.gpr(x86::kRsp), TestMachine::kStackTop - 40);
}

TEST(Breakpoint, FaultsPushRfSoThatABreakpointIsNotTakenTwice) {
  TestMachine m;
  m.set_pte(kData, 0);
  m.gpr(x86::kRax) = kData;
  m.run({0x8b, 0x00});
  EXPECT_NE(m.pushed_flags() & flag::kRf, 0u);
}

TEST(Breakpoint, DataWriteTrapsBehindTheInstruction) {
  TestMachine m;
  arm(m.cpu(), kData + 4, 1, 3);
  m.gpr(x86::kRbx) = kData;
  m.run({0x8b, 0x43, 0x04, 0x89, 0x43, 0x04, 0xff, 0xc1});  // mov eax, [rbx+4]; mov [rbx+4], eax; inc ecx
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.faulting_rip(), kCode + 6);
  EXPECT_EQ(m.gpr(x86::kRcx), 0u);
  EXPECT_EQ(m.cpu().arch.dr6, dr6::kReset | 1);
}

TEST(Breakpoint, DataReadsCountForReadWriteOnly) {
  TestMachine m;
  arm(m.cpu(), kData, 3, 0);
  m.gpr(x86::kRbx) = kData - 3;
  m.run({0x8b, 0x03});  // mov eax, [rbx]: the last byte is watched
  EXPECT_EQ(m.vector(), 1);
}

TEST(Breakpoint, NeighboursAreNotWatched) {
  TestMachine m;
  arm(m.cpu(), kData + 4, 3, 1);
  m.gpr(x86::kRbx) = kData;
  m.run({0x8b, 0x03, 0x8b, 0x43, 0x06});  // [rbx], [rbx+6]
  EXPECT_EQ(m.vector(), std::nullopt);
}

TEST(Breakpoint, ReadModifyWriteIsAWrite) {
  TestMachine m;
  arm(m.cpu(), kData, 1, 3);
  m.gpr(x86::kRbx) = kData;
  m.run({0xff, 0x03});  // inc dword [rbx]
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.peek<uint32_t>(kData), 1u);
}

TEST(Breakpoint, PortsWithDebugExtensions) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_control(4, m.cpu().arch.cr4 | x86::cr4::kDe));
  arm(m.cpu(), 0x80, 2, 0);
  m.run({0xe6, 0x80, 0xff, 0xc1});  // out 0x80, al; inc ecx
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.port_writes.size(), 1u);
  EXPECT_EQ(m.gpr(x86::kRcx), 0u);
}

TEST(DebugRegisters, GeneralDetect) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_debug(7, x86::dr7::kGd));
  m.run({0x0f, 0x21, 0xf8});  // mov rax, dr7
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.faulting_rip(), kCode);
  EXPECT_EQ(m.cpu().arch.dr6 & dr6::kBd, dr6::kBd);
  EXPECT_EQ(m.cpu().arch.dr7 & x86::dr7::kGd, 0u);
}

TEST(DebugRegisters, AliasesByDe) {
  TestMachine m;
  uint64_t value = 0;
  EXPECT_TRUE(m.cpu().read_debug(4, value));
  EXPECT_EQ(value, dr6::kReset);
  ASSERT_TRUE(m.cpu().write_control(4, m.cpu().arch.cr4 | x86::cr4::kDe));
  EXPECT_FALSE(m.cpu().read_debug(4, value));
  EXPECT_EQ(m.cpu().exception->vector, Vector::kUd);
}

TEST(DebugRegisters, FixedAndReservedBits) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_debug(6, 0));
  EXPECT_EQ(m.cpu().arch.dr6, dr6::kReset);
  ASSERT_TRUE(m.cpu().write_debug(6, 0xffffffff));
  EXPECT_EQ(m.cpu().arch.dr6, 0xffffefffu);
  ASSERT_TRUE(m.cpu().write_debug(7, 0xffffffff & ~x86::dr7::kGd));
  EXPECT_EQ(m.cpu().arch.dr7, 0xffff07ffu);
  EXPECT_FALSE(m.cpu().write_debug(7, uint64_t{1} << 32));
  EXPECT_EQ(m.cpu().exception->vector, Vector::kGp);
}

TEST(DebugRegisters, PrivilegedAccessOnly) {
  TestMachine m;
  m.enter_user();
  m.run({0x0f, 0x21, 0xf8});
  EXPECT_EQ(m.vector(), 13);
}

// --- single steps at branches

TEST(BranchTrap, SkipsWhatIsNoTakenBranch) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_msr(x86::msr::kDebugCtl, x86::debugctl::kBtf));
  m.cpu().set_flags(m.cpu().flags() | x86::flag::kTf | x86::flag::kZf);
  m.run({0x90, 0x75, 0x00, 0x90, 0xeb, 0x00, 0x90});  // nop; jnz +0; nop; jmp +0; nop
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode + 6);
  EXPECT_NE(m.cpu().arch.dr6 & x86::dr6::kBs, 0u);
}

TEST(BranchTrap, IsSwitchedOffByTheTrap) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_msr(x86::msr::kDebugCtl, x86::debugctl::kBtf));
  m.cpu().set_flags(m.cpu().flags() | x86::flag::kTf);
  m.run({0xeb, 0x00});
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.cpu().arch.debugctl, 0u);
}

}  // namespace
}  // namespace kite::cpu

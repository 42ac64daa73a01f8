// The run loop and the block cache: interrupts, shadows, single step, halting, kicks, self-modifying code.
#include "cpu/cpu.h"

#include <gtest/gtest.h>

#include <thread>

#include "cpu/block.h"
#include "cpu/test_machine.h"

namespace kite::cpu {
namespace {

using x86::Activity;
using x86::kRax;
using x86::kRbx;
using x86::kRcx;
using x86::kRdi;
using Mode = TestMachine::Mode;
namespace flag = x86::flag;

constexpr Gpa kCode = TestMachine::kCode;

TEST(Halt, EndsTheRunWithRipBehindIt) {
  TestMachine m;
  EXPECT_EQ(m.run({0x90}), Exit::kHalted);
  EXPECT_EQ(m.cpu().state.rip, kCode + 2);
  EXPECT_EQ(m.cpu().arch.activity, Activity::kHalted);
}

TEST(Halt, InterruptWithFlagSetIsWork) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kIf;
  m.run({});
  EXPECT_TRUE(m.cpu().has_work(request::kInterrupt));
  EXPECT_FALSE(m.cpu().has_work(0));
}

TEST(Halt, SleepsThroughInterruptsWithFlagClear) {
  TestMachine m;
  m.run({});
  EXPECT_FALSE(m.cpu().has_work(request::kInterrupt));
  EXPECT_TRUE(m.cpu().has_work(request::kNmi));
}

TEST(Halt, InterruptWakesAndReturnsBehindTheHalt) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kIf;
  m.run({});
  m.apic.pending = {0x33};
  m.requests = request::kInterrupt;
  EXPECT_EQ(m.cpu().run(m, m.requests, m.sipi_vector), Exit::kHalted);
  EXPECT_EQ(m.vector(), 0x33);
  EXPECT_EQ(m.faulting_rip(), kCode + 1);
}

TEST(Interrupt, WaitsForTheFlag) {
  TestMachine m;
  m.apic.pending = {0x33};
  m.requests = request::kInterrupt;
  m.run({0xff, 0xc0});  // inc eax
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(kRax), 1u);
  EXPECT_EQ(m.requests.load(), request::kInterrupt);
}

TEST(Interrupt, StiHoldsItForOneInstruction) {
  TestMachine m;
  m.apic.pending = {0x33};
  m.requests = request::kInterrupt;
  m.run({0xfb, 0xff, 0xc0, 0xff, 0xc3});  // sti; inc eax; inc ebx
  EXPECT_EQ(m.vector(), 0x33);
  EXPECT_EQ(m.gpr(kRax), 1u);
  EXPECT_EQ(m.gpr(kRbx), 0u);
  EXPECT_EQ(m.faulting_rip(), kCode + 3);
}

TEST(Interrupt, StiThenHaltIsNotLost) {
  TestMachine m;
  m.apic.pending = {0x33};
  m.requests = request::kInterrupt;
  m.run({0xfb, 0xf4, 0xff, 0xc0});  // sti; hlt; inc eax
  EXPECT_EQ(m.vector(), 0x33);
  EXPECT_EQ(m.faulting_rip(), kCode + 2);
}

TEST(Interrupt, PopfOpensTheWindowAtOnce) {
  TestMachine m;
  m.apic.pending = {0x33};
  m.requests = request::kInterrupt;
  m.gpr(kRax) = flag::kIf;
  m.run({0x50, 0x9d, 0xfa, 0xff, 0xc3});  // push rax; popfq; cli; inc ebx
  EXPECT_EQ(m.vector(), 0x33);
  EXPECT_EQ(m.faulting_rip(), kCode + 2);
}

TEST(Interrupt, RequestStandsWhileTheApicHasMore) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kIf;
  m.apic.pending = {0x33, 0x34};
  m.requests = request::kInterrupt;
  m.run({});
  EXPECT_EQ(m.vector(), 0x33);
  EXPECT_EQ(m.requests.load(), request::kInterrupt);
}

TEST(Interrupt, ThatWentAwayIsForgotten) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kIf;
  m.requests = request::kInterrupt;
  m.run({0xff, 0xc0});
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.requests.load(), 0u);
}

TEST(Interrupt, ThatAnOutBringsComesBehindIt) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kIf;
  m.apic.pending = {0x33};
  m.on_port_write = [&](uint16_t) { m.requests.fetch_or(request::kInterrupt); };
  m.run({0xee, 0xff, 0xc3});  // out dx, al; inc ebx
  EXPECT_EQ(m.vector(), 0x33);
  EXPECT_EQ(m.gpr(kRbx), 0u);
}

TEST(Interrupt, MovSsHoldsItForOneInstruction) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kIf;
  m.gpr(kRax) = TestMachine::kData32;
  m.apic.pending = {0x33};
  m.step({0x8e, 0xd0, 0xff, 0xc3, 0xff, 0xc1});  // mov ss, eax; inc ebx; inc ecx
  m.requests = request::kInterrupt;
  m.resume();
  EXPECT_EQ(m.vector(), 0x33);
  EXPECT_EQ(m.gpr(kRbx), 1u);
  EXPECT_EQ(m.gpr(kRcx), 0u);
}

TEST(Nmi, IsHeldUntilTheReturnOfTheFirst) {
  TestMachine m;
  m.requests = request::kNmi;
  m.run({});
  EXPECT_EQ(m.vector(), 2);
  m.requests = request::kNmi;
  EXPECT_FALSE(m.cpu().has_work(request::kNmi));
  m.poke<uint8_t>(TestMachine::kHandlers + 2 * 16 + 1, 0x48);  // iretq behind the handler's HLT
  m.poke<uint8_t>(TestMachine::kHandlers + 2 * 16 + 2, 0xcf);
  m.resume();
  EXPECT_EQ(m.vector(), 2);
  EXPECT_EQ(m.faulting_rip(), kCode);
}

TEST(Kick, EndsAnEndlessLoop) {
  TestMachine m;
  m.load(kCode, std::vector<uint8_t>{0xeb, 0xfe});  // jmp .
  m.cpu().state.rip = kCode;
  std::thread other([&] { m.requests.fetch_or(request::kKick); });
  EXPECT_EQ(m.resume(), Exit::kKicked);
  other.join();
  EXPECT_EQ(m.requests.load(), 0u);
  EXPECT_EQ(m.cpu().state.rip, kCode);
}

TEST(Kick, EndsALoopWithoutBranches) {
  TestMachine m;
  std::vector<uint8_t> code(300, 0x90);
  code.insert(code.end(), {0xe9, 0xcf, 0xfe, 0xff, 0xff});  // jmp back to the start
  m.load(kCode, code);
  m.cpu().state.rip = kCode;
  std::thread other([&] { m.requests.fetch_or(request::kKick); });
  EXPECT_EQ(m.resume(), Exit::kKicked);
  other.join();
}

TEST(Init, ApplicationProcessorWaitsForSipiAndStartsThere) {
  TestMachine m;
  auto second = m.make_second_cpu();
  std::atomic<uint32_t> requests{request::kInit};
  EXPECT_EQ(second->run(m, requests, m.sipi_vector), Exit::kHalted);
  EXPECT_EQ(second->arch.activity, Activity::kWaitForSipi);
  EXPECT_FALSE(second->has_work(request::kInterrupt | request::kNmi));
  m.poke<uint8_t>(0x40000, 0xf4);
  m.sipi_vector = 0x40;
  requests = request::kSipi;
  EXPECT_EQ(second->run(m, requests, m.sipi_vector), Exit::kHalted);
  EXPECT_EQ(second->seg(x86::Seg::kCs).selector, 0x4000);
  EXPECT_EQ(second->state.rip, 1u);
}

TEST(Init, BootstrapProcessorStartsAtTheResetVector) {
  TestMachine m;
  m.mmio_value = 0xf4;  // HLT
  m.requests = request::kInit;
  EXPECT_EQ(m.resume(), Exit::kHalted);
  EXPECT_EQ(m.cpu().state.rip, 0xfff1u);
  EXPECT_EQ(m.cpu().seg(x86::Seg::kCs).base, 0xffff0000u);
}

TEST(Shutdown, TripleFault) {
  TestMachine m;
  m.cpu().arch.idtr.limit = 0;
  EXPECT_EQ(m.run({0x0f, 0x0b}), Exit::kShutdown);
  EXPECT_EQ(m.cpu().arch.activity, Activity::kShutdown);
}

TEST(SingleStep, TrapsAfterEachInstruction) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kTf;
  m.run({0xff, 0xc0, 0xff, 0xc0});  // inc eax; inc eax
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.gpr(kRax), 1u);
  EXPECT_EQ(m.faulting_rip(), kCode + 2);
  EXPECT_NE(m.cpu().arch.dr6 & x86::dr6::kBs, 0u);
}

TEST(SingleStep, StartsBehindTheInstructionThatSetsTheFlag) {
  TestMachine m;
  m.gpr(kRbx) = flag::kTf;
  m.run({0x53, 0x9d, 0xff, 0xc0, 0xff, 0xc0});  // push rbx; popfq; inc eax; inc eax
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.gpr(kRax), 1u);
}

TEST(SingleStep, TrapsInsideARepetition) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kTf;
  m.gpr(kRdi) = TestMachine::kData;
  m.gpr(kRcx) = 5;
  m.run({0xf3, 0xaa});  // rep stosb
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.gpr(kRcx), 4u);
  EXPECT_EQ(m.faulting_rip(), kCode);
}

TEST(Breakpoint, OfCodeIsAFaultBeforeTheInstruction) {
  TestMachine m;
  m.cpu().arch.dr[0] = kCode + 2;
  m.cpu().arch.dr7 |= 1;
  m.cpu().update_debug();
  m.run({0xff, 0xc0, 0xff, 0xc0});
  EXPECT_EQ(m.vector(), 1);
  EXPECT_EQ(m.gpr(kRax), 1u);
  EXPECT_EQ(m.faulting_rip(), kCode + 2);
}

TEST(Step, ExecutesExactlyOneInstruction) {
  TestMachine m;
  EXPECT_EQ(m.step({0xff, 0xc0, 0xff, 0xc0}), Exit::kStepped);
  EXPECT_EQ(m.gpr(kRax), 1u);
  EXPECT_EQ(m.cpu().state.rip, kCode + 2);
}

TEST(Step, FollowsBranchesWithoutRunningOn) {
  TestMachine m;
  m.step({0xeb, 0x02, 0x90, 0x90, 0xff, 0xc0}, 1);  // jmp +2
  EXPECT_EQ(m.cpu().state.rip, kCode + 4);
  EXPECT_EQ(m.gpr(kRax), 0u);
}

TEST(SelfModifyingCode, NextInstructionIsTheNewOne) {
  TestMachine m;
  // mov byte [rip+0], 0xc3 turns `inc eax` (ff c0) behind it into `inc ebx` (ff c3).
  m.run({0xc6, 0x05, 0x01, 0x00, 0x00, 0x00, 0xc3, 0xff, 0xc0});
  EXPECT_EQ(m.gpr(kRax), 0u);
  EXPECT_EQ(m.gpr(kRbx), 1u);
}

TEST(SelfModifyingCode, ThroughAnotherMappingOfThePage) {
  TestMachine m;
  m.set_pte(0x60000, kCode | 7);
  m.gpr(kRdi) = 0x60004;
  m.run({0xc6, 0x07, 0xc3, 0xff, 0xc0});  // mov byte [rdi], 0xc3; inc eax -> inc ebx
  EXPECT_EQ(m.gpr(kRax), 0u);
  EXPECT_EQ(m.gpr(kRbx), 1u);
}

TEST(SelfModifyingCode, ByAStringInstruction) {
  TestMachine m;
  m.gpr(kRdi) = kCode + 2;
  m.gpr(kRcx) = 4;
  m.gpr(kRax) = 0x90;
  m.run({0xf3, 0xaa, 0xff, 0xc3, 0xff, 0xc3});  // rep stosb over the two `inc ebx`
  EXPECT_EQ(m.gpr(kRbx), 0u);
}

TEST(SelfModifyingCode, InALoopIsSeenInEachRound) {
  TestMachine m;
  // 1: inc byte [rip+disp of imm]; mov al, imm; add ebx, eax; dec ecx; jnz 1b
  m.gpr(kRcx) = 4;
  m.run({0xfe, 0x05, 0x01, 0x00, 0x00, 0x00, 0xb0, 0x00, 0x01, 0xc3, 0xff, 0xc9, 0x75, 0xf2});
  EXPECT_EQ(m.gpr(kRbx), 1u + 2 + 3 + 4);
}

TEST(SelfModifyingCode, FromOutsideIsSeenOnTheNextRun) {
  TestMachine m;
  m.run({0xff, 0xc0});
  m.run({0xff, 0xc3});
  EXPECT_EQ(m.gpr(kRax), 1u);
  EXPECT_EQ(m.gpr(kRbx), 1u);
}

TEST(Block, WriteElsewhereInThePageKeepsTheCode) {
  TestMachine m;
  m.run({0xff, 0xc0});
  m.poke<uint8_t>(kCode + 0x800, 1);
  m.cpu().state.rip = kCode;
  m.resume();
  EXPECT_EQ(m.gpr(kRax), 2u);
}

TEST(Block, InstructionAcrossPages) {
  TestMachine m;
  m.run({0xb8, 0x78, 0x56, 0x34, 0x12}, kCode + 0xffe);  // mov eax, 0x12345678
  EXPECT_EQ(m.gpr(kRax), 0x12345678u);
}

TEST(Block, InstructionAcrossPagesSeesAWriteToTheSecond) {
  TestMachine m;
  m.run({0xb8, 0x78, 0x56, 0x34, 0x12}, kCode + 0xffe);
  m.poke<uint8_t>(kCode + 0x1002, 0x99);
  m.cpu().state.rip = kCode + 0xffe;
  m.resume();
  EXPECT_EQ(m.gpr(kRax), 0x99345678u);
}

TEST(Block, InstructionAcrossPagesFaultsOnTheSecond) {
  TestMachine m;
  m.set_pte(kCode + 0x1000, 0);
  m.run({0xb8, 0x78, 0x56, 0x34, 0x12}, kCode + 0xffe);
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.cpu().arch.cr2, kCode + 0x1000);
  EXPECT_EQ(m.faulting_rip(), kCode + 0xffe);
}

TEST(Block, FallsThroughToTheNextPage) {
  TestMachine m;
  m.run({0xff, 0xc0, 0xff, 0xc0}, kCode + 0xffe);
  EXPECT_EQ(m.gpr(kRax), 2u);
}

TEST(Block, RemappedPageIsNotRunFromTheOldOne) {
  TestMachine m;
  m.load(0x50000, std::vector<uint8_t>{0xff, 0xc0, 0xf4});
  m.load(0x51000, std::vector<uint8_t>{0xff, 0xc3, 0xf4});
  m.cpu().state.rip = 0x50000;
  m.resume();
  m.set_pte(0x50000, 0x51000 | 7);
  m.cpu().state.rip = 0x50000;
  m.resume();
  EXPECT_EQ(m.gpr(kRax), 1u);
  EXPECT_EQ(m.gpr(kRbx), 1u);
}

TEST(Block, RunsFromDeviceMemory) {
  TestMachine m;
  m.mmio_value = 0xf4;  // HLT everywhere
  m.cpu().state.rip = TestMachine::kNothing;
  EXPECT_EQ(m.resume(), Exit::kHalted);
  EXPECT_EQ(m.cpu().state.rip, TestMachine::kNothing + 1);
}

TEST(Block, CodeSegmentLimitEndsIt) {
  TestMachine m(Mode::k16);
  m.cpu().seg(x86::Seg::kCs).limit = 2;
  m.cpu().update_mode();
  m.run({0x40, 0x40, 0xb8, 0x00, 0x00});  // inc ax; inc ax; mov ax, imm reaches beyond the limit
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.gpr(kRax), 2u);
}

TEST(Block, MapChangeInTheMiddleEndsIt) {
  TestMachine m;
  m.gpr(x86::kRdx) = 0x80;
  m.on_port_write = [&](uint16_t) {
    m.poke<uint8_t>(kCode + 2, 0xc3);  // as if other memory had appeared: inc eax becomes inc ebx
    m.cpu().map_changed();
  };
  m.run({0xee, 0xff, 0xc0});  // out dx, al; inc eax
  EXPECT_EQ(m.gpr(kRax), 0u);
  EXPECT_EQ(m.gpr(kRbx), 1u);
}

TEST(Block, CacheIsBounded) {
  TestMachine m;
  // 8 MiB of NOPs: blocks of the greatest length, more than the cache may hold.
  constexpr Gpa kStart = 4 << 20;
  constexpr size_t kBytes = 8 << 20;
  std::vector<uint8_t> code(kBytes, 0x90);
  m.run(code, kStart);
  EXPECT_EQ(m.cpu().state.rip, kStart + kBytes + 1);
  EXPECT_LE(m.cpu().blocks().memory(), BlockCache::kMemoryLimit + (2 << 20));
}

TEST(Block, LoopGoesOnAfterATlbFlush) {
  TestMachine m;
  m.gpr(kRcx) = 10;
  m.gpr(kRax) = TestMachine::kPml4;
  m.run({0x0f, 0x22, 0xd8, 0xff, 0xc3, 0xff, 0xc9, 0x75, 0xf7});  // 1: mov cr3, rax; inc ebx; dec ecx; jnz 1b
  EXPECT_EQ(m.gpr(kRbx), 10u);
}

TEST(Block, SameCodeAtTwoPlacesKeepsItsOwnRip) {
  TestMachine m;
  m.set_pte(0x60000, kCode | 7);
  m.load(kCode, std::vector<uint8_t>{0x48, 0x8d, 0x05, 0x00, 0x00, 0x00, 0x00, 0xf4});  // lea rax, [rip]; hlt
  for (const Gpa at : {kCode, Gpa{0x60000}}) {
    m.cpu().state.rip = at;
    m.resume();
    EXPECT_EQ(m.gpr(kRax), at + 7);
  }
}

TEST(Mode, RealModeSegmentsAtOneOffsetAreToldApart) {
  TestMachine m(Mode::kReal);
  m.load(0x20000, std::vector<uint8_t>{0x40, 0xf4});  // inc ax
  m.load(0x30000, std::vector<uint8_t>{0x43, 0xf4});  // inc bx
  for (const uint16_t selector : {uint16_t{0x2000}, uint16_t{0x3000}}) {
    m.cpu().set_segment_real(x86::Seg::kCs, selector);
    m.cpu().update_mode();
    m.cpu().state.rip = 0;
    m.resume();
  }
  EXPECT_EQ(m.gpr(kRax), 1u);
  EXPECT_EQ(m.gpr(kRbx), 1u);
}

TEST(State, RoundTrip) {
  TestMachine m;
  m.cpu().set_flags(flag::kCf | flag::kDf | flag::kFixed1);
  x86::ArchState before;
  m.cpu().get_state(before);
  before.gpr[3] = 0x1234;
  m.cpu().set_state(before);
  x86::ArchState after;
  m.cpu().get_state(after);
  EXPECT_EQ(after.gpr, before.gpr);
  EXPECT_EQ(after.rflags, before.rflags);
  EXPECT_EQ(after.seg, before.seg);
}

}  // namespace
}  // namespace kite::cpu

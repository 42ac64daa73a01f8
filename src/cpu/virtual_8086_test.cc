// Virtual interrupts: CR4.VME in virtual-8086 mode, CR4.PVI at privilege 3.
#include "cpu/virtual_8086.h"

#include <gtest/gtest.h>

#include "cpu/test_machine.h"

namespace kite::cpu {
namespace {

using Mode = TestMachine::Mode;
using x86::Seg;
namespace flag = x86::flag;

constexpr uint16_t kTaskCs = TestMachine::kCode >> 4, kTaskSs = 0x2000, kTaskSp = 0x1000;
constexpr Gpa kTaskStack = (kTaskSs << 4) + kTaskSp;
constexpr uint32_t kRedirection = 0x68, kIoMap = kRedirection + 32;  // offsets in the TSS
constexpr uint64_t kIopl0 = 0, kIopl3 = flag::kIopl;

// A virtual-8086 task of 16-bit code at kCode, with VME on, and a TSS that has a redirection bitmap of zeroes.
class V86Machine : public TestMachine {
 public:
  explicit V86Machine(uint64_t flags, uint64_t cr4 = x86::cr4::kVme) : TestMachine(Mode::k32) {
    x86::ArchState state = initial_state();
    state.cr4 |= cr4;
    state.rflags = flag::kFixed1 | flag::kVm | flags;
    for (auto& segment : state.seg) segment = {0x3000, 0xf3, 0xffff, 0x30000};
    state.seg[static_cast<size_t>(Seg::kCs)] = {kTaskCs, 0xf3, 0xffff, kTaskCs << 4};
    state.seg[static_cast<size_t>(Seg::kSs)] = {kTaskSs, 0xf3, 0xffff, kTaskSs << 4};
    state.gpr[x86::kRsp] = kTaskSp;
    state.tr.limit = kIoMap + 0x2000;
    poke<uint16_t>(kTss + 0x66, kIoMap);
    cpu().set_state(state);
  }
  // The interrupt goes to the monitor, not to the task.
  void keep_from_task(uint8_t vector) {
    const Gpa at = kTss + kRedirection + vector / 8;
    poke<uint8_t>(at, static_cast<uint8_t>(peek<uint8_t>(at) | 1u << vector % 8));
  }
  // Executes without the HLT behind it: it is privileged here.
  void execute(std::initializer_list<uint8_t> code) { step(code); }
  [[nodiscard]] uint64_t flags() { return cpu().flags(); }
  [[nodiscard]] bool faulted() { return !cpu().v86(); }
  [[nodiscard]] uint64_t rip() { return cpu().state.rip; }
};

TEST(Virtual8086, StiAndCliWorkOnVifBelowIopl3) {
  V86Machine m(kIopl0);
  m.execute({0xfb});  // sti
  EXPECT_FALSE(m.faulted());
  EXPECT_EQ(m.flags() & (flag::kVif | flag::kIf), flag::kVif);
  m.execute({0xfa});  // cli
  EXPECT_EQ(m.flags() & (flag::kVif | flag::kIf), 0u);
}

TEST(Virtual8086, StiAndCliWorkOnIfAtIopl3) {
  V86Machine m(kIopl3);
  m.execute({0xfb});
  EXPECT_EQ(m.flags() & (flag::kVif | flag::kIf), flag::kIf);
}

TEST(Virtual8086, WithoutVmeStiFaultsBelowIopl3) {
  V86Machine m(kIopl0, 0);
  m.execute({0xfb});
  EXPECT_TRUE(m.faulted());
  EXPECT_EQ(m.vector(), 13);
}

TEST(Virtual8086, StiFaultsWhileAnInterruptIsPending) {
  V86Machine m(flag::kVip);
  m.execute({0xfb});
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.error_code(), 0u);
}

TEST(Virtual8086, PushfShowsVifAsIfAndIopl3) {
  V86Machine m(flag::kVif | flag::kDf);
  m.execute({0x9c});  // pushf
  EXPECT_EQ(m.peek<uint16_t>(kTaskStack - 2), flag::kFixed1 | flag::kDf | flag::kIf | flag::kIopl);
}

TEST(Virtual8086, WidePushfFaultsBelowIopl3) {
  V86Machine m(kIopl0);
  m.execute({0x66, 0x9c});  // pushfd
  EXPECT_EQ(m.vector(), 13);
}

TEST(Virtual8086, PopfLoadsVifAndLeavesIfAndIopl) {
  V86Machine m(kIopl0);
  m.poke<uint16_t>(kTaskStack, flag::kIf | flag::kIopl | flag::kCf);
  m.execute({0x9d});  // popf
  EXPECT_EQ(m.flags() & (flag::kVif | flag::kIf | flag::kIopl | flag::kCf), flag::kVif | flag::kCf);
  EXPECT_EQ(m.gpr(x86::kRsp), kTaskSp + 2u);
}

TEST(Virtual8086, PopfWithTrapFlagFaultsAndLeavesTheStack) {
  V86Machine m(kIopl0);
  m.poke<uint16_t>(kTaskStack, flag::kTf);
  m.execute({0x9d});
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.frame(4), kTaskSp);  // error code, eip, cs, eflags, esp
}

TEST(Virtual8086, PopfThatEnablesFaultsWhileAnInterruptIsPending) {
  V86Machine m(flag::kVip);
  m.poke<uint16_t>(kTaskStack, flag::kIf);
  m.execute({0x9d});
  EXPECT_EQ(m.vector(), 13);
}

TEST(Virtual8086, IretLoadsVif) {
  V86Machine m(kIopl0);
  m.poke<uint16_t>(kTaskStack, 0x1234);
  m.poke<uint16_t>(kTaskStack + 2, 0x3000);
  m.poke<uint16_t>(kTaskStack + 4, flag::kIf | flag::kZf);
  m.execute({0xcf});  // iret
  EXPECT_EQ(m.rip(), 0x1234u);
  EXPECT_EQ(m.cpu().seg(Seg::kCs).base, 0x30000u);
  EXPECT_EQ(m.flags() & (flag::kVif | flag::kIf | flag::kIopl | flag::kZf), flag::kVif | flag::kZf);
}

TEST(Virtual8086, IntGoesToTheTasksOwnVectorTable) {
  V86Machine m(flag::kVif);
  m.poke<uint32_t>(0x21 * 4, 0x40005678);  // 4000:5678
  m.execute({0xcd, 0x21});
  EXPECT_FALSE(m.faulted());
  EXPECT_EQ(m.rip(), 0x5678u);
  EXPECT_EQ(m.cpu().seg(Seg::kCs).selector, 0x4000);
  EXPECT_EQ(m.peek<uint16_t>(kTaskStack - 2), flag::kFixed1 | flag::kIf | flag::kIopl);
  EXPECT_EQ(m.peek<uint16_t>(kTaskStack - 4), kTaskCs);
  EXPECT_EQ(m.peek<uint16_t>(kTaskStack - 6), 2u);
  EXPECT_EQ(m.flags() & flag::kVif, 0u);
}

TEST(Virtual8086, RedirectedIntAtIopl3ClearsIf) {
  V86Machine m(kIopl3 | flag::kIf | flag::kVif);
  m.poke<uint32_t>(0x21 * 4, 0x40005678);
  m.execute({0xcd, 0x21});
  EXPECT_EQ(m.rip(), 0x5678u);
  EXPECT_EQ(m.flags() & (flag::kIf | flag::kVif), flag::kVif);
}

TEST(Virtual8086, IntThatTheBitmapKeepsGoesToTheIdtAtIopl3) {
  V86Machine m(kIopl3);
  m.keep_from_task(0x21);
  const Gpa gate = TestMachine::kIdt + 0x21 * 8;
  m.poke<uint8_t>(gate + 5, 0xee);  // DPL 3
  m.execute({0xcd, 0x21});
  EXPECT_TRUE(m.faulted());
  EXPECT_EQ(m.vector(), 0x21);
}

TEST(Virtual8086, IntThatTheBitmapKeepsFaultsBelowIopl3) {
  V86Machine m(kIopl0);
  m.keep_from_task(0x21);
  m.execute({0xcd, 0x21});
  EXPECT_EQ(m.vector(), 13);
}

TEST(Virtual8086, PortsFollowTheIoBitmapAtEveryIopl) {
  V86Machine m(kIopl3);
  m.poke<uint8_t>(TestMachine::kTss + kIoMap + 0x60 / 8, 1);
  m.execute({0xe6, 0x61});  // out 0x61, al
  EXPECT_FALSE(m.faulted());
  EXPECT_EQ(m.port_writes.size(), 1u);
  m.execute({0xe6, 0x60});
  EXPECT_EQ(m.vector(), 13);
}

// --- protected mode

TEST(ProtectedVirtualInterrupts, CliAndStiWorkOnVifAtPrivilege3) {
  TestMachine m(Mode::k32);
  m.cpu().arch.cr4 |= x86::cr4::kPvi;
  m.enter_user();
  m.step({0xfb});
  EXPECT_EQ(m.cpu().flags() & (flag::kVif | flag::kIf), flag::kVif);
  m.step({0xfa});
  EXPECT_EQ(m.cpu().flags() & flag::kVif, 0u);
}

TEST(ProtectedVirtualInterrupts, StiFaultsWhileAnInterruptIsPending) {
  TestMachine m(Mode::k32);
  m.cpu().arch.cr4 |= x86::cr4::kPvi;
  m.enter_user();
  m.cpu().set_flags(m.cpu().flags() | flag::kVip);
  m.step({0xfb});
  EXPECT_EQ(m.vector(), 13);
}

}  // namespace
}  // namespace kite::cpu

// What a debugger asks of a CPU whose code is translated; cpu/debugger_test.cc has what holds for any.
#include "cpu/debugger.h"

#include <gtest/gtest.h>

#include "accel/jit/translator.h"
#include "cpu/test_machine.h"

namespace kite::jit {
namespace {

using cpu::Exit;
using cpu::TestMachine;
using Watch = GuestDebug::Watch;
namespace x = x86;

constexpr uint64_t kCode = TestMachine::kCode, kData = TestMachine::kData;
constexpr GuestDebug kStep{.single_step = true, .hold_interrupts = true};

class DebuggedTranslatorTest : public testing::Test {
 protected:
  DebuggedTranslatorTest() {
    auto made = Translator::create(m.cpu(), {.code_bytes = size_t{4} << 20, .threshold = 1});
    if (!made) throw std::runtime_error(made.error().message);
    translator = std::move(*made);
    m.cpu().translator = translator.get();
  }
  ~DebuggedTranslatorTest() override { m.cpu().translator = nullptr; }
  // Past the breakpoint that it stands at, to where it stops next.
  Exit go_on() {
    const GuestDebug wishes = m.cpu().debugger->asked;
    m.cpu().set_debugger(kStep);
    EXPECT_EQ(m.resume(), Exit::kDebug);
    m.cpu().set_debugger(wishes);
    return m.resume();
  }

  TestMachine m;
  std::unique_ptr<Translator> translator;
  // 1: inc rax; dec ecx; jnz 1b; then HLT
  const std::vector<uint8_t> loop{0x48, 0xff, 0xc0, 0xff, 0xc9, 0x75, 0xf9};
};

TEST_F(DebuggedTranslatorTest, ABreakpointGoesIntoALoopThatIsTranslated) {
  m.gpr(x::kRcx) = 1000;
  m.run(loop);
  ASSERT_GE(translator->counters().blocks.value(), 1u);
  for (const uint64_t offset : {0u, 3u, 5u}) {
    m.gpr(x::kRcx) = 5;
    m.gpr(x::kRax) = 0;
    m.cpu().set_debugger({.breakpoints = {kCode + offset}});
    Exit exit = m.run(loop);
    for (uint64_t round = 0; round < 5; ++round) {
      ASSERT_EQ(exit, Exit::kDebug) << offset;
      EXPECT_EQ(m.cpu().debug_stop().rip, kCode + offset);
      EXPECT_EQ(m.gpr(x::kRax), round + (offset == 0 ? 0 : 1));
      EXPECT_EQ(m.gpr(x::kRcx), 5 - round - (offset == 5 ? 1 : 0));
      exit = go_on();
    }
    EXPECT_EQ(exit, Exit::kHalted);
    m.cpu().set_debugger({});
  }
}

TEST_F(DebuggedTranslatorTest, CallsAndReturnsLeadToBreakpoints) {
  // 1: call f; inc rax; dec ecx; jnz 1b; hlt; f: inc rbx; ret
  const std::vector<uint8_t> calls{0xe8, 0x08, 0,    0,    0,    0x48, 0xff, 0xc0, 0xff,
                                   0xc9, 0x75, 0xf4, 0xf4, 0x48, 0xff, 0xc3, 0xc3};
  m.gpr(x::kRcx) = 1000;
  m.run(calls);
  for (const uint64_t offset : {5u, 13u, 16u}) {  // behind the call; the function; its return
    m.gpr(x::kRcx) = 3;
    m.cpu().set_debugger({.breakpoints = {kCode + offset}});
    Exit exit = m.run(calls);
    for (int round = 0; round < 3; ++round) {
      ASSERT_EQ(exit, Exit::kDebug) << offset;
      EXPECT_EQ(m.cpu().debug_stop().rip, kCode + offset);
      exit = go_on();
    }
    EXPECT_EQ(exit, Exit::kHalted);
    m.cpu().set_debugger({});
  }
}

TEST_F(DebuggedTranslatorTest, IndirectJumpsLeadToBreakpoints) {
  // jmp rdx, to the loop
  m.gpr(x::kRcx) = 100;
  m.run(loop);
  m.gpr(x::kRdx) = kCode;
  m.gpr(x::kRcx) = 2;
  m.cpu().set_debugger({.breakpoints = {kCode}});
  EXPECT_EQ(m.run({0xff, 0xe2}, kCode + 0x800), Exit::kDebug);
  EXPECT_EQ(m.cpu().debug_stop().rip, kCode);
}

TEST_F(DebuggedTranslatorTest, ABreakpointStandsAtAnotherMappingToo) {
  m.set_pte(0x40000, 0x50000 | 7);
  m.load(0x50000, loop);
  m.poke<uint8_t>(0x50000 + loop.size(), 0xf4);
  m.gpr(x::kRcx) = 100;
  m.cpu().state.rip = 0x40000;
  m.resume();
  m.cpu().set_debugger({.breakpoints = {0x40003}});
  m.gpr(x::kRcx) = 2;
  m.cpu().state.rip = 0x50000;  // the same bytes, elsewhere
  EXPECT_EQ(m.resume(), Exit::kHalted);
  m.gpr(x::kRcx) = 2;
  m.cpu().state.rip = 0x40000;
  EXPECT_EQ(m.resume(), Exit::kDebug);
  // Another page comes to be there.
  m.load(0x60000, loop);
  m.set_pte(0x40000, 0x60000 | 7);
  m.cpu().state.rip = 0x40000;
  EXPECT_EQ(m.resume(), Exit::kDebug);
  EXPECT_EQ(m.cpu().debug_stop().rip, 0x40003u);
}

TEST_F(DebuggedTranslatorTest, AWatchpointSeesStoresOfTranslatedCode) {
  // 1: mov [rdi + rcx * 8], rax; dec ecx; jnz 1b
  const std::vector<uint8_t> stores{0x48, 0x89, 0x04, 0xcf, 0xff, 0xc9, 0x75, 0xf8};
  m.gpr(x::kRdi) = kData;
  m.gpr(x::kRcx) = 200;
  m.run(stores);
  m.gpr(x::kRcx) = 200;
  m.cpu().set_debugger({.watches = {{.kind = Watch::Kind::kWrite, .address = kData + 100 * 8 + 3, .bytes = 2}}});
  EXPECT_EQ(m.run(stores), Exit::kDebug);
  EXPECT_EQ(m.gpr(x::kRcx), 100u);
  EXPECT_EQ(m.cpu().state.rip, kCode + 4);
  EXPECT_EQ(m.resume(), Exit::kHalted);
}

TEST_F(DebuggedTranslatorTest, WithoutADebuggerTheLoopIsTranslatedAgain) {
  m.cpu().set_debugger({.breakpoints = {kCode + 3}, .watches = {{.kind = Watch::Kind::kAccess, .address = kData}}});
  m.gpr(x::kRcx) = 10;
  m.run(loop);
  m.cpu().set_debugger({});
  m.gpr(x::kRcx) = 1000;
  m.gpr(x::kRax) = 0;
  const uint64_t runs = translator->counters().runs.value();
  EXPECT_EQ(m.run(loop), Exit::kHalted);
  EXPECT_EQ(m.gpr(x::kRax), 1000u);
  EXPECT_LT(translator->counters().runs.value() - runs, 10u);
}

}  // namespace
}  // namespace kite::jit

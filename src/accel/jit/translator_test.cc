#include "accel/jit/translator.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "cpu/test_machine.h"

namespace kite::jit {
namespace {

using cpu::TestMachine;
namespace x = x86;

// A machine whose blocks are translated when they are first entered.
class TranslatorTest : public testing::Test {
 protected:
  explicit TranslatorTest(size_t code_bytes = size_t{4} << 20, uint32_t threshold = 1) {
    auto made = Translator::create(m.cpu(), {.code_bytes = code_bytes, .threshold = threshold});
    if (!made) throw std::runtime_error(made.error().message);
    translator = std::move(*made);
    m.cpu().translator = translator.get();
  }
  ~TranslatorTest() override { m.cpu().translator = nullptr; }

  TestMachine m;
  std::unique_ptr<Translator> translator;
};

TEST_F(TranslatorTest, LoopsRunInHostCode) {
  m.gpr(x::kRcx) = 1000;
  m.run({0x48, 0xff, 0xc0, 0xff, 0xc9, 0x75, 0xf9});  // inc rax; dec ecx; jnz
  EXPECT_EQ(m.gpr(x::kRax), 1000u);
  EXPECT_GE(translator->counters().blocks.value(), 1u);
  EXPECT_LT(translator->counters().runs.value(), 10u);
}

TEST_F(TranslatorTest, AFaultLeavesWhatCameBeforeIt) {
  m.set_pte(TestMachine::kData, 0);
  m.gpr(x::kRdi) = TestMachine::kData;
  m.gpr(x::kRax) = ~uint64_t{0};
  // add rax, 1 (carries); mov r9d, 5; mov rbx, [rdi]; inc rdx
  m.run({0x48, 0x83, 0xc0, 0x01, 0x41, 0xb9, 5, 0, 0, 0, 0x48, 0x8b, 0x1f, 0x48, 0xff, 0xc2});
  ASSERT_EQ(m.vector(), 14);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode + 10);
  EXPECT_EQ(m.gpr(x::kR9), 5u);
  EXPECT_EQ(m.gpr(x::kRdx), 0u);
  EXPECT_EQ(m.pushed_flags() & x::flag::kArithmetic, x::flag::kCf | x::flag::kZf | x::flag::kPf | x::flag::kAf);
}

TEST_F(TranslatorTest, CodeThatRewritesALaterBlockRunsTheNewOne) {
  // 1: mov al, 1 (its immediate is at +1); dec ecx; jz out; mov byte [rdi], 7; jmp 1b; out: hlt
  m.gpr(x::kRcx) = 2;
  m.gpr(x::kRdi) = TestMachine::kCode + 1;
  m.run({0xb0, 0x01, 0xff, 0xc9, 0x74, 0x05, 0xc6, 0x07, 0x07, 0xeb, 0xf5});
  EXPECT_EQ(m.gpr(x::kRax) & 0xff, 7u);
}

// The table of jumps looks for an address with a mode's number in its high bits: that alone must not find an empty
// place.
TEST_F(TranslatorTest, AJumpToTheNumberOfAModeIsNotFound) {
  for (uint64_t number = 1; number < 128; ++number) {
    constexpr unsigned kShift = 57;
    m.gpr(x::kRdi) = number << kShift;
    m.run({0x48, 0x89, 0xf8, 0xff, 0xe0});  // mov rax, rdi; jmp rax
    ASSERT_EQ(m.vector(), 13) << number;
  }
}

TEST_F(TranslatorTest, ABlockThatRewritesItselfEndsBehindTheStore) {
  // mov byte [rdi], 7; mov al, 1, whose immediate is what the store changes
  m.gpr(x::kRdi) = TestMachine::kCode + 4;
  m.run({0xc6, 0x07, 0x07, 0xb0, 0x01});
  EXPECT_EQ(m.gpr(x::kRax) & 0xff, 7u);
}

TEST_F(TranslatorTest, WritesOfAnotherThreadReachARunningLoop) {
  // 1: cmp byte [rdi], 0; 2: jmp 1b, which becomes two NOPs
  m.gpr(x::kRdi) = TestMachine::kData;
  const std::initializer_list<uint8_t> code = {0x80, 0x3f, 0x00, 0xeb, 0xfb};
  std::thread writer([this] {
    while (m.ram->page_state(TestMachine::kCode)->load() == 0) std::this_thread::yield();
    m.poke<uint16_t>(TestMachine::kCode + 3, 0x9090);
  });
  const cpu::Exit exit = m.run(code);
  writer.join();
  EXPECT_EQ(exit, cpu::Exit::kHalted);
  EXPECT_EQ(m.cpu().state.rip, TestMachine::kCode + 6);
}

TEST_F(TranslatorTest, AStaleBlockWhoseBytesStandIsRevived) {
  const std::initializer_list<uint8_t> code = {0xff, 0xc0};  // inc eax
  m.run(code);
  const uint64_t blocks = translator->counters().blocks.value();
  m.poke<uint8_t>(TestMachine::kCode + 0x800, 1);  // the same page, elsewhere
  m.cpu().state.rip = TestMachine::kCode;
  m.resume();
  EXPECT_EQ(m.gpr(x::kRax), 2u);
  EXPECT_EQ(translator->counters().blocks.value(), blocks);
  EXPECT_GE(translator->counters().revived.value(), 1u);
}

TEST_F(TranslatorTest, AnotherMappingOfAPageIsNotTakenForTheOld) {
  // Two pages of code that differ, one after the other at one linear address, reached through the same call.
  constexpr uint64_t kCallee = 0x50000;
  m.load(kCallee, std::array<uint8_t, 3>{0xb0, 0x01, 0xc3});           // mov al, 1; ret
  m.load(kCallee + 0x1000, std::array<uint8_t, 3>{0xb0, 0x02, 0xc3});  // mov al, 2; ret
  m.gpr(x::kRbx) = kCallee;
  const std::initializer_list<uint8_t> code = {0xff, 0xd3};  // call rbx
  m.run(code);
  m.cpu().state.rip = TestMachine::kCode;
  m.resume();
  EXPECT_EQ(m.gpr(x::kRax) & 0xff, 1u);
  m.set_pte(kCallee, (kCallee + 0x1000) | 7);
  m.cpu().state.rip = TestMachine::kCode;
  m.resume();
  EXPECT_EQ(m.gpr(x::kRax) & 0xff, 2u);
}

TEST_F(TranslatorTest, AReturnGoesWhereTheStackSaysNotWhereTheCallWas) {
  // call f; mov al, 1; hlt; f: mov [rsp], rbx; ret; at rbx: mov al, 2
  m.gpr(x::kRbx) = TestMachine::kCode + 13;
  for (int round = 0; round < 3; ++round) {
    m.run({0xe8, 3, 0, 0, 0, 0xb0, 1, 0xf4, 0x48, 0x89, 0x1c, 0x24, 0xc3, 0xb0, 2});
    ASSERT_EQ(m.gpr(x::kRax) & 0xff, 2u) << round;
    ASSERT_EQ(m.gpr(x::kRsp), TestMachine::kStackTop) << round;
  }
}

TEST_F(TranslatorTest, MoreCallsThanArePredictedReturnAll) {
  // call f; jmp out; f: dec ecx; jz 1f; call f; 1: inc rax; ret; out:
  m.gpr(x::kRcx) = 3000;
  m.run({0xe8, 2, 0, 0, 0, 0xeb, 13, 0xff, 0xc9, 0x74, 5, 0xe8, 0xf7, 0xff, 0xff, 0xff, 0x48, 0xff, 0xc0, 0xc3});
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(x::kRax), 3000u);
  EXPECT_EQ(m.gpr(x::kRsp), TestMachine::kStackTop);
}

TEST_F(TranslatorTest, AReturnToAPageThatWasRemappedFindsTheNewOne) {
  constexpr uint64_t kCaller = 0x50000;
  const std::array<uint8_t, 5> caller{0xff, 0xd3, 0xb0, 0x01, 0xf4};  // call rbx; mov al, 1; hlt
  const std::array<uint8_t, 5> other{0xff, 0xd3, 0xb0, 0x02, 0xf4};
  m.load(kCaller, caller);
  m.load(kCaller + 0x1000, other);
  m.load(TestMachine::kCode, std::array<uint8_t, 7>{0x4c, 0x89, 0x06, 0x0f, 0x01, 0x3f, 0xc3});  // mov [rsi], r8
  m.gpr(x::kRbx) = TestMachine::kCode;                                                           // invlpg [rdi]; ret
  m.gpr(x::kRsi) = TestMachine::kPt + (kCaller >> 12) * 8;
  m.gpr(x::kRdi) = kCaller;
  for (const uint64_t page : {kCaller, kCaller, kCaller + 0x1000}) {
    m.gpr(x::kR8) = page | 7;
    m.cpu().state.rip = kCaller;
    m.resume();
    EXPECT_EQ(m.gpr(x::kRax) & 0xff, page == kCaller ? 1u : 2u);
  }
}

// The kernel is entered and left without leaving translated code, and user code does not check where it returns to.
TEST_F(TranslatorTest, AReturnOfUserCodeFindsWhatTheKernelHasMappedThere) {
  constexpr uint64_t kCaller = 0x50000, kKernel = 0x60000;
  m.load(kCaller, std::array<uint8_t, 5>{0xff, 0xd3, 0xb0, 0x01, 0xf4});           // call rbx; mov al, 1; hlt
  m.load(kCaller + 0x1000, std::array<uint8_t, 5>{0xff, 0xd3, 0xb0, 0x02, 0xf4});  // mov al, 2
  m.load(TestMachine::kCode, std::array<uint8_t, 3>{0x0f, 0x05, 0xc3});            // syscall; ret
  // mov [rsi], r8; invlpg [rdi]; sysretq
  m.load(kKernel, std::array<uint8_t, 9>{0x4c, 0x89, 0x06, 0x0f, 0x01, 0x3f, 0x48, 0x0f, 0x07});
  m.set_pte(kCaller, kCaller | 7);
  m.enter_user();
  x::ArchState state;
  m.cpu().get_state(state);
  state.efer |= x::efer::kSce;
  state.star = uint64_t{TestMachine::kUserCode64 - 16} << 48 | uint64_t{TestMachine::kCode64} << 32;
  state.lstar = kKernel;
  m.cpu().set_state(state);
  m.gpr(x::kRbx) = TestMachine::kCode;
  m.gpr(x::kRsi) = TestMachine::kPt + (kCaller >> 12) * 8;
  m.gpr(x::kRdi) = kCaller;
  const x::ArchState user = [&] {
    m.cpu().get_state(state);
    return state;
  }();
  for (const uint64_t page : {kCaller, kCaller, kCaller, kCaller + 0x1000}) {
    m.cpu().set_state_keep_tlb(user);
    m.gpr(x::kR8) = page | 7;
    m.cpu().state.rip = kCaller;
    m.resume();
    ASSERT_EQ(m.vector(), 13);  // HLT
    EXPECT_EQ(m.gpr(x::kRax) & 0xff, page == kCaller ? 1u : 2u);
  }
}

TEST_F(TranslatorTest, AReturnToANonCanonicalAddressFaults) {
  for (const uint64_t address : {uint64_t{1} << 57, uint64_t{1} << 47, uint64_t{3} << 57, ~uint64_t{0} << 56}) {
    m.cpu().set_state(m.initial_state());
    m.gpr(x::kRax) = address;
    m.run({0x50, 0xc3});  // push rax; ret
    EXPECT_EQ(m.vector(), 13) << std::hex << address;
  }
}

// Callers are linked to code that is made anew when its bytes have changed.
TEST_F(TranslatorTest, CallersFindWhatHasTakenTheirCalleesPlace) {
  constexpr Gpa kCallee = 0x12000;
  // 1: call kCallee; dec ecx; jnz 1b; hlt
  const std::vector<uint8_t> caller = {0xe8, 0xfb, 0x1f, 0x00, 0x00, 0xff, 0xc9, 0x75, 0xf7, 0xf4};
  m.load(kCallee, std::vector<uint8_t>{0x48, 0xff, 0xc0, 0xc3});  // inc rax; ret
  m.gpr(x::kRcx) = 500;
  m.run(caller);
  EXPECT_EQ(m.gpr(x::kRax), 500u);
  for (int round = 1; round <= 3; ++round) {
    m.poke<uint8_t>(kCallee + 2, round % 2 != 0 ? 0xc8 : 0xc0);  // dec rax, inc rax
    m.gpr(x::kRax) = 1000;
    m.gpr(x::kRcx) = 500;
    m.cpu().state.rip = TestMachine::kCode;
    const uint64_t runs = translator->counters().runs.value();
    m.resume();
    EXPECT_EQ(m.gpr(x::kRax), round % 2 != 0 ? 500u : 1500u);
    EXPECT_LT(translator->counters().runs.value() - runs, 20u);
  }
}

// An instruction on two pages, in a loop: 1: mov eax, 0x11223344; add edx, eax; dec ecx; jnz 1b; hlt
class CrossingTest : public TranslatorTest {
 protected:
  static constexpr Gpa kPage = 0x13000, kFirst = kPage - 2, kOther = 0x18000;
  CrossingTest() {
    const std::vector<uint8_t> code = {0xb8, 0x44, 0x33, 0x22, 0x11, 0x01, 0xc2, 0xff, 0xc9, 0x75, 0xf5, 0xf4};
    m.load(kFirst, code);
    m.load(kOther, std::span(code).subspan(2));
  }
  // How often the run loop was needed for 300 rounds.
  uint64_t run() {
    m.gpr(x::kRcx) = 300;
    m.gpr(x::kRdx) = 0;
    m.cpu().state.rip = kFirst;
    const uint64_t runs = translator->counters().runs.value();
    m.resume();
    EXPECT_EQ(m.vector(), std::nullopt);
    return translator->counters().runs.value() - runs;
  }
};

TEST_F(CrossingTest, AnInstructionOnTwoPagesIsTranslated) {
  EXPECT_LT(run(), 20u);
  EXPECT_EQ(m.gpr(x::kRax), 0x11223344u);
  EXPECT_EQ(m.gpr(x::kRdx), static_cast<uint32_t>(300u * 0x11223344u));
}

TEST_F(CrossingTest, AStoreToItsSecondPageIsSeen) {
  run();
  m.poke<uint8_t>(kPage + 2, 0x55);
  EXPECT_LT(run(), 20u);
  EXPECT_EQ(m.gpr(x::kRax), 0x55223344u);
  m.poke<uint8_t>(kPage + 0x800, 0x55);  // elsewhere on the page
  EXPECT_LT(run(), 20u);
  EXPECT_EQ(m.gpr(x::kRax), 0x55223344u);
}

TEST_F(CrossingTest, ItsSecondPageMayBecomeAnother) {
  run();
  m.poke<uint8_t>(kOther + 2, 0x66);
  m.set_pte(kPage, kOther | 7);
  EXPECT_LT(run(), 20u);
  EXPECT_EQ(m.gpr(x::kRax), 0x66223344u);
  m.set_pte(kPage, 0);
  m.gpr(x::kRcx) = 1;
  m.cpu().state.rip = kFirst;
  m.resume();
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.faulting_rip(), kFirst);
  EXPECT_EQ(m.cpu().arch.cr2, kPage);
}

class ProfileTest : public testing::Test {
 protected:
  uint64_t entered_in_loop(bool profile) {
    TestMachine m;
    auto made = Translator::create(m.cpu(), {.code_bytes = size_t{1} << 20, .threshold = 1, .profile = profile});
    if (!made) throw std::runtime_error(made.error().message);
    m.cpu().translator = made->get();
    m.gpr(x::kRcx) = 1000;
    m.run({0x48, 0xff, 0xc0, 0xff, 0xc9, 0x75, 0xf9});  // inc rax; dec ecx; jnz
    m.cpu().translator = nullptr;
    cycles = m.cpu().translation.cycles.value();
    return m.cpu().translation.blocks_entered.value();
  }
  uint64_t cycles = 0;
};

TEST_F(ProfileTest, EntriesIntoBlocksAndTimeAreCounted) {
  EXPECT_GE(entered_in_loop(true), 1000u);
  EXPECT_GT(cycles, 1000u);
}

TEST_F(ProfileTest, NothingIsCountedUnasked) {
  EXPECT_EQ(entered_in_loop(false), 0u);
  EXPECT_EQ(cycles, 0u);
}

// With room for a few blocks only.
class SmallCacheTest : public TranslatorTest {
 protected:
  SmallCacheTest() : TranslatorTest(size_t{1} << 20) {}
};

TEST_F(SmallCacheTest, AFullCacheIsDroppedAndFilledAgain) {
  std::vector<uint8_t> code;
  for (int i = 0; i < 20'000; ++i) code.insert(code.end(), {0xff, 0xc0, 0xeb, 0x00});  // inc eax; jmp to the next
  m.run(code, 0x100000);
  EXPECT_EQ(m.gpr(x::kRax), 20'000u);
  EXPECT_GE(translator->counters().flushes.value(), 1u);
}

// Its blocks are entered too seldom for the translator.
class ColdCodeTest : public TranslatorTest {
 protected:
  ColdCodeTest() : TranslatorTest(size_t{4} << 20, 100) {}
};

TEST_F(ColdCodeTest, BlocksThatNobodyComesBackToGiveUpTheirMemoryAndStillRun) {
  constexpr size_t kBlocks = 60'000;
  std::vector<uint8_t> code;
  for (size_t i = 0; i < kBlocks; ++i)
    code.insert(code.end(), {0xff, 0xc0, 0x66, 0x0f, 0xd4, 0xc1, 0xeb, 0x00});  // inc eax; paddq xmm0, xmm1; jmp
  uint8_t* const xmm0 = m.cpu().arch.fx.bytes.data() + x::kFxXmm0;
  xmm0[16] = 3;  // XMM1
  // With the sentinel, and the instruction that PADDQ has kept.
  constexpr size_t kOps = 3 + 1 + (sizeof(x::Insn) + sizeof(cpu::Op) - 1) / sizeof(cpu::Op);
  for (uint64_t round = 1; round <= 3; ++round) {
    m.run(code, 4 << 20);
    EXPECT_EQ(m.gpr(x::kRax), kBlocks * round);
    uint64_t sum = 0;
    std::memcpy(&sum, xmm0, sizeof sum);
    EXPECT_EQ(sum, 3 * kBlocks * round);
    if (round == 1) EXPECT_LT(m.cpu().blocks().memory(), kBlocks * kOps * sizeof(cpu::Op) * 2 / 3);
  }
}

}  // namespace
}  // namespace kite::jit

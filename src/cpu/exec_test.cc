// Integer instructions, one behaviour a test, on the smallest machine there is.
#include <gtest/gtest.h>

#include <thread>

#include "cpu/test_machine.h"
#include "x86/host_features.h"

namespace kite::cpu {
namespace {

using x86::kRax;
using x86::kRbp;
using x86::kRbx;
using x86::kRcx;
using x86::kRdi;
using x86::kRdx;
using x86::kRsp;
using Mode = TestMachine::Mode;
namespace flag = x86::flag;

constexpr Gpa kData = TestMachine::kData;

uint64_t arithmetic_flags(TestMachine& m) { return m.cpu().state.cc; }

TEST(Move, MovsxdOf16BitsReads32OnAmd) {
  for (const bool intel : {true, false}) {
    x86::CpuSpec spec = TestMachine::everything();
    spec.vendor = intel ? "GenuineIntel" : "AuthenticAMD";
    TestMachine m(Mode::k64, spec);
    constexpr uint64_t kNext = TestMachine::kData + 0x1000;
    m.set_pte(kNext, 0);
    m.poke<uint16_t>(kNext - 2, 0x8123);
    m.gpr(kRdi) = kNext - 2;
    m.gpr(kRcx) = ~uint64_t{0};
    m.run({0x66, 0x63, 0x0f});  // movsxd cx, [rdi]
    EXPECT_EQ(m.vector(), intel ? std::nullopt : std::optional<uint8_t>(14));
    if (intel) EXPECT_EQ(m.gpr(kRcx), 0xffffffffffff8123u);
  }
}

TEST(Arithmetic, AddOfBytesSetsCarryAndZero) {
  TestMachine m;
  m.gpr(kRax) = 0x11ff;
  m.gpr(kRbx) = 1;
  m.run({0x00, 0xd8});  // add al, bl
  EXPECT_EQ(m.gpr(kRax), 0x1100u);
  EXPECT_EQ(arithmetic_flags(m), flag::kCf | flag::kZf | flag::kAf | flag::kPf);
}

TEST(Arithmetic, ThirtyTwoBitResultClearsTheUpperHalf) {
  TestMachine m;
  m.gpr(kRax) = 0xffffffff00000001;
  m.run({0x83, 0xc0, 0x01});  // add eax, 1
  EXPECT_EQ(m.gpr(kRax), 2u);
}

TEST(Arithmetic, AdcTakesTheCarry) {
  TestMachine m;
  m.gpr(kRax) = 5;
  m.gpr(kRbx) = 6;
  m.run({0xf9, 0x48, 0x11, 0xd8});  // stc; adc rax, rbx
  EXPECT_EQ(m.gpr(kRax), 12u);
  EXPECT_EQ(arithmetic_flags(m) & flag::kCf, 0u);
}

TEST(Arithmetic, IncKeepsTheCarryAndSetsOverflow) {
  TestMachine m;
  m.gpr(kRax) = 0x7fffffff;
  m.run({0xf9, 0xff, 0xc0});  // stc; inc eax
  EXPECT_EQ(m.gpr(kRax), 0x80000000u);
  EXPECT_EQ(arithmetic_flags(m), flag::kCf | flag::kOf | flag::kSf | flag::kAf | flag::kPf);
}

TEST(Arithmetic, CompareMemoryWithImmediate) {
  TestMachine m;
  m.gpr(kRdi) = kData;
  m.poke<uint32_t>(kData, 7);
  m.run({0x83, 0x3f, 0x07});  // cmp dword [rdi], 7
  EXPECT_EQ(arithmetic_flags(m), flag::kZf | flag::kPf);
  EXPECT_EQ(m.peek<uint32_t>(kData), 7u);
}

TEST(Arithmetic, ReadModifyWriteOfMemory) {
  TestMachine m;
  m.gpr(kRdi) = kData;
  m.gpr(kRcx) = 2;
  m.poke<uint64_t>(kData + 16, 40);
  m.gpr(kRax) = 2;
  m.run({0x48, 0x01, 0x44, 0xcf, 0x00});  // add [rdi+rcx*8], rax
  EXPECT_EQ(m.peek<uint64_t>(kData + 16), 42u);
}

TEST(Arithmetic, ReadModifyWriteAcrossAPage) {
  TestMachine m;
  m.gpr(kRdi) = kData + 0xffe;
  m.poke<uint32_t>(kData + 0xffe, 0x0001ffff);
  m.run({0xff, 0x07});  // inc dword [rdi]
  EXPECT_EQ(m.peek<uint32_t>(kData + 0xffe), 0x00020000u);
}

TEST(Arithmetic, ReadModifyWriteOfDeviceMemoryReadsThenWrites) {
  TestMachine m;
  m.gpr(kRdi) = TestMachine::kNothing;
  m.mmio_value = 0x10;
  m.run({0x83, 0x0f, 0x01});  // or dword [rdi], 1
  EXPECT_EQ(m.mmio_reads, (std::vector<TestMachine::MmioAccess>{{TestMachine::kNothing, 4, 0x10}}));
  EXPECT_EQ(m.mmio_writes, (std::vector<TestMachine::MmioAccess>{{TestMachine::kNothing, 4, 0x11}}));
}

TEST(Arithmetic, FaultingReadModifyWriteLeavesEverything) {
  TestMachine m;
  m.gpr(kRdi) = 0x50000;
  m.set_pte(0x50000, 0x50000 | 5);  // read-only
  m.poke<uint32_t>(0x50000, 9);
  m.run({0xf9, 0x83, 0x07, 0x01});  // stc; add dword [rdi], 1
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.error_code(), 3u);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode + 1);
  EXPECT_EQ(m.pushed_flags() & flag::kArithmetic, flag::kCf);
  EXPECT_EQ(m.peek<uint32_t>(0x50000), 9u);
}

TEST(Arithmetic, LockedAdditionOfTwoThreadsLosesNothing) {
  TestMachine m;
  auto second = m.make_second_cpu();
  m.poke<uint32_t>(kData, 0);
  const std::vector<uint8_t> code = {0xf0, 0xff, 0x07, 0xff,
                                     0xc9, 0x75, 0xf9, 0xf4};  // 1: lock inc [rdi]; dec ecx; jnz
  m.load(TestMachine::kCode, code);
  constexpr uint32_t kRounds = 200'000;
  m.gpr(kRdi) = kData;
  m.gpr(kRcx) = kRounds;
  second->state.gpr[kRdi] = kData;
  second->state.gpr[kRcx] = kRounds;
  std::atomic<uint32_t> requests{0};
  std::thread other([&] { second->run(m, requests, m.sipi_vector); });
  m.resume();
  other.join();
  EXPECT_EQ(m.peek<uint32_t>(kData), 2 * kRounds);
}

TEST(Arithmetic, LockedAcrossAPageRunsExclusively) {
  TestMachine m;
  m.gpr(kRdi) = kData + 0xffe;
  m.poke<uint32_t>(kData + 0xffe, 1);
  m.run({0xf0, 0xff, 0x07});  // lock inc dword [rdi]
  EXPECT_EQ(m.peek<uint32_t>(kData + 0xffe), 2u);
  EXPECT_EQ(m.exclusive_runs, 1u);
}

TEST(Shift, CountOfZeroLeavesFlagsButClearsTheUpperHalf) {
  TestMachine m;
  m.gpr(kRax) = 0xffffffff00000001;
  m.gpr(kRcx) = 32;
  m.run({0xf9, 0xd3, 0xe0});  // stc; shl eax, cl
  EXPECT_EQ(m.gpr(kRax), 1u);
  EXPECT_EQ(arithmetic_flags(m), flag::kCf);
}

TEST(Shift, RotateThroughCarry) {
  TestMachine m;
  m.gpr(kRax) = uint64_t{1} << 63;
  m.run({0xf9, 0x48, 0xd1, 0xd0});  // stc; rcl rax, 1
  EXPECT_EQ(m.gpr(kRax), 1u);
  EXPECT_EQ(arithmetic_flags(m) & (flag::kCf | flag::kOf), flag::kCf | flag::kOf);
}

TEST(Shift, RotateKeepsZeroSignAndParity) {
  TestMachine m;
  m.gpr(kRax) = 3;
  m.run({0x31, 0xdb, 0xd1, 0xc0});  // xor ebx, ebx; rol eax, 1
  EXPECT_EQ(m.gpr(kRax), 6u);
  EXPECT_EQ(arithmetic_flags(m) & (flag::kZf | flag::kPf | flag::kSf), flag::kZf | flag::kPf);
}

TEST(Shift, DoubleShift) {
  TestMachine m;
  m.gpr(kRax) = 0x00112233445566'77;
  m.gpr(kRbx) = 0xab00000000000000;
  m.run({0x48, 0x0f, 0xa4, 0xd8, 0x08});  // shld rax, rbx, 8
  EXPECT_EQ(m.gpr(kRax), 0x11223344556677abu);
}

TEST(Shift, MemoryByCl) {
  TestMachine m;
  m.gpr(kRdi) = kData;
  m.gpr(kRcx) = 4;
  m.poke<uint16_t>(kData, 0x1234);
  m.run({0x66, 0xd3, 0x2f});  // shr word [rdi], cl
  EXPECT_EQ(m.peek<uint16_t>(kData), 0x0123u);
}

TEST(Multiply, SignedThreeOperands) {
  TestMachine m;
  m.gpr(kRbx) = 7;
  m.run({0x48, 0x6b, 0xc3, 0xfd});  // imul rax, rbx, -3
  EXPECT_EQ(m.gpr(kRax), static_cast<uint64_t>(-21));
}

TEST(Multiply, WideUnsignedProduct) {
  TestMachine m;
  m.gpr(kRax) = ~uint64_t{0};
  m.gpr(kRbx) = 2;
  m.run({0x48, 0xf7, 0xe3});  // mul rbx
  EXPECT_EQ(m.gpr(kRax), ~uint64_t{1});
  EXPECT_EQ(m.gpr(kRdx), 1u);
  EXPECT_EQ(arithmetic_flags(m) & (flag::kCf | flag::kOf), flag::kCf | flag::kOf);
}

TEST(Divide, ByteQuotientAndRemainder) {
  TestMachine m;
  m.gpr(kRax) = 1003;
  m.gpr(kRcx) = 10;
  m.run({0xf6, 0xf1});  // div cl
  EXPECT_EQ(m.gpr(kRax) & 0xffff, 0x0364u);
}

TEST(Divide, ByZeroIsAFaultAtTheInstruction) {
  TestMachine m;
  m.run({0x90, 0x48, 0xf7, 0xfb});  // nop; idiv rbx
  EXPECT_EQ(m.vector(), 0);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode + 1);
}

TEST(Divide, MostNegativeByMinusOneOverflows) {
  TestMachine m;
  m.gpr(kRax) = uint64_t{1} << 63;
  m.gpr(kRdx) = ~uint64_t{0};
  m.gpr(kRbx) = ~uint64_t{0};
  m.run({0x48, 0xf7, 0xfb});  // idiv rbx
  EXPECT_EQ(m.vector(), 0);
}

TEST(Divide, MostNegativeQuotientIsFine) {
  TestMachine m;
  m.gpr(kRax) = uint64_t{1} << 63;
  m.gpr(kRdx) = ~uint64_t{0};
  m.gpr(kRbx) = 1;
  m.run({0x48, 0xf7, 0xfb});  // idiv rbx
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(kRax), uint64_t{1} << 63);
  EXPECT_EQ(m.gpr(kRdx), 0u);
}

TEST(Bits, RegisterOffsetReachesBeyondTheOperand) {
  TestMachine m;
  m.gpr(kRdi) = kData + 64;
  m.gpr(kRax) = static_cast<uint64_t>(-1);
  m.run({0x48, 0x0f, 0xab, 0x07});  // bts [rdi], rax
  EXPECT_EQ(m.peek<uint64_t>(kData + 56), uint64_t{1} << 63);
  EXPECT_EQ(arithmetic_flags(m) & flag::kCf, 0u);
}

TEST(Bits, LockedReset) {
  TestMachine m;
  m.gpr(kRdi) = kData;
  m.poke<uint32_t>(kData, 0xff);
  m.run({0xf0, 0x0f, 0xba, 0x37, 0x05});  // lock btr dword [rdi], 5
  EXPECT_EQ(m.peek<uint32_t>(kData), 0xdfu);
  EXPECT_EQ(arithmetic_flags(m) & flag::kCf, flag::kCf);
}

TEST(Bits, ScanOfZeroKeepsTheDestination) {
  TestMachine m;
  m.gpr(kRax) = 0x1234;
  m.run({0x48, 0x0f, 0xbc, 0xc3});  // bsf rax, rbx
  EXPECT_EQ(m.gpr(kRax), 0x1234u);
  EXPECT_EQ(arithmetic_flags(m) & flag::kZf, flag::kZf);
}

TEST(Bits, LzcntIsBsrWithoutTheFeature) {
  x86::CpuSpec spec = TestMachine::everything();
  spec.features[static_cast<size_t>(x86::FeatureWord::k80000001Ecx)] &= ~(1u << 5);
  TestMachine m(Mode::k64, spec);
  m.gpr(kRbx) = 0x100;
  m.run({0xf3, 0x0f, 0xbd, 0xc3});  // lzcnt eax, ebx
  EXPECT_EQ(m.gpr(kRax), 8u);
}

TEST(Bits, RandomNumberSetsCarryAndClearsTheOtherFlags) {
  if ((x86::host_features()[static_cast<size_t>(x86::FeatureWord::k1Ecx)] & (1u << 30)) == 0)
    GTEST_SKIP() << "this host has no RDRAND";
  TestMachine m;
  // 1: xor ecx, ecx (ZF, PF); rdrand rax; jnc 1b
  m.run({0x31, 0xc9, 0x48, 0x0f, 0xc7, 0xf0, 0x73, 0xf8});
  EXPECT_EQ(arithmetic_flags(m), flag::kCf);
  EXPECT_NE(m.gpr(kRax), 0u);
}

TEST(Feature, MissingPopcntIsUndefined) {
  x86::CpuSpec spec = TestMachine::everything();
  spec.features[static_cast<size_t>(x86::FeatureWord::k1Ecx)] &= ~(1u << 23);
  TestMachine m(Mode::k64, spec);
  m.run({0xf3, 0x0f, 0xb8, 0xc3});  // popcnt eax, ebx
  EXPECT_EQ(m.vector(), 6);
}

TEST(Exchange, CompareExchangeSucceeds) {
  TestMachine m;
  m.gpr(kRdi) = kData;
  m.poke<uint64_t>(kData, 5);
  m.gpr(kRax) = 5;
  m.gpr(kRbx) = 6;
  m.run({0xf0, 0x48, 0x0f, 0xb1, 0x1f});  // lock cmpxchg [rdi], rbx
  EXPECT_EQ(m.peek<uint64_t>(kData), 6u);
  EXPECT_EQ(arithmetic_flags(m) & flag::kZf, flag::kZf);
}

TEST(Exchange, CompareExchangeFailsAndLoads) {
  TestMachine m;
  m.gpr(kRdi) = kData;
  m.poke<uint32_t>(kData, 9);
  m.gpr(kRax) = 0xffffffff00000005;
  m.run({0x0f, 0xb1, 0x1f});  // cmpxchg [rdi], ebx
  EXPECT_EQ(m.gpr(kRax), 9u);
  EXPECT_EQ(m.peek<uint32_t>(kData), 9u);
  EXPECT_EQ(arithmetic_flags(m) & flag::kZf, 0u);
}

TEST(Exchange, SixteenBytes) {
  TestMachine m;
  m.gpr(kRdi) = kData;
  m.poke<uint64_t>(kData, 1);
  m.poke<uint64_t>(kData + 8, 2);
  m.gpr(kRax) = 1;
  m.gpr(kRdx) = 2;
  m.gpr(kRbx) = 3;
  m.gpr(kRcx) = 4;
  m.run({0xf0, 0x48, 0x0f, 0xc7, 0x0f});  // lock cmpxchg16b [rdi]
  EXPECT_EQ(m.peek<uint64_t>(kData), 3u);
  EXPECT_EQ(m.peek<uint64_t>(kData + 8), 4u);
}

TEST(Exchange, SixteenBytesMustBeAligned) {
  TestMachine m;
  m.gpr(kRdi) = kData + 8;
  m.run({0x48, 0x0f, 0xc7, 0x0f});  // cmpxchg16b [rdi]
  EXPECT_EQ(m.vector(), 13);
}

TEST(Exchange, XaddReturnsTheOldValue) {
  TestMachine m;
  m.gpr(kRdi) = kData;
  m.poke<uint64_t>(kData, 10);
  m.gpr(kRax) = 3;
  m.run({0x48, 0x0f, 0xc1, 0x07});  // xadd [rdi], rax
  EXPECT_EQ(m.gpr(kRax), 10u);
  EXPECT_EQ(m.peek<uint64_t>(kData), 13u);
}

TEST(Move, HighByteRegisters) {
  TestMachine m;
  m.gpr(kRbx) = 0x1234;
  m.run({0x88, 0xf8});  // mov al, bh
  EXPECT_EQ(m.gpr(kRax), 0x12u);
}

TEST(Move, RipRelativeCountsFromTheNextInstruction) {
  TestMachine m;
  m.poke<uint32_t>(TestMachine::kCode + 6 + 0x100, 0xdeadbeef);
  m.run({0x8b, 0x05, 0x00, 0x01, 0x00, 0x00});  // mov eax, [rip+0x100]
  EXPECT_EQ(m.gpr(kRax), 0xdeadbeefu);
}

TEST(Move, SegmentBaseOfGs) {
  TestMachine m;
  m.cpu().seg(x86::Seg::kGs).base = kData;
  m.poke<uint32_t>(kData + 0x10, 77);
  m.gpr(kRbx) = 0x10;
  m.run({0x65, 0x8b, 0x03});  // mov eax, gs:[rbx]
  EXPECT_EQ(m.gpr(kRax), 77u);
}

TEST(Move, AddressSizePrefixTruncates) {
  TestMachine m;
  m.gpr(kRdi) = 0xffffffff00000000 | kData;
  m.poke<uint32_t>(kData, 5);
  m.run({0x67, 0x8b, 0x07});  // mov eax, [edi]
  EXPECT_EQ(m.gpr(kRax), 5u);
}

TEST(Move, LoadSignExtends) {
  TestMachine m;
  m.gpr(kRdi) = kData;
  m.poke<uint8_t>(kData, 0x80);
  m.run({0x48, 0x0f, 0xbe, 0x07});  // movsx rax, byte [rdi]
  EXPECT_EQ(m.gpr(kRax), 0xffffffffffffff80u);
}

TEST(Move, FalseConditionalMoveStillClearsTheUpperHalf) {
  TestMachine m;
  m.gpr(kRax) = 0xffffffff00000007;
  m.run({0x31, 0xdb, 0x0f, 0x45, 0xc3});  // xor ebx, ebx; cmovne eax, ebx
  EXPECT_EQ(m.gpr(kRax), 7u);
}

TEST(Stack, PushAndPopOfTheStackPointer) {
  TestMachine m;
  m.run({0x54, 0x58});  // push rsp; pop rax
  EXPECT_EQ(m.gpr(kRax), TestMachine::kStackTop);
  EXPECT_EQ(m.gpr(kRsp), TestMachine::kStackTop);
}

TEST(Stack, PopToMemoryBasedOnTheStackPointerUsesTheMovedOne) {
  TestMachine m;
  m.poke<uint64_t>(TestMachine::kStackTop - 8, 0x77);
  m.gpr(kRsp) = TestMachine::kStackTop - 8;
  m.run({0x8f, 0x44, 0x24, 0x08});  // pop qword [rsp+8]
  EXPECT_EQ(m.peek<uint64_t>(TestMachine::kStackTop + 8), 0x77u);
}

TEST(Stack, FaultingPushLeavesTheStackPointer) {
  TestMachine m;
  m.set_pte(0x50000, 0);
  m.gpr(kRsp) = 0x51000;
  m.poke<uint64_t>(TestMachine::kTss + 0x24, TestMachine::kRing0Stack);  // IST1
  m.poke<uint8_t>(TestMachine::kIdt + 14 * 16 + 4, 1);
  m.run({0x50});  // push rax
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.frame(4), 0x51000u);
}

TEST(Stack, EnterCopiesTheDisplay) {
  TestMachine m;
  m.gpr(kRbp) = kData + 0x20;
  m.poke<uint64_t>(kData + 0x18, 0xabc);
  m.run({0xc8, 0x10, 0x00, 0x02});  // enter 16, 2
  const uint64_t frame = TestMachine::kStackTop - 8;
  EXPECT_EQ(m.gpr(kRbp), frame);
  EXPECT_EQ(m.gpr(kRsp), frame - 16 - 16);
  EXPECT_EQ(m.peek<uint64_t>(frame - 8), 0xabcu);
  EXPECT_EQ(m.peek<uint64_t>(frame - 16), frame);
}

TEST(Stack, PushAllAndPopAll) {
  TestMachine m(Mode::k32);
  m.gpr(kRax) = 1;
  m.gpr(kRdi) = 7;
  m.run({0x60, 0x31, 0xc0, 0x31, 0xff, 0x61});  // pusha; xor eax, eax; xor edi, edi; popa
  EXPECT_EQ(m.gpr(kRax), 1u);
  EXPECT_EQ(m.gpr(kRdi), 7u);
  EXPECT_EQ(m.peek<uint32_t>(TestMachine::kStackTop - 4), 1u);
  EXPECT_EQ(m.peek<uint32_t>(TestMachine::kStackTop - 20), TestMachine::kStackTop);
}

TEST(Stack, PopAllThatFaultsKeepsWhatItPoppedButNotTheStackPointer) {
  TestMachine m(Mode::k32);
  const uint64_t stack = TestMachine::kStackTop - 8;
  m.gpr(kRsp) = stack;
  m.poke<uint32_t>(stack, 0x11);      // edi
  m.poke<uint32_t>(stack + 4, 0x22);  // esi
  m.gpr(kRbp) = 0x33;
  m.cpu().seg(x86::Seg::kSs).limit = static_cast<uint32_t>(stack + 7);
  m.run({0x61});              // popa
  EXPECT_EQ(m.vector(), 12);  // #SS
  EXPECT_EQ(m.gpr(kRdi), 0x11u);
  EXPECT_EQ(m.gpr(x86::kRsi), 0x22u);
  EXPECT_EQ(m.gpr(kRbp), 0x33u);
  EXPECT_EQ(m.gpr(kRsp), stack - 16);  // error code, EIP, CS and EFLAGS below where it was
}

TEST(Stack, FlagsRoundTrip) {
  TestMachine m;
  m.gpr(kRax) = flag::kCf | flag::kDf | flag::kId;
  m.run({0x50, 0x9d, 0x9c, 0x5b});  // push rax; popfq; pushfq; pop rbx
  EXPECT_EQ(m.gpr(kRbx), flag::kCf | flag::kDf | flag::kId | flag::kFixed1);
}

TEST(Stack, UserPopfLeavesInterruptFlagAndIopl) {
  TestMachine m;
  m.enter_user();
  m.gpr(kRax) = flag::kIf | flag::kIopl | flag::kZf;
  m.step({0x50, 0x9d}, 2);  // push rax; popfq
  EXPECT_EQ(m.cpu().flags(), flag::kZf | flag::kFixed1);
}

TEST(Branch, CallAndReturn) {
  TestMachine m;
  m.run({0xe8, 0x01, 0x00, 0x00, 0x00, 0xf4, 0xb8, 0x05, 0x00, 0x00, 0x00, 0xc3});  // call 1f; hlt; 1: mov eax, 5; ret
  EXPECT_EQ(m.gpr(kRax), 5u);
  EXPECT_EQ(m.cpu().state.rip, TestMachine::kCode + 6);
  EXPECT_EQ(m.gpr(kRsp), TestMachine::kStackTop);
}

TEST(Branch, LoopCountsDown) {
  TestMachine m;
  m.gpr(kRcx) = 1000;
  m.run({0xff, 0xc0, 0xe2, 0xfc});  // 1: inc eax; loop 1b
  EXPECT_EQ(m.gpr(kRax), 1000u);
  EXPECT_EQ(m.gpr(kRcx), 0u);
}

TEST(Branch, SignedConditions) {
  TestMachine m;
  m.gpr(kRax) = static_cast<uint32_t>(-1);
  m.run({0x83, 0xf8, 0x05, 0x7c, 0x02, 0xff, 0xc3});  // cmp eax, 5; jl +2; inc ebx
  EXPECT_EQ(m.gpr(kRbx), 0u);
}

TEST(Branch, CompareWithMemoryThenJump) {
  TestMachine m;
  m.gpr(kRdi) = kData;
  m.poke<uint64_t>(kData, 5);
  m.gpr(kRax) = 6;
  m.run({0x48, 0x39, 0x07, 0x72, 0x02, 0xff, 0xc3, 0x48, 0x3b, 0x07, 0x72, 0x02, 0xff,
         0xc1});  // cmp [rdi], rax; jb +2; inc ebx; cmp rax, [rdi]; jb +2; inc ecx
  EXPECT_EQ(m.gpr(kRbx), 0u);
  EXPECT_EQ(m.gpr(kRcx), 1u);
}

TEST(Branch, CompareThatFaultsDoesNotJump) {
  TestMachine m;
  m.set_pte(kData, 0);
  m.gpr(kRdi) = kData;
  m.run({0xf9, 0x83, 0x3f, 0x00, 0x72, 0x10});  // stc; cmp dword [rdi], 0; jb +16
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode + 1);
  EXPECT_EQ(m.pushed_flags() & flag::kArithmetic, flag::kCf);
}

TEST(Branch, FlagsOfTheCompareOutliveTheJump) {
  TestMachine m;
  m.gpr(kRax) = 0x80;
  m.run({0xa8, 0x80, 0x78, 0x00, 0x0f, 0x98, 0xc3});  // test al, 0x80; js +0; sets bl
  EXPECT_EQ(m.gpr(kRbx), 1u);
}

TEST(Branch, IndirectJumpToANonCanonicalAddressFaultsAtTheJump) {
  TestMachine m;
  m.gpr(kRax) = uint64_t{1} << 62;
  m.run({0xff, 0xe0});  // jmp rax
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode);
}

TEST(Branch, ReturnBeyondTheCodeSegmentFaults) {
  TestMachine m(Mode::k16);
  m.cpu().seg(x86::Seg::kCs).limit = 0xff;
  m.cpu().update_mode();
  m.gpr(kRax) = 0x100;
  m.step({0x50, 0xc3}, 2);  // push ax; ret
  EXPECT_EQ(m.vector(), 13);
}

TEST(Branch, SixteenBitTargetsWrap) {
  TestMachine m(Mode::kReal);
  m.load(TestMachine::kCode + 0xfff0, std::vector<uint8_t>{0x40, 0xeb, 0x0e});  // inc ax; jmp +14
  m.load(TestMachine::kCode + 1, std::vector<uint8_t>{0xf4});
  m.cpu().state.rip = 0xfff0;
  m.resume();
  EXPECT_EQ(m.cpu().state.rip, 2u);
  EXPECT_EQ(m.gpr(kRax), 1u);
}

TEST(Flags, LahfAndSahf) {
  TestMachine m;
  m.gpr(kRax) = 0xd500;
  m.run({0x9e, 0x9f});  // sahf; lahf
  EXPECT_EQ(m.gpr(kRax), 0xd700u);
}

TEST(Flags, UserCliFaults) {
  TestMachine m;
  m.enter_user();
  m.run({0xfa});  // cli
  EXPECT_EQ(m.vector(), 13);
}

TEST(Decimal, AdjustAfterAddition) {
  TestMachine m(Mode::k32);
  m.gpr(kRax) = 0x79;
  m.run({0x04, 0x35, 0x27});  // add al, 0x35; daa
  EXPECT_EQ(m.gpr(kRax), 0x14u);
  EXPECT_EQ(arithmetic_flags(m) & (flag::kCf | flag::kAf), flag::kCf | flag::kAf);
}

TEST(Decimal, AamByZeroFaults) {
  TestMachine m(Mode::k32);
  m.run({0xd4, 0x00});
  EXPECT_EQ(m.vector(), 0);
}

TEST(Invalid, UndefinedOpcode) {
  TestMachine m;
  m.run({0x90, 0x0f, 0x0b});  // nop; ud2
  EXPECT_EQ(m.vector(), 6);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode + 1);
}

TEST(Invalid, SixteenBytesOfPrefixes) {
  TestMachine m;
  m.run(std::vector<uint8_t>(15, 0x66));
  EXPECT_EQ(m.vector(), 13);
}

}  // namespace
}  // namespace kite::cpu

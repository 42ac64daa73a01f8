// The x87, MMX and SSE units: what is ours about them. That the arithmetic is the host's is shown by tests/streams.
#include "cpu/fpu.h"

#include <gtest/gtest.h>
#include <xmmintrin.h>

#include <array>
#include <cstring>
#include <thread>

#include "cpu/test_machine.h"
#include "support/bytes.h"

namespace kite::cpu {
namespace {

using Mode = TestMachine::Mode;
using Code = std::initializer_list<uint8_t>;
constexpr Gpa kData = TestMachine::kData;
constexpr uint8_t kUd = 6, kNm = 7, kGp = 13, kPf = 14, kMf = 16, kXm = 19;

uint8_t* fx(TestMachine& m) { return m.cpu().arch.fx.bytes.data(); }
uint8_t* xmm(TestMachine& m, unsigned n) { return fx(m) + 160 + 16 * n; }
void set_xmm(TestMachine& m, unsigned n, uint64_t low, uint64_t high = 0) {
  store(xmm(m, n), low);
  store(xmm(m, n) + 8, high);
}
uint64_t xmm_low(TestMachine& m, unsigned n) { return load<uint64_t>(xmm(m, n)); }
uint64_t xmm_high(TestMachine& m, unsigned n) { return load<uint64_t>(xmm(m, n) + 8); }
uint32_t mxcsr(TestMachine& m) { return load<uint32_t>(fx(m) + 24); }
void set_mxcsr(TestMachine& m, uint32_t value) { store(fx(m) + 24, value); }
uint16_t fcw(TestMachine& m) { return load<uint16_t>(fx(m)); }
uint16_t fsw(TestMachine& m) { return load<uint16_t>(fx(m) + 2); }
uint64_t fip(TestMachine& m) { return load<uint64_t>(fx(m) + 8); }
uint64_t fdp(TestMachine& m) { return load<uint64_t>(fx(m) + 16); }
uint64_t bits(double value) { return load<uint64_t>(&value); }

x86::CpuSpec without(x86::FeatureWord word, unsigned bit) {
  x86::CpuSpec spec = TestMachine::everything();
  spec.features[static_cast<size_t>(word)] &= ~(1u << bit);
  return spec;
}

// --- availability

constexpr Code kAddps = {0x0f, 0x58, 0xc1}, kMovaps = {0x0f, 0x28, 0xc1}, kPaddbMmx = {0x0f, 0xfc, 0xc1},
               kFld1 = {0xd9, 0xe8}, kFwait = {0x9b}, kEmms = {0x0f, 0x77};

std::optional<uint8_t> vector_with(uint64_t cr0_set, uint64_t cr4_clear, Code code) {
  TestMachine m;
  m.cpu().arch.cr0 = (m.cpu().arch.cr0 & ~x86::cr0::kMp) | cr0_set;
  m.cpu().arch.cr4 &= ~cr4_clear;
  m.cpu().update_mode();
  m.run(code);
  return m.vector();
}

TEST(FpuAvailability, SseNeedsOsfxsr) {
  EXPECT_EQ(vector_with(0, x86::cr4::kOsfxsr, kAddps), kUd);
  EXPECT_EQ(vector_with(0, x86::cr4::kOsfxsr, kMovaps), kUd);
  EXPECT_EQ(vector_with(0, x86::cr4::kOsfxsr, kPaddbMmx), std::nullopt);
}

TEST(FpuAvailability, EmulationBit) {
  EXPECT_EQ(vector_with(x86::cr0::kEm, 0, kAddps), kUd);
  EXPECT_EQ(vector_with(x86::cr0::kEm, 0, kMovaps), kUd);
  EXPECT_EQ(vector_with(x86::cr0::kEm, 0, kPaddbMmx), kUd);
  EXPECT_EQ(vector_with(x86::cr0::kEm, 0, kEmms), kUd);
  EXPECT_EQ(vector_with(x86::cr0::kEm, 0, kFld1), kNm);
  EXPECT_EQ(vector_with(x86::cr0::kEm, 0, kFwait), std::nullopt);
}

TEST(FpuAvailability, TaskSwitchedBit) {
  for (const Code code : {kAddps, kMovaps, kPaddbMmx, kEmms, kFld1})
    EXPECT_EQ(vector_with(x86::cr0::kTs, 0, code), kNm);
  EXPECT_EQ(vector_with(x86::cr0::kTs, 0, kFwait), std::nullopt);
  EXPECT_EQ(vector_with(x86::cr0::kTs | x86::cr0::kMp, 0, kFwait), kNm);
}

TEST(FpuAvailability, FeaturesThatAreNotOfferedDoNotExist) {
  TestMachine m(Mode::k64, without(x86::FeatureWord::k1Ecx, 19));
  m.run({0x66, 0x0f, 0x38, 0x40, 0xc1});  // pmulld xmm0, xmm1
  EXPECT_EQ(m.vector(), kUd);
}

// --- SSE

TEST(FpuSse, AddsRegisters) {
  TestMachine m;
  set_xmm(m, 9, bits(1.5));
  set_xmm(m, 12, bits(2.25), 77);
  m.run({0xf2, 0x45, 0x0f, 0x58, 0xe1});  // addsd xmm12, xmm9
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(xmm_low(m, 12), bits(3.75));
  EXPECT_EQ(xmm_high(m, 12), 77u);
}

TEST(FpuSse, MemoryOperandMayCrossPages) {
  TestMachine m;
  const Gpa at = kData + 0xffc;
  m.poke<uint64_t>(at, bits(4.0));
  set_xmm(m, 0, bits(1.0));
  m.gpr(x86::kRbx) = at;
  m.run({0xf2, 0x0f, 0x58, 0x03});  // addsd xmm0, [rbx]
  EXPECT_EQ(xmm_low(m, 0), bits(5.0));
}

TEST(FpuSse, UnmaskedExceptionIsTheGuests) {
  TestMachine m;
  set_mxcsr(m, 0x1f80 & ~(1u << 9));  // zero divide
  set_xmm(m, 0, bits(1.0));
  set_xmm(m, 1, 0);
  m.run({0x90, 0xf2, 0x0f, 0x5e, 0xc1});  // nop; divsd xmm0, xmm1
  EXPECT_EQ(m.vector(), kXm);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode + 1);
  EXPECT_EQ(xmm_low(m, 0), bits(1.0));
  EXPECT_EQ(mxcsr(m) & 0x3f, 4u);
}

TEST(FpuSse, UnmaskedExceptionWithoutOsSupportIsInvalidOpcode) {
  TestMachine m;
  m.cpu().arch.cr4 &= ~x86::cr4::kOsxmmexcpt;
  set_mxcsr(m, 0);
  set_xmm(m, 0, bits(1.0));
  set_xmm(m, 1, 0);
  m.run({0xf2, 0x0f, 0x5e, 0xc1});
  EXPECT_EQ(m.vector(), kUd);
}

TEST(FpuSse, HostControlsSurviveTheGuests) {
  const unsigned before = _mm_getcsr() & ~0x3fu;
  TestMachine m;
  set_mxcsr(m, 0xffc0);  // flush to zero, denormals are zero, round to zero
  set_xmm(m, 0, 1);
  m.run({0xf2, 0x0f, 0x58, 0xc0});  // addsd of a denormal
  EXPECT_EQ(xmm_low(m, 0), 0u);
  EXPECT_EQ(_mm_getcsr() & ~0x3fu, before);
}

TEST(FpuSse, AlignedFormsFaultOnMisalignment) {
  TestMachine m;
  m.gpr(x86::kRbx) = kData + 8;
  m.run({0x0f, 0x28, 0x03});  // movaps xmm0, [rbx]
  EXPECT_EQ(m.vector(), kGp);
  EXPECT_EQ(m.error_code(), 0u);
  TestMachine arithmetic;
  arithmetic.gpr(x86::kRbx) = kData + 8;
  arithmetic.run({0x0f, 0x58, 0x03});  // addps xmm0, [rbx]
  EXPECT_EQ(arithmetic.vector(), kGp);
}

TEST(FpuSse, StoresAreAllOrNothing) {
  TestMachine m;
  const Gpa at = kData + 0xff8;
  m.set_pte(kData + 0x1000, 0);
  set_xmm(m, 0, 0x1111111111111111, 0x2222222222222222);
  m.gpr(x86::kRbx) = at;
  m.run({0x0f, 0x11, 0x03});  // movups [rbx], xmm0
  EXPECT_EQ(m.vector(), kPf);
  EXPECT_EQ(m.cpu().arch.cr2, kData + 0x1000);
  EXPECT_EQ(m.peek<uint64_t>(at), 0u);
}

TEST(FpuSse, ComparisonSetsFlags) {
  TestMachine m;
  set_xmm(m, 0, bits(1.0));
  set_xmm(m, 1, bits(2.0));
  m.run({0x66, 0x0f, 0x2f, 0xc1, 0x0f, 0x92, 0xc0});  // comisd xmm0, xmm1; setb al
  EXPECT_EQ(m.gpr(x86::kRax) & 0xff, 1u);
}

TEST(FpuSse, StringCompareUsesTheGuestsRegisters) {
  TestMachine m;
  set_xmm(m, 3, 0x0000006f6c6c6568);  // "hello"
  set_xmm(m, 4, 0x000000000000006c);  // "l"
  m.gpr(x86::kRax) = 1;
  m.gpr(x86::kRdx) = 5;
  m.run({0x66, 0x0f, 0x3a, 0x61, 0xe3, 0x0c});  // pcmpestri xmm4, xmm3, equal ordered
  EXPECT_EQ(m.gpr(x86::kRcx), 2u);
  EXPECT_EQ(m.gpr(x86::kRdx), 5u);
}

TEST(FpuSse, LdmxcsrRefusesReservedBits) {
  TestMachine m;
  m.poke<uint32_t>(kData, 0x10000);
  m.gpr(x86::kRbx) = kData;
  m.run({0x0f, 0xae, 0x13});
  EXPECT_EQ(m.vector(), kGp);
  EXPECT_EQ(mxcsr(m), 0x1f80u);
}

// AMD hosts have MM there, which is misalignsse's.
TEST(FpuSse, MxcsrHasNoMisalignedExceptionMask) {
  TestMachine m;
  m.poke<uint32_t>(kData, 0x21f80);
  m.gpr(x86::kRbx) = kData;
  m.run({0x0f, 0xae, 0x13});
  EXPECT_EQ(m.vector(), kGp);
  EXPECT_EQ(FpuThunks::mxcsr_mask() >> 16, 0u);
}

TEST(FpuSse, MaskedStoreWritesSelectedBytesOnly) {
  TestMachine m;
  set_xmm(m, 0, 0x8877665544332211, 0xffeeddccbbaa9988);
  set_xmm(m, 1, 0x8000800000000080, 0x8000000000000000);
  m.poke<uint64_t>(kData, 0);
  m.poke<uint64_t>(kData + 8, 0);
  m.gpr(x86::kRdi) = kData;
  m.run({0x66, 0x0f, 0xf7, 0xc1});  // maskmovdqu xmm0, xmm1
  EXPECT_EQ(m.peek<uint64_t>(kData), 0x8800660000000011u);
  EXPECT_EQ(m.peek<uint64_t>(kData + 8), 0xff00000000000000u);
}

// --- x87

TEST(FpuX87, PointersAreTheGuests) {
  TestMachine m(Mode::k64, without(x86::FeatureWord::k7Ebx, 6));
  m.gpr(x86::kRbx) = kData;
  m.run({0x90, 0xdd, 0x43, 0x08});  // nop; fld qword [rbx+8]
  EXPECT_EQ(fip(m), TestMachine::kCode + 1);
  EXPECT_EQ(fdp(m), kData + 8);
}

TEST(FpuX87, DataPointerOnExceptionsOnly) {
  TestMachine m;
  m.gpr(x86::kRbx) = kData;
  m.run({0xdd, 0x43, 0x08});
  EXPECT_EQ(fdp(m), 0u);
}

TEST(FpuX87, ControlInstructionsLeaveThePointers) {
  TestMachine m;
  m.poke<uint16_t>(kData, 0x27f);
  m.gpr(x86::kRbx) = kData;
  m.run({0xd9, 0xe8, 0xd9, 0x2b, 0xdb, 0xe2, 0xd9, 0x3b});  // fld1; fldcw [rbx]; fnclex; fnstcw [rbx]
  EXPECT_EQ(fip(m), TestMachine::kCode);
  EXPECT_EQ(fcw(m), 0x27f);
}

TEST(FpuX87, InitialisationForgetsThePointers) {
  TestMachine m(Mode::k64, without(x86::FeatureWord::k7Ebx, 6));
  m.gpr(x86::kRbx) = kData;
  m.run({0xdd, 0x43, 0x08, 0xdb, 0xe3});  // fld qword [rbx+8]; fninit
  EXPECT_EQ(fip(m), 0u);
  EXPECT_EQ(fdp(m), 0u);
}

TEST(FpuX87, EnvironmentBringsThePointersBack) {
  TestMachine m(Mode::k64, without(x86::FeatureWord::k7Ebx, 6));
  m.gpr(x86::kRbx) = kData;
  // fld qword [rbx+8]; fnstenv [rbx]; fninit; fldenv [rbx]
  m.run({0xdd, 0x43, 0x08, 0xd9, 0x33, 0xdb, 0xe3, 0xd9, 0x23});
  EXPECT_EQ(fip(m), TestMachine::kCode);
  EXPECT_EQ(fdp(m), kData + 8);
}

TEST(FpuX87, UnmaskedExceptionIsReportedByTheNextWaitingInstruction) {
  TestMachine m;
  m.poke<uint16_t>(kData, 0x37b);  // zero divide unmasked
  m.gpr(x86::kRbx) = kData;
  // fldcw [rbx]; fldz; fld1; fdiv st, st(1); fnstsw ax; fld1
  m.run({0xd9, 0x2b, 0xd9, 0xee, 0xd9, 0xe8, 0xd8, 0xf1, 0xdf, 0xe0, 0xd9, 0xe8});
  EXPECT_EQ(m.vector(), kMf);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode + 10);
  EXPECT_EQ(m.gpr(x86::kRax) & 0x80bf, 0x8084u);
  EXPECT_EQ(fip(m), TestMachine::kCode + 6);
}

TEST(FpuX87, WithoutNumericErrorTheBoardIsTold) {
  TestMachine m;
  m.cpu().arch.cr0 &= ~x86::cr0::kNe;
  m.poke<uint16_t>(kData, 0x37b);
  m.gpr(x86::kRbx) = kData;
  m.step({0xd9, 0x2b, 0xd9, 0xee, 0xd9, 0xe8, 0xd8, 0xf1, 0xd9, 0xe8}, 5);
  EXPECT_GE(m.fpu_errors, 1u);
  EXPECT_EQ(m.cpu().state.rip, TestMachine::kCode + 8);
}

TEST(FpuX87, FaultingStoreDoesNotPop) {
  TestMachine m;
  m.set_pte(kData, 0);
  m.gpr(x86::kRbx) = kData;
  m.run({0xd9, 0xe8, 0xdd, 0x1b});  // fld1; fstp qword [rbx]
  EXPECT_EQ(m.vector(), kPf);
  EXPECT_EQ((fsw(m) >> 11) & 7, 7);
}

TEST(FpuX87, UnmaskedStoreExceptionKeepsMemory) {
  TestMachine m;
  m.poke<uint16_t>(kData, 0x37e);  // invalid operation unmasked
  m.poke<uint32_t>(kData + 8, 0x12345678);
  m.gpr(x86::kRbx) = kData;
  m.run({0xd9, 0x2b, 0xd9, 0x5b, 0x08});  // fldcw [rbx]; fstp dword [rbx+8] of an empty stack
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.peek<uint32_t>(kData + 8), 0x12345678u);
  EXPECT_EQ(fsw(m) & 0x80c1, 0x80c1);
}

TEST(FpuX87, ConditionalMovesSeeTheGuestsFlags) {
  TestMachine m;
  m.gpr(x86::kRbx) = kData;
  // fldz; fld1; xor eax, eax; fcmove st, st(1); fstp qword [rbx]
  m.run({0xd9, 0xe8, 0xd9, 0xee, 0x31, 0xc0, 0xda, 0xc9, 0xdd, 0x1b});
  EXPECT_EQ(m.peek<uint64_t>(kData), bits(1.0));
}

TEST(FpuX87, EnvironmentIn16BitRealModeHasLinearPointers) {
  TestMachine m(Mode::kReal, without(x86::FeatureWord::k7Ebx, 13));
  // mov bx, 0x7000; fld1; fnstenv [bx]
  m.run({0xbb, 0x00, 0x70, 0xd9, 0xe8, 0xd9, 0x37});
  EXPECT_EQ(m.peek<uint16_t>(0x7000), 0x37f);
  EXPECT_EQ(m.peek<uint16_t>(0x7002), 0x3800);
  EXPECT_EQ(m.peek<uint16_t>(0x7004), 0x3fff);
  EXPECT_EQ(m.peek<uint16_t>(0x7006), (TestMachine::kCode + 3) & 0xffff);
  EXPECT_EQ(m.peek<uint16_t>(0x7008) >> 12, (TestMachine::kCode + 3) >> 16);
}

TEST(FpuX87, EnvironmentInProtectedModeHasSelectors) {
  TestMachine m(Mode::k32, without(x86::FeatureWord::k7Ebx, 13));
  m.gpr(x86::kRbx) = kData;
  m.run({0xd9, 0xe8, 0xd9, 0x33});  // fld1; fnstenv [ebx]
  EXPECT_EQ(m.peek<uint32_t>(kData + 12), TestMachine::kCode);
  EXPECT_EQ(m.peek<uint16_t>(kData + 16), TestMachine::kCode32);
}

TEST(FpuX87, SaveAndRestoreBringBackTheStack) {
  TestMachine m;
  m.gpr(x86::kRbx) = kData;
  // fldpi; fld1; fnsave [rbx]; frstor [rbx]; fstp qword [rbx+256]
  m.run({0xd9, 0xeb, 0xd9, 0xe8, 0xdd, 0x33, 0xdd, 0x23, 0xdd, 0x9b, 0x00, 0x01, 0x00, 0x00});
  EXPECT_EQ(m.peek<uint64_t>(kData + 256), bits(1.0));
  EXPECT_EQ((fsw(m) >> 11) & 7, 7);
}

// --- MMX

TEST(FpuMmx, TakesTheX87RegistersOver) {
  TestMachine m;
  m.gpr(x86::kRax) = 0x1122334455667788;
  m.run({0xd9, 0xe8, 0x48, 0x0f, 0x6e, 0xd8});  // fld1; movq mm3, rax
  EXPECT_EQ(fsw(m) & 0x3800, 0);
  EXPECT_EQ(fx(m)[4], 0xff);
  EXPECT_EQ(load<uint64_t>(fx(m) + 32 + 16 * 3), 0x1122334455667788u);
  EXPECT_EQ(load<uint16_t>(fx(m) + 32 + 16 * 3 + 8), 0xffff);
  EXPECT_EQ(load<uint16_t>(fx(m) + 32 + 16 * 7 + 8), 0x3fff);  // the one lies in physical register 7
}

TEST(FpuMmx, EmmsEmptiesTheStack) {
  TestMachine m;
  m.run({0x0f, 0xef, 0xc0, 0x0f, 0x77, 0xd9, 0xe8});  // pxor mm0, mm0; emms; fld1
  EXPECT_EQ(fx(m)[4], 0x80);
  EXPECT_EQ(fsw(m) & 0x41, 0);
}

TEST(FpuMmx, ReportsPendingX87Exceptions) {
  TestMachine m;
  store<uint16_t>(fx(m), 0x37e);
  store<uint16_t>(fx(m) + 2, 0x8081);
  m.run({0x0f, 0xef, 0xc0});
  EXPECT_EQ(m.vector(), kMf);
  EXPECT_EQ(fx(m)[4], 0);
}

// --- images

TEST(FpuImages, FxsaveRoundTrips) {
  TestMachine m;
  set_xmm(m, 15, 1, 2);
  m.gpr(x86::kRbx) = kData;
  // fldpi; fxsave64 [rbx]; fninit; pxor xmm15, xmm15; fxrstor64 [rbx]
  m.run({0xd9, 0xeb, 0x48, 0x0f, 0xae, 0x03, 0xdb, 0xe3, 0x66, 0x45, 0x0f, 0xef, 0xff, 0x48, 0x0f, 0xae, 0x0b});
  EXPECT_EQ(xmm_low(m, 15), 1u);
  EXPECT_EQ(xmm_high(m, 15), 2u);
  EXPECT_EQ(fx(m)[4], 0x80);
  EXPECT_EQ(m.peek<uint32_t>(kData + 28), FpuThunks::mxcsr_mask());
}

// Without an exception pending, which is when AMD hosts do not load and save them.
TEST(FpuImages, FxrstorBringsThePointersBack) {
  TestMachine m;
  m.poke<uint16_t>(kData, 0x37f);
  m.poke<uint16_t>(kData + 6, 0x1f6);
  m.poke<uint64_t>(kData + 8, 0x123456789a);
  m.poke<uint64_t>(kData + 16, 0x6543210fed);
  m.poke<uint32_t>(kData + 24, 0x1f80);
  m.gpr(x86::kRbx) = kData;
  // fxrstor64 [rbx]; fnclex; fxsave64 [rbx+512]
  m.run({0x48, 0x0f, 0xae, 0x0b, 0xdb, 0xe2, 0x48, 0x0f, 0xae, 0x83, 0x00, 0x02, 0x00, 0x00});
  EXPECT_EQ(m.peek<uint16_t>(kData + 512 + 6), 0x1f6);
  EXPECT_EQ(m.peek<uint64_t>(kData + 512 + 8), 0x123456789au);
  EXPECT_EQ(m.peek<uint64_t>(kData + 512 + 16), 0x6543210fedu);
}

TEST(FpuImages, FxsaveLeavesWhatIsNotItsOwn) {
  TestMachine m;
  for (unsigned i = 0; i < 512; i += 8) m.poke<uint64_t>(kData + i, 0xcccccccccccccccc);
  m.gpr(x86::kRbx) = kData;
  m.run({0x0f, 0xae, 0x03});
  EXPECT_EQ(m.peek<uint64_t>(kData + 416), 0xccccccccccccccccu);
  EXPECT_EQ(m.peek<uint64_t>(kData + 408), 0u);
}

TEST(FpuImages, FxsaveIn32BitCodeHasEightXmmRegisters) {
  TestMachine m(Mode::k32);
  for (unsigned i = 0; i < 512; i += 8) m.poke<uint64_t>(kData + i, 0xcccccccccccccccc);
  m.gpr(x86::kRbx) = kData;
  m.run({0x0f, 0xae, 0x03});
  EXPECT_EQ(m.peek<uint64_t>(kData + 280), 0u);
  EXPECT_EQ(m.peek<uint64_t>(kData + 288), 0xccccccccccccccccu);
}

TEST(FpuImages, MisalignmentIsAGeneralProtectionFault) {
  for (const uint8_t modrm : {uint8_t{0x03}, uint8_t{0x0b}}) {
    TestMachine m;
    m.gpr(x86::kRbx) = kData + 8;
    m.run({0x0f, 0xae, modrm});
    EXPECT_EQ(m.vector(), kGp);
  }
}

TEST(FpuImages, FxrstorRefusesReservedMxcsrBits) {
  TestMachine m;
  m.poke<uint16_t>(kData, 0x27f);
  m.poke<uint32_t>(kData + 24, 0x80000000);
  m.gpr(x86::kRbx) = kData;
  m.run({0x0f, 0xae, 0x0b});
  EXPECT_EQ(m.vector(), kGp);
  EXPECT_EQ(fcw(m), 0x37f);
}

TEST(FpuImages, FxrstorRecomputesTheErrorSummary) {
  TestMachine m;
  m.poke<uint16_t>(kData, 0x37e);
  m.poke<uint16_t>(kData + 2, 0x0001);  // invalid operation, unmasked, ES clear
  m.poke<uint32_t>(kData + 24, 0x1f80);
  m.gpr(x86::kRbx) = kData;
  m.run({0x0f, 0xae, 0x0b, 0x9b});
  EXPECT_EQ(fsw(m) & 0x8080, 0x8080);
  EXPECT_EQ(m.vector(), kMf);
}

TEST(FpuImages, ForeignImagesAreMadeSafe) {
  x86::FxState image;
  image.bytes.fill(0xff);
  FpuThunks::sanitize(image);
  EXPECT_EQ(load<uint32_t>(&image.bytes[24]) & ~FpuThunks::mxcsr_mask(), 0u);
}

// --- threads

TEST(FpuThreads, CpusFaultIndependently) {
  const auto work = [] {
    TestMachine m;
    for (unsigned i = 0; i < 2000; ++i) {
      m.cpu().set_state(m.initial_state());
      set_mxcsr(m, 0x1f80 & ~(1u << 9));
      set_xmm(m, 0, bits(1.0));
      set_xmm(m, 1, 0);
      m.run({0xf2, 0x0f, 0x5e, 0xc1});
      ASSERT_EQ(m.vector(), kXm);
    }
  };
  std::thread other(work);
  work();
  other.join();
}

}  // namespace
}  // namespace kite::cpu

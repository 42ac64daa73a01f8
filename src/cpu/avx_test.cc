// VEX-encoded instructions: when they are undefined or unavailable, what becomes of upper halves, partial progress.
// What they compute is compared with the host by tests/streams.
#include <gtest/gtest.h>

#include <cstring>

#include "cpu/test_machine.h"
#include "support/bytes.h"

namespace kite::cpu {
namespace {

using x86::FeatureWord;
constexpr int kUd = 6, kNm = 7, kGp = 13, kPf = 14;
constexpr std::array<uint8_t, 4> kVpaddd = {0xc5, 0xed, 0xfe, 0xcb};  // vpaddd ymm1, ymm2, ymm3

class Avx : public testing::Test {
 protected:
  void SetUp() override {
    if (!__builtin_cpu_supports("avx2")) GTEST_SKIP() << "the host has no AVX2";
  }
  static void enable(TestMachine& m) {
    m.cpu().arch.cr4 |= x86::cr4::kOsxsave;
    m.cpu().arch.xcr0 = x86::xcr0::kX87 | x86::xcr0::kSse | x86::xcr0::kAvx;
  }
  static uint8_t* low(TestMachine& m, unsigned i) { return m.cpu().arch.fx.bytes.data() + x86::kFxXmm0 + 16 * i; }
  static uint8_t* high(TestMachine& m, unsigned i) { return m.cpu().arch.ymm_high.reg[i].data(); }
  static uint32_t element(TestMachine& m, unsigned reg, unsigned i) {
    return load<uint32_t>(i < 4 ? low(m, reg) + 4 * i : high(m, reg) + 4 * (i - 4));
  }
  static void set_element(TestMachine& m, unsigned reg, unsigned i, uint32_t value) {
    store(i < 4 ? low(m, reg) + 4 * i : high(m, reg) + 4 * (i - 4), value);
  }
};

TEST_F(Avx, BothHalvesAreComputed) {
  TestMachine m;
  enable(m);
  for (unsigned i = 0; i < 8; ++i) {
    set_element(m, 2, i, 100 * i);
    set_element(m, 3, i, i + 1);
  }
  m.run(kVpaddd);
  EXPECT_EQ(m.vector(), std::nullopt);
  for (unsigned i = 0; i < 8; ++i) EXPECT_EQ(element(m, 1, i), 101 * i + 1) << i;
}

TEST_F(Avx, UndefinedWithoutOsxsaveOrItsState) {
  TestMachine m;
  m.run(kVpaddd);
  EXPECT_EQ(m.vector(), kUd);
  m.cpu().set_state(m.initial_state());
  enable(m);
  m.cpu().arch.xcr0 = x86::xcr0::kX87 | x86::xcr0::kSse;
  m.run(kVpaddd);
  EXPECT_EQ(m.vector(), kUd);
}

TEST_F(Avx, TaskSwitchedIsNoDevice) {
  TestMachine m;
  enable(m);
  m.cpu().arch.cr0 |= x86::cr0::kTs;
  m.run(kVpaddd);
  EXPECT_EQ(m.vector(), kNm);
}

// CR0.EM and CR4.OSFXSR are for instructions without VEX.
TEST_F(Avx, EmulationBitDoesNotMatter) {
  TestMachine m;
  enable(m);
  m.cpu().arch.cr0 |= x86::cr0::kEm;
  m.cpu().arch.cr4 &= ~x86::cr4::kOsfxsr;
  m.run(kVpaddd);
  EXPECT_EQ(m.vector(), std::nullopt);
}

TEST_F(Avx, UndefinedWithoutTheFeature) {
  x86::CpuSpec spec = TestMachine::everything();
  spec.features[static_cast<size_t>(FeatureWord::k7Ebx)] &= ~(1u << 5);
  TestMachine m(TestMachine::Mode::k64, spec);
  enable(m);
  m.run(kVpaddd);  // the 256-bit form is of AVX2
  EXPECT_EQ(m.vector(), kUd);
  m.cpu().set_state(m.initial_state());
  enable(m);
  m.run({0xc5, 0xe9, 0xfe, 0xcb});  // vpaddd xmm1, xmm2, xmm3
  EXPECT_EQ(m.vector(), std::nullopt);
}

TEST_F(Avx, ShortFormClearsTheUpperHalf) {
  TestMachine m;
  enable(m);
  set_element(m, 1, 5, 7);
  set_element(m, 4, 5, 7);
  m.run({0xc5, 0xe9, 0xfe, 0xcb, 0x66, 0x0f, 0xfe, 0xe3});  // vpaddd xmm1, xmm2, xmm3; paddd xmm4, xmm3
  EXPECT_EQ(element(m, 1, 5), 0u);
  EXPECT_EQ(element(m, 4, 5), 7u);  // without VEX it stays
}

TEST_F(Avx, VzeroupperAndVzeroall) {
  TestMachine m;
  enable(m);
  set_element(m, 15, 0, 1);
  set_element(m, 15, 7, 2);
  m.run({0xc5, 0xf8, 0x77});
  EXPECT_EQ(element(m, 15, 7), 0u);
  EXPECT_EQ(element(m, 15, 0), 1u);
  m.run({0xc5, 0xfc, 0x77});
  EXPECT_EQ(element(m, 15, 0), 0u);
}

TEST_F(Avx, OnlyAlignedMovesWantAlignment) {
  TestMachine m;
  enable(m);
  m.gpr(x86::kRax) = TestMachine::kData + 16;
  m.run({0xc5, 0xfd, 0x6f, 0x00});  // vmovdqa ymm0, [rax]
  EXPECT_EQ(m.vector(), kGp);
  m.cpu().set_state(m.initial_state());
  enable(m);
  m.gpr(x86::kRax) = TestMachine::kData + 1;
  m.run({0xc5, 0xf5, 0xfe, 0x00});  // vpaddd ymm0, ymm1, [rax]
  EXPECT_EQ(m.vector(), std::nullopt);
}

// The last element that is selected lies before the end of a page behind which there is nothing.
TEST_F(Avx, MaskedElementsAreNotTouched) {
  TestMachine m;
  enable(m);
  constexpr Gpa kPage = TestMachine::kData + 0x1000;
  m.poke<uint64_t>(TestMachine::kPt + (kPage >> 12) * 8, 0);
  m.poke<uint32_t>(kPage - 4, 0x1234);
  m.gpr(x86::kRax) = kPage - 4;
  set_element(m, 1, 0, 0x80000000);
  m.run({0xc4, 0xe2, 0x75, 0x2c, 0x10});  // vmaskmovps ymm2, ymm1, [rax]
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(element(m, 2, 0), 0x1234u);
  EXPECT_EQ(element(m, 2, 1), 0u);
}

TEST_F(Avx, FaultingGatherShowsHowFarItCame) {
  TestMachine m;
  enable(m);
  constexpr Gpa kPage = TestMachine::kData + 0x1000;
  m.poke<uint64_t>(TestMachine::kPt + (kPage >> 12) * 8, 0);
  m.poke<uint32_t>(kPage - 8, 11);
  m.poke<uint32_t>(kPage - 4, 12);
  m.gpr(x86::kRax) = kPage - 8;
  for (unsigned i = 0; i < 8; ++i) {
    set_element(m, 1, i, 0xffffffff);
    set_element(m, 3, i, i);
  }
  m.run({0xc4, 0xe2, 0x75, 0x90, 0x14, 0x98});  // vpgatherdd ymm2, [rax+ymm3*4], ymm1
  EXPECT_EQ(m.vector(), kPf);
  EXPECT_EQ(element(m, 2, 0), 11u);
  EXPECT_EQ(element(m, 2, 1), 12u);
  EXPECT_EQ(element(m, 1, 0), 0u);
  EXPECT_EQ(element(m, 1, 1), 0u);
  EXPECT_EQ(element(m, 1, 2), 0xffffffffu);
}

// [SDM 2A, table 2-34] Instructions on general registers need no state of the unit, but no VEX exists in real mode.
TEST_F(Avx, BmiNeedsProtectedModeOnly) {
  TestMachine m;
  m.gpr(x86::kRbx) = 0xff;
  m.gpr(x86::kRdx) = 0xf0;
  m.run({0xc4, 0xe2, 0xe8, 0xf2, 0xcb});  // andn rcx, rdx, rbx
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(x86::kRcx), 0x0fu);
  TestMachine real(TestMachine::Mode::kReal);
  real.poke<uint32_t>(kUd * 4, TestMachine::kHandlers);
  real.poke<uint8_t>(TestMachine::kHandlers, 0xf4);
  real.run({0xc4, 0xe2, 0x68, 0xf2, 0xcb});
  EXPECT_EQ(real.gpr(x86::kRcx), 0u);
}

TEST_F(Avx, UnmaskedExceptionIsTheGuests) {
  constexpr int kXm = 19;
  TestMachine m;
  enable(m);
  store<uint32_t>(m.cpu().arch.fx.bytes.data() + 24, 0x1f80 & ~0x200u);  // divide by zero unmasked
  for (unsigned i = 0; i < 8; ++i) set_element(m, 2, i, 0x3f800000);
  m.run({0xc5, 0xec, 0x5e, 0xcb});  // vdivps ymm1, ymm2, ymm3
  EXPECT_EQ(m.vector(), kXm);
  EXPECT_EQ(load<uint32_t>(m.cpu().arch.fx.bytes.data() + 24) & 4, 4u);
  EXPECT_EQ(element(m, 1, 0), 0u);
}

}  // namespace
}  // namespace kite::cpu

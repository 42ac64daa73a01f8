#include "cpu/segments.h"

#include <gtest/gtest.h>

#include "cpu/test_machine.h"

namespace kite::cpu {
namespace {

using Mode = TestMachine::Mode;
using x86::Seg;
using x86::Vector;
namespace flag = x86::flag;

constexpr uint64_t kCode = TestMachine::kCode, kData = TestMachine::kData;
constexpr uint16_t kFree = 0x58;

void add_descriptors(TestMachine& m, std::initializer_list<uint64_t> descriptors) {
  Gpa at = TestMachine::kGdt + kFree;
  for (const uint64_t descriptor : descriptors) {
    m.poke<uint64_t>(at, descriptor);
    at += 8;
  }
  m.cpu().arch.gdtr.limit = static_cast<uint16_t>(at - TestMachine::kGdt - 1);
}
using Answer = std::pair<std::optional<Vector>, uint32_t>;
Answer load(TestMachine& m, Seg segment, uint16_t selector) {
  m.cpu().exception.reset();
  if (m.cpu().load_segment(segment, selector)) return {std::nullopt, 0};
  return {m.cpu().exception->vector, m.cpu().exception->error_code};
}
bool reachable(TestMachine& m, Seg segment, uint64_t ea, unsigned bytes, Access access) {
  m.cpu().exception.reset();
  uint64_t linear = 0;
  return m.cpu().segment_linear(segment, ea, bytes, access, linear);
}
constexpr Answer kFine{std::nullopt, 0};

TEST(LoadSegment, ReadsBaseLimitAndRights) {
  TestMachine m(Mode::k32);
  add_descriptors(m, {0x12c0923456781234});  // base 0x12345678, limit 0x01234 pages
  EXPECT_EQ(load(m, Seg::kDs, kFree), kFine);
  const auto& ds = m.cpu().seg(Seg::kDs);
  EXPECT_EQ(ds.base, 0x12345678u);
  EXPECT_EQ(ds.limit, 0x1234fffu);
  EXPECT_EQ(ds.attributes, 0xc093u);  // and accessed
  EXPECT_EQ(m.peek<uint8_t>(TestMachine::kGdt + kFree + 5), 0x93);
}

TEST(LoadSegment, DataSegmentChecks) {
  TestMachine m(Mode::k32);
  add_descriptors(m, {0x00cf13000000ffff, 0x00cf99000000ffff, 0x0000890000000067});  // absent; execute-only; TSS
  EXPECT_EQ(load(m, Seg::kDs, 0), kFine);
  EXPECT_TRUE(m.cpu().seg(Seg::kDs).unusable());
  EXPECT_EQ(load(m, Seg::kDs, 0x400), (Answer{Vector::kGp, 0x400}));
  EXPECT_EQ(load(m, Seg::kDs, kFree), (Answer{Vector::kNp, kFree}));
  EXPECT_EQ(load(m, Seg::kDs, kFree + 8), (Answer{Vector::kGp, kFree + 8}));
  EXPECT_EQ(load(m, Seg::kDs, kFree + 16), (Answer{Vector::kGp, kFree + 16}));
  EXPECT_EQ(load(m, Seg::kDs, TestMachine::kData32 | 3), (Answer{Vector::kGp, TestMachine::kData32}));
  EXPECT_EQ(load(m, Seg::kDs, TestMachine::kCode32), kFine);  // readable code
}

TEST(LoadSegment, UserCannotTakeKernelData) {
  TestMachine m(Mode::k32);
  m.enter_user();
  EXPECT_EQ(load(m, Seg::kEs, TestMachine::kData32), (Answer{Vector::kGp, TestMachine::kData32}));
  EXPECT_EQ(load(m, Seg::kEs, TestMachine::kUserData), kFine);
}

TEST(LoadSegment, StackSegmentChecks) {
  TestMachine m(Mode::k32);
  add_descriptors(m, {0x00cf13000000ffff, 0x00cf91000000ffff});  // absent; read-only
  EXPECT_EQ(load(m, Seg::kSs, 0), (Answer{Vector::kGp, 0}));
  EXPECT_EQ(load(m, Seg::kSs, kFree), (Answer{Vector::kSs, kFree}));
  EXPECT_EQ(load(m, Seg::kSs, kFree + 8), (Answer{Vector::kGp, kFree + 8}));
  EXPECT_EQ(load(m, Seg::kSs, TestMachine::kUserData), (Answer{Vector::kGp, TestMachine::kUserData}));
  EXPECT_EQ(load(m, Seg::kSs, TestMachine::kData16), kFine);
  EXPECT_EQ(m.cpu().stack_width, 2);
}

TEST(LoadSegment, NullStackIn64BitModeNeedsItsRpl) {
  TestMachine m;
  EXPECT_EQ(load(m, Seg::kSs, 0), kFine);
  EXPECT_EQ(load(m, Seg::kSs, 3), (Answer{Vector::kGp, 0}));
  m.enter_user();
  EXPECT_EQ(load(m, Seg::kSs, 3), (Answer{Vector::kGp, 0}));
}

TEST(LoadSegment, LocalTable) {
  TestMachine m(Mode::k32);
  EXPECT_EQ(load(m, Seg::kDs, 0x0c), (Answer{Vector::kGp, 0x0c}));
  m.poke<uint64_t>(0x17008, 0x00cf93000000ffff);
  m.cpu().arch.ldtr = {0x60, 0x82, 0xf, 0x17000};
  EXPECT_EQ(load(m, Seg::kDs, 0x0c), kFine);
  EXPECT_EQ(load(m, Seg::kDs, 0x14), (Answer{Vector::kGp, 0x14}));
}

TEST(LoadSegment, TableInAnAbsentPageFaults) {
  TestMachine m;
  m.set_pte(TestMachine::kGdt, 0);
  EXPECT_EQ(load(m, Seg::kFs, TestMachine::kData32), (Answer{Vector::kPf, 0}));
}

TEST(LoadSegment, RealModeKeepsTheLimit) {
  TestMachine m(Mode::kReal);
  m.cpu().seg(Seg::kDs).limit = 0xffffffff;
  EXPECT_EQ(load(m, Seg::kDs, 0x1234), kFine);
  EXPECT_EQ(m.cpu().seg(Seg::kDs).base, 0x12340u);
  EXPECT_EQ(m.cpu().seg(Seg::kDs).limit, 0xffffffffu);
}

TEST(Limits, ExpandUp) {
  TestMachine m(Mode::k32);
  m.cpu().seg(Seg::kDs).limit = 0xfff;
  EXPECT_TRUE(reachable(m, Seg::kDs, 0xffc, 4, Access::kRead));
  EXPECT_FALSE(reachable(m, Seg::kDs, 0xffd, 4, Access::kRead));
  EXPECT_EQ(m.cpu().exception->vector, Vector::kGp);
  EXPECT_FALSE(reachable(m, Seg::kDs, 0xffffffff, 4, Access::kRead));
}

TEST(Limits, ExpandDown) {
  TestMachine m(Mode::k32);
  auto& ds = m.cpu().seg(Seg::kDs);
  ds.limit = 0xfff;
  ds.attributes = 0x4097;
  EXPECT_FALSE(reachable(m, Seg::kDs, 0xfff, 1, Access::kRead));
  EXPECT_TRUE(reachable(m, Seg::kDs, 0x1000, 1, Access::kRead));
  EXPECT_TRUE(reachable(m, Seg::kDs, 0xfffffffc, 4, Access::kWrite));
  ds.attributes = 0x97;  // 16-bit: up to 0xffff
  EXPECT_TRUE(reachable(m, Seg::kDs, 0xfffe, 2, Access::kRead));
  EXPECT_FALSE(reachable(m, Seg::kDs, 0xfffe, 4, Access::kRead));
}

TEST(Limits, TypesAndNullSelectors) {
  TestMachine m(Mode::k32);
  auto& ds = m.cpu().seg(Seg::kDs);
  ds.attributes = 0xc091;  // read-only
  EXPECT_TRUE(reachable(m, Seg::kDs, 0, 4, Access::kRead));
  EXPECT_FALSE(reachable(m, Seg::kDs, 0, 4, Access::kWrite));
  EXPECT_FALSE(reachable(m, Seg::kCs, 0, 4, Access::kWrite));
  EXPECT_TRUE(reachable(m, Seg::kCs, 0, 4, Access::kRead));
  ds = null_segment(0);
  EXPECT_FALSE(reachable(m, Seg::kDs, 0, 1, Access::kRead));
}

TEST(Limits, StackFaultsAreSs) {
  TestMachine m(Mode::k32);
  m.cpu().seg(Seg::kSs).limit = 0xfff;
  EXPECT_FALSE(reachable(m, Seg::kSs, 0x1000, 1, Access::kRead));
  EXPECT_EQ(m.cpu().exception->vector, Vector::kSs);
  m.gpr(x86::kRsp) = 0x2000;
  EXPECT_FALSE(m.cpu().push(4, 1));
  EXPECT_EQ(m.gpr(x86::kRsp), 0x2000u);
}

TEST(Stack, SixteenBitPointersWrapAndKeepTheUpperHalf) {
  TestMachine m(Mode::k16);
  m.gpr(x86::kRsp) = 0xabcd0000;
  ASSERT_TRUE(m.cpu().push(2, 0x5566));
  EXPECT_EQ(m.gpr(x86::kRsp), 0xabcdfffeu);
  uint64_t value = 0;
  ASSERT_TRUE(m.cpu().pop(2, value));
  EXPECT_EQ(value, 0x5566u);
  EXPECT_EQ(m.gpr(x86::kRsp), 0xabcd0000u);
}

// --- instructions ---

TEST(SegmentInsn, MovBothWays) {
  TestMachine m;
  m.gpr(x86::kRcx) = TestMachine::kUserData;
  m.gpr(x86::kRax) = ~uint64_t{0};
  m.run({0x8e, 0xe1, 0x8c, 0xe0});  // mov fs, ecx; mov eax, fs
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(x86::kRax), TestMachine::kUserData);
}

TEST(SegmentInsn, MovToCsIsUndefined) {
  TestMachine m;
  m.run({0x8e, 0xc8});
  EXPECT_EQ(m.vector(), 6);
}

TEST(SegmentInsn, PushAndPop) {
  TestMachine m(Mode::k32);
  m.run({0x1e, 0x07, 0x66, 0x0f, 0xa0, 0x66, 0x0f, 0xa9});  // push ds; pop es; push fs (word); pop gs (word)
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.cpu().seg(Seg::kEs).selector, TestMachine::kData32);
  EXPECT_EQ(m.gpr(x86::kRsp), TestMachine::kStackTop);
}

TEST(SegmentInsn, PopOfABadSelectorLeavesTheStack) {
  TestMachine m(Mode::k32);
  m.poke<uint32_t>(TestMachine::kStackTop - 4, 0x400);
  m.gpr(x86::kRsp) = TestMachine::kStackTop - 4;
  m.run({0x1f});
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.error_code(), 0x400u);
  EXPECT_EQ(m.gpr(x86::kRsp), TestMachine::kStackTop - 4 - 16);
}

TEST(SegmentInsn, LoadFarPointers) {
  TestMachine m(Mode::k32);
  m.poke<uint32_t>(kData, 0xdeadbeef);
  m.poke<uint16_t>(kData + 4, TestMachine::kUserData);
  m.gpr(x86::kRbx) = kData;
  m.run({0xc4, 0x03});  // les eax, [ebx]
  EXPECT_EQ(m.gpr(x86::kRax), 0xdeadbeefu);
  EXPECT_EQ(m.cpu().seg(Seg::kEs).selector, TestMachine::kUserData);
}

TEST(TableInsn, LgdtAndSgdt) {
  TestMachine m;
  m.poke<uint16_t>(kData, 0x57);
  m.poke<uint64_t>(kData + 2, TestMachine::kGdt);
  m.cpu().arch.gdtr = {0, 0};
  m.gpr(x86::kRbx) = kData;
  m.step({0x0f, 0x01, 0x13});  // lgdt [rbx]
  EXPECT_EQ(m.cpu().arch.gdtr, (x86::DescriptorTable{TestMachine::kGdt, 0x57}));
  m.run({0x0f, 0x01, 0x43, 0x20});  // sgdt [rbx+0x20]
  EXPECT_EQ(m.peek<uint16_t>(kData + 0x20), 0x57);
  EXPECT_EQ(m.peek<uint64_t>(kData + 0x22), TestMachine::kGdt);
}

TEST(TableInsn, LidtRefusesNonCanonicalBases) {
  TestMachine m;
  m.poke<uint64_t>(kData + 2, uint64_t{1} << 60);
  m.gpr(x86::kRbx) = kData;
  m.run({0x0f, 0x01, 0x1b});
  EXPECT_EQ(m.vector(), 13);
}

TEST(TableInsn, LgdtWith16BitOperandTakes24BitsOfBase) {
  TestMachine m(Mode::k16);
  m.poke<uint16_t>(0x3000, 0x57);
  m.poke<uint32_t>(0x3002, 0xff000000u | TestMachine::kGdt);
  m.gpr(x86::kRbx) = 0x3000;
  m.step({0x0f, 0x01, 0x17});  // lgdt [bx]
  EXPECT_EQ(m.cpu().arch.gdtr.base, TestMachine::kGdt);
}

TEST(TableInsn, LtrMarksTheTssBusy) {
  TestMachine m;
  m.poke<uint8_t>(TestMachine::kGdt + TestMachine::kTssSelector + 5, 0x89);
  m.gpr(x86::kRax) = TestMachine::kTssSelector;
  m.run({0x0f, 0x00, 0xd8, 0x0f, 0x00, 0xc9});  // ltr ax; str ecx
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(x86::kRcx), TestMachine::kTssSelector);
  EXPECT_EQ(m.cpu().arch.tr.base, TestMachine::kTss);
  EXPECT_EQ(m.peek<uint8_t>(TestMachine::kGdt + TestMachine::kTssSelector + 5), 0x8b);
  m.run({0x0f, 0x00, 0xd8});
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.error_code(), TestMachine::kTssSelector);
}

TEST(TableInsn, LongModeDescriptorsTakeTwoSlots) {
  TestMachine m;
  add_descriptors(m, {0x000089000000ffff});
  m.gpr(x86::kRax) = kFree;
  m.run({0x0f, 0x00, 0xd8});
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.error_code(), kFree);
}

TEST(TableInsn, LldtTakesNull) {
  TestMachine m;
  m.run({0x31, 0xc0, 0x0f, 0x00, 0xd0, 0x0f, 0x00, 0xc1});  // xor eax, eax; lldt ax; sldt ecx
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_TRUE(m.cpu().arch.ldtr.unusable());
}

TEST(TableInsn, UmipHidesThemFromUsers) {
  for (const bool umip : {false, true}) {
    TestMachine m;
    m.enter_user();
    if (umip) m.cpu().arch.cr4 |= x86::cr4::kUmip;
    m.run({0x0f, 0x00, 0xc8});                           // str eax
    const uint64_t expected = umip ? kCode : kCode + 3;  // or on to HLT
    EXPECT_EQ(m.vector(), 13);
    EXPECT_EQ(m.faulting_rip(), expected);
  }
}

TEST(DescriptorInsn, LarLslVerrVerw) {
  TestMachine m(Mode::k32);
  add_descriptors(m, {0x00c09a000000ffff});
  m.gpr(x86::kRcx) = TestMachine::kData32;
  m.run({0x0f, 0x02, 0xc1, 0x0f, 0x03, 0xd1});  // lar eax, ecx; lsl edx, ecx
  EXPECT_EQ(m.gpr(x86::kRax), 0x00c09300u);
  EXPECT_EQ(m.gpr(x86::kRdx), 0xffffffffu);
  EXPECT_NE(m.cpu().state.cc & flag::kZf, 0u);
  m.run({0x0f, 0x00, 0xe9});  // verw cx
  EXPECT_NE(m.cpu().state.cc & flag::kZf, 0u);
  m.gpr(x86::kRcx) = TestMachine::kCode32;
  m.run({0x0f, 0x00, 0xe9});
  EXPECT_EQ(m.cpu().state.cc & flag::kZf, 0u);
  m.run({0x0f, 0x00, 0xe1});  // verr cx
  EXPECT_NE(m.cpu().state.cc & flag::kZf, 0u);
}

TEST(DescriptorInsn, RefusalsClearZfOnly) {
  TestMachine m;
  m.enter_user();
  m.gpr(x86::kRcx) = TestMachine::kData32;
  m.gpr(x86::kRax) = 0x77;
  m.cpu().state.cc = flag::kZf;
  m.step({0x0f, 0x02, 0xc1});
  EXPECT_EQ(m.cpu().state.cc & flag::kZf, 0u);
  EXPECT_EQ(m.gpr(x86::kRax), 0x77u);
  m.gpr(x86::kRcx) = 0x8000;
  m.step({0x0f, 0x02, 0xc1});
  EXPECT_FALSE(m.cpu().exception);
  EXPECT_EQ(m.cpu().cpl, 3);
}

TEST(DescriptorInsn, RealModeHasThemNot) {
  TestMachine m(Mode::kReal);
  m.poke<uint32_t>(6 * 4, 0x12000000);
  m.step({0x0f, 0x02, 0xc1});
  EXPECT_EQ(m.cpu().seg(Seg::kCs).base, 0x12000u);
}

TEST(DescriptorInsn, Arpl) {
  TestMachine m(Mode::k32);
  m.gpr(x86::kRax) = 0x10;
  m.gpr(x86::kRcx) = 3;
  m.run({0x63, 0xc8});  // arpl ax, cx
  EXPECT_EQ(m.gpr(x86::kRax), 0x13u);
  EXPECT_NE(m.cpu().state.cc & flag::kZf, 0u);
  m.run({0x63, 0xc8});
  EXPECT_EQ(m.cpu().state.cc & flag::kZf, 0u);
}

}  // namespace
}  // namespace kite::cpu

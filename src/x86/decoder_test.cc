#include <gtest/gtest.h>

#include <vector>

#include "x86/insn.h"

namespace kite::x86 {
namespace {

Insn decode_ok(std::vector<uint8_t> bytes, CodeWidth width = CodeWidth::k64) {
  Insn insn;
  EXPECT_EQ(decode(bytes, {width}, insn), DecodeStatus::kOk);
  EXPECT_EQ(insn.length, bytes.size());
  return insn;
}

bool invalid(std::vector<uint8_t> bytes, CodeWidth width = CodeWidth::k64) {
  bytes.resize(15);
  Insn insn;
  return decode(bytes, {width}, insn) == DecodeStatus::kOk && insn.op == Op::kInvalid;
}

std::string text(std::vector<uint8_t> bytes, CodeWidth width = CodeWidth::k64) {
  return to_text(decode_ok(std::move(bytes), width), 0x1000);
}

TEST(Decoder, LockNeedsAMemoryDestination) {
  EXPECT_FALSE(invalid({0xf0, 0x01, 0x00}));       // lock add [rax], eax
  EXPECT_TRUE(invalid({0xf0, 0x01, 0xc0}));        // lock add eax, eax
  EXPECT_TRUE(invalid({0xf0, 0x03, 0x00}));        // lock add eax, [rax]
  EXPECT_TRUE(invalid({0xf0, 0x39, 0x00}));        // lock cmp [rax], eax
  EXPECT_TRUE(invalid({0xf0, 0x0f, 0xa3, 0x00}));  // lock bt [rax], eax
  EXPECT_FALSE(invalid({0xf0, 0x87, 0x00}));       // lock xchg [rax], eax
  EXPECT_TRUE(invalid({0xf0, 0x8b, 0x00}));        // lock mov
}

TEST(Decoder, RexCountsOnlyDirectlyBeforeTheOpcode) {
  EXPECT_EQ(decode_ok({0x48, 0x66, 0x89, 0xd8}).operand_size, 2);
  EXPECT_EQ(decode_ok({0x66, 0x48, 0x89, 0xd8}).operand_size, 8);
  EXPECT_EQ(decode_ok({0x48, 0x44, 0x89, 0xd8}).operand[1].reg, kR11);
}

TEST(Decoder, HighByteRegistersGoAwayWithRex) {
  const Insn legacy = decode_ok({0x88, 0xe0});
  EXPECT_TRUE(legacy.operand[1].high_byte);
  EXPECT_EQ(legacy.operand[1].reg, kRax);
  const Insn rex = decode_ok({0x40, 0x88, 0xe0});
  EXPECT_FALSE(rex.operand[1].high_byte);
  EXPECT_EQ(rex.operand[1].reg, kRsp);
}

TEST(Decoder, NearBranchesIgnoreTheOperandSizePrefixIn64BitMode) {
  const Insn call = decode_ok({0x66, 0xe8, 1, 2, 3, 4});
  EXPECT_EQ(call.operand_size, 8);
  EXPECT_EQ(call.imm, 0x04030201u);
  EXPECT_EQ(decode_ok({0x66, 0xe8, 1, 2}, CodeWidth::k32).operand_size, 2);
}

TEST(Decoder, PushAndPopDefaultTo64Bits) {
  EXPECT_EQ(decode_ok({0x50}).operand[0].size, 8);
  EXPECT_EQ(decode_ok({0x66, 0x50}).operand[0].size, 2);
  EXPECT_EQ(decode_ok({0x50}, CodeWidth::k32).operand[0].size, 4);
  EXPECT_EQ(decode_ok({0x6a, 0xff}).imm, ~uint64_t{0});
}

TEST(Decoder, RipRelativeAndAbsoluteAddresses) {
  const Insn rip = decode_ok({0x8b, 0x05, 0xfc, 0xff, 0xff, 0xff});
  EXPECT_EQ(rip.mem.base, kRipReg);
  EXPECT_EQ(rip.mem.disp, -4);
  const Insn absolute = decode_ok({0x8b, 0x04, 0x25, 0x10, 0, 0, 0});
  EXPECT_EQ(absolute.mem.base, kNoReg);
  EXPECT_EQ(absolute.mem.index, kNoReg);
  EXPECT_EQ(decode_ok({0x8b, 0x05, 0x10, 0, 0, 0}, CodeWidth::k32).mem.base, kNoReg);
  const Insn moffs = decode_ok({0xa1, 8, 7, 6, 5, 4, 3, 2, 1});
  EXPECT_EQ(moffs.mem.disp, 0x0102030405060708);
}

TEST(Decoder, StackSegmentByDefault) {
  EXPECT_EQ(decode_ok({0x8b, 0x04, 0x24}).mem.segment, Seg::kSs);                  // [rsp]
  EXPECT_EQ(decode_ok({0x8b, 0x45, 0x00}, CodeWidth::k32).mem.segment, Seg::kSs);  // [ebp]
  EXPECT_EQ(decode_ok({0x8b, 0x02}, CodeWidth::k16).mem.segment, Seg::kSs);        // [bp+si]
  EXPECT_EQ(decode_ok({0x8b, 0x06, 0, 0}, CodeWidth::k16).mem.segment, Seg::kDs);  // [disp16]
  EXPECT_EQ(decode_ok({0x41, 0x8b, 0x45, 0x00}).mem.segment, Seg::kDs);            // [r13]
  EXPECT_EQ(decode_ok({0x2e, 0x8b, 0x00}).mem.segment, Seg::kDs);                  // CS: means nothing here
  EXPECT_EQ(decode_ok({0x2e, 0x8b, 0x00}, CodeWidth::k32).mem.segment, Seg::kCs);
  EXPECT_EQ(decode_ok({0x64, 0x2e, 0x8b, 0x00}).mem.segment, Seg::kFs);
}

TEST(Decoder, VexAgainstLesLdsAndBound) {
  EXPECT_EQ(decode_ok({0xc5, 0xf8, 0x77}).op, Op::kVzeroupper);
  EXPECT_EQ(decode_ok({0xc5, 0xf8, 0x77}, CodeWidth::k32).op, Op::kVzeroupper);
  EXPECT_EQ(decode_ok({0xc5, 0x00}, CodeWidth::k32).op, Op::kLds);
  EXPECT_EQ(decode_ok({0xc4, 0x00}, CodeWidth::k16).op, Op::kLes);
  EXPECT_EQ(decode_ok({0x62, 0x00}, CodeWidth::k32).op, Op::kBound);
  EXPECT_TRUE(invalid({0x62, 0xf1}, CodeWidth::k32));
  EXPECT_TRUE(invalid({0x62, 0x00}));
}

TEST(Decoder, VexOperands) {
  EXPECT_EQ(text({0xc5, 0xed, 0xfe, 0xcb}), "vpaddd ymm1, ymm2, ymm3");
  EXPECT_EQ(text({0xc4, 0xc1, 0x7c, 0x10, 0x00}), "vmovups ymm0, ymmword ptr [r8]");
  EXPECT_EQ(text({0xc4, 0xe3, 0x69, 0x4a, 0xcb, 0x40}), "vblendvps xmm1, xmm2, xmm3, xmm4");
  EXPECT_EQ(text({0xc4, 0xe2, 0x6d, 0x90, 0x0c, 0x98}), "vpgatherdd ymm1, dword ptr [rax+ymm3*4], ymm2");
  EXPECT_EQ(text({0xc4, 0xe2, 0xe8, 0xf2, 0xcb}), "andn rcx, rdx, rbx");
  EXPECT_EQ(text({0xc4, 0xe2, 0xe8, 0xf2, 0xcb}, CodeWidth::k32), "andn ecx, edx, ebx");
  const Insn insn = decode_ok({0xc4, 0xe2, 0xed, 0xb8, 0xcb});  // vfmadd231pd
  EXPECT_EQ(insn.operand[0].field, Field::kReg);
  EXPECT_EQ(insn.operand[1].field, Field::kVvvv);
  EXPECT_EQ(insn.operand[2].field, Field::kRm);
  EXPECT_TRUE(insn.vex && insn.rex_w);
  EXPECT_EQ(insn.vector_bytes, 32);
}

// [SDM 2A 2.3] Prefixes before it, an unused VEX.vvvv, a wrong VEX.L, one register of a gather used twice.
TEST(Decoder, VexThatIsUndefined) {
  EXPECT_TRUE(invalid({0x66, 0xc5, 0xed, 0xfe, 0xcb}));
  EXPECT_TRUE(invalid({0xf3, 0xc5, 0xed, 0xfe, 0xcb}));
  EXPECT_TRUE(invalid({0xf0, 0xc5, 0xed, 0xfe, 0xcb}));
  EXPECT_TRUE(invalid({0x48, 0xc5, 0xed, 0xfe, 0xcb}));
  EXPECT_TRUE(invalid({0xc5, 0xe9, 0x6f, 0xcb}));        // vmovdqa with vvvv
  EXPECT_TRUE(invalid({0xc5, 0xfd, 0x6e, 0xc8}));        // vmovd with L
  EXPECT_TRUE(invalid({0xc4, 0xe4, 0x6d, 0xfe, 0xcb}));  // map 4
  EXPECT_TRUE(invalid({0xc4, 0xe2, 0x75, 0x90, 0x0c, 0x98}));
  EXPECT_TRUE(invalid({0xc4, 0xe2, 0x6d, 0x90, 0x08}));  // no SIB byte
}

TEST(Decoder, MandatoryPrefixes) {
  EXPECT_EQ(text({0x0f, 0x58, 0xc1}), "addps xmm0, xmm1");
  EXPECT_EQ(text({0x66, 0x0f, 0x58, 0xc1}), "addpd xmm0, xmm1");
  EXPECT_EQ(text({0xf3, 0x0f, 0x58, 0xc1}), "addss xmm0, xmm1");
  EXPECT_EQ(text({0x66, 0xf2, 0x0f, 0x58, 0xc1}), "addsd xmm0, xmm1");
  EXPECT_EQ(text({0xf2, 0xf3, 0x0f, 0x58, 0xc1}), "addss xmm0, xmm1");  // the later one
  EXPECT_TRUE(invalid({0xf3, 0x0f, 0x28, 0xc1}));
  const Insn insn = decode_ok({0xf3, 0x0f, 0x58, 0xc1});
  EXPECT_EQ(insn.mandatory_prefix, 0xf3);
  EXPECT_FALSE(insn.rep);
}

TEST(Decoder, AlignmentOfVectorMemory) {
  EXPECT_EQ(decode_ok({0x0f, 0x28, 0x00}).mem_align, 16);                // movaps
  EXPECT_EQ(decode_ok({0x0f, 0x10, 0x00}).mem_align, 0);                 // movups
  EXPECT_EQ(decode_ok({0x66, 0x0f, 0xef, 0x00}).mem_align, 16);          // pxor
  EXPECT_EQ(decode_ok({0xf2, 0x0f, 0xf0, 0x00}).mem_align, 0);           // lddqu
  EXPECT_EQ(decode_ok({0xf3, 0x0f, 0x58, 0x00}).mem_align, 0);           // addss
  EXPECT_EQ(decode_ok({0x66, 0x0f, 0x3a, 0x63, 0x00, 0}).mem_align, 0);  // pcmpistri
  EXPECT_EQ(decode_ok({0x0f, 0xef, 0x00}).mem_align, 0);                 // pxor of MMX registers
}

TEST(Decoder, VectorOperands) {
  const Insn insert = decode_ok({0x66, 0x41, 0x0f, 0xc4, 0xcf, 3});  // pinsrw xmm1, r15d, 3
  EXPECT_EQ(insert.unit, Unit::kSse);
  EXPECT_EQ(insert.operand[0].kind, OperandKind::kXmm);
  EXPECT_EQ(insert.operand[1].kind, OperandKind::kGpr);
  EXPECT_EQ(insert.operand[1].reg, kR15);
  EXPECT_EQ(insert.imm, 3u);
  const Insn store = decode_ok({0x66, 0x48, 0x0f, 0x7e, 0x00});  // movq [rax], xmm0
  EXPECT_TRUE(store.mem_write);
  EXPECT_FALSE(store.mem_read);
  EXPECT_EQ(store.operand[0].size, 8);
  EXPECT_EQ(to_text(store, 0), "movq qword ptr [rax], xmm0");
}

TEST(Decoder, InvalidForms) {
  EXPECT_TRUE(invalid({0x8d, 0xc0}));                        // lea eax, eax
  EXPECT_TRUE(invalid({0x8e, 0xc8}));                        // mov cs, ax
  EXPECT_TRUE(invalid({0x8e, 0xf0}));                        // segment register 6
  EXPECT_TRUE(invalid({0x0f, 0x20, 0xc8}));                  // cr1
  EXPECT_TRUE(invalid({0x44, 0x0f, 0x21, 0xc0}));            // dr8
  EXPECT_FALSE(invalid({0x44, 0x0f, 0x20, 0xc0}));           // cr8
  EXPECT_TRUE(invalid({0x06}));                              // push es
  EXPECT_TRUE(invalid({0x0f, 0xc7, 0xc8}));                  // cmpxchg8b eax
  EXPECT_TRUE(invalid({0x0f, 0x01, 0xf8}, CodeWidth::k32));  // swapgs
  EXPECT_TRUE(invalid({0x8f, 0xc8}));                        // XOP
}

TEST(Decoder, CompareExchangeOf16Bytes) {
  const Insn insn = decode_ok({0xf0, 0x48, 0x0f, 0xc7, 0x0f});
  EXPECT_EQ(insn.op, Op::kCmpxchg16b);
  EXPECT_EQ(insn.need, Need::kCx16);
  EXPECT_EQ(insn.operand[0].size, 16);
}

TEST(Decoder, EnterAndFarPointers) {
  const Insn enter = decode_ok({0xc8, 0x34, 0x12, 0x05});
  EXPECT_EQ(enter.imm, 0x1234u);
  EXPECT_EQ(enter.imm2, 5u);
  const Insn jump = decode_ok({0xea, 1, 2, 3, 4, 8, 0}, CodeWidth::k32);
  EXPECT_EQ(jump.imm, 0x04030201u);
  EXPECT_EQ(jump.imm2, 8u);
  EXPECT_EQ(to_text(jump, 0), "jmp far 0x8:0x4030201");
  EXPECT_EQ(decode_ok({0x48, 0xff, 0x28}).operand[0].size, 10);
}

TEST(Decoder, PauseAndNop) {
  EXPECT_EQ(decode_ok({0x90}).op, Op::kNop);
  EXPECT_EQ(decode_ok({0xf3, 0x90}).op, Op::kPause);
  EXPECT_EQ(decode_ok({0x41, 0x90}).op, Op::kXchg);
  EXPECT_EQ(decode_ok({0xf3, 0x41, 0x90}).op, Op::kPause);  // as processors do
}

TEST(Decoder, LengthLimits) {
  const std::vector<uint8_t> prefixes(15, 0x66);
  Insn insn;
  EXPECT_EQ(decode(prefixes, {}, insn), DecodeStatus::kTooLong);
  EXPECT_EQ(decode(std::span(prefixes).first(14), {}, insn), DecodeStatus::kTruncated);
  EXPECT_EQ(decode({}, {}, insn), DecodeStatus::kTruncated);
}

TEST(Decoder, Text) {
  EXPECT_EQ(text({0x48, 0x01, 0xd8}), "add rax, rbx");
  EXPECT_EQ(text({0x48, 0x8d, 0x05, 1, 0, 0, 0}), "lea rax, [0x1008]");
  EXPECT_EQ(text({0xf3, 0x48, 0xa5}), "rep movsq");
  EXPECT_EQ(text({0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0}), "mov rax, qword ptr gs:[0x28]");
  EXPECT_EQ(text({0x0f, 0x84, 0, 0, 0, 0}), "jz 0x1006");
  EXPECT_EQ(text({0x8b, 0x44, 0xb3, 0xfc}, CodeWidth::k32), "mov eax, dword ptr [ebx+esi*4-0x4]");
  EXPECT_EQ(text({0xdd, 0x45, 0xf8}), "fld qword ptr [rbp-0x8]");
  EXPECT_EQ(text({0x83, 0xc0, 0xff}), "add eax, 0xffffffff");
  EXPECT_EQ(text({0xcd, 0x80}), "int 0x80");
}

}  // namespace
}  // namespace kite::x86

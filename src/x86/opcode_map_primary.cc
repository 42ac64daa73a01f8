// The one-byte opcode map (SDM 2D, tables ).
#include "x86/opcode_row.h"

namespace kite::x86::opcodes {

namespace {

using enum Form;
using enum Op;

constexpr Row kImmediateByte[8] = {
    op(kAdd, rw | lock, Eb, Ib), op(kOr, rw | lock, Eb, Ib),  op(kAdc, rw | lock, Eb, Ib), op(kSbb, rw | lock, Eb, Ib),
    op(kAnd, rw | lock, Eb, Ib), op(kSub, rw | lock, Eb, Ib), op(kXor, rw | lock, Eb, Ib), op(kCmp, r, Eb, Ib)};
constexpr Row kImmediateFull[8] = {
    op(kAdd, rw | lock, Ev, Iz), op(kOr, rw | lock, Ev, Iz),  op(kAdc, rw | lock, Ev, Iz), op(kSbb, rw | lock, Ev, Iz),
    op(kAnd, rw | lock, Ev, Iz), op(kSub, rw | lock, Ev, Iz), op(kXor, rw | lock, Ev, Iz), op(kCmp, r, Ev, Iz)};
constexpr Row kImmediateShort[8] = {
    op(kAdd, rw | lock, Ev, Ib), op(kOr, rw | lock, Ev, Ib),  op(kAdc, rw | lock, Ev, Ib), op(kSbb, rw | lock, Ev, Ib),
    op(kAnd, rw | lock, Ev, Ib), op(kSub, rw | lock, Ev, Ib), op(kXor, rw | lock, Ev, Ib), op(kCmp, r, Ev, Ib)};

struct ShiftGroup {
  Row rows[8];
};
constexpr ShiftGroup shifts(Form what, Form count) {
  return {{op(kRol, rw, what, count), op(kRor, rw, what, count), op(kRcl, rw, what, count), op(kRcr, rw, what, count),
           op(kShl, rw, what, count), op(kShr, rw, what, count), op(kShl, rw, what, count), op(kSar, rw, what, count)}};
}
constexpr ShiftGroup kShiftByteUb = shifts(Eb, Ub), kShiftUb = shifts(Ev, Ub), kShiftByteOne = shifts(Eb, One),
                     kShiftOne = shifts(Ev, One), kShiftByteCl = shifts(Eb, Cl), kShiftCl = shifts(Ev, Cl);

constexpr Row kUnaryByte[8] = {op(kTest, r, Eb, Ib),    op(kTest, r, Eb, Ib), op(kNot, rw | lock, Eb),
                               op(kNeg, rw | lock, Eb), op(kMul, r, Eb),      op(kImul1, r, Eb),
                               op(kDiv, r, Eb),         op(kIdiv, r, Eb)};
constexpr Row kUnary[8] = {op(kTest, r, Ev, Iz), op(kTest, r, Ev, Iz), op(kNot, rw | lock, Ev), op(kNeg, rw | lock, Ev),
                           op(kMul, r, Ev),      op(kImul1, r, Ev),    op(kDiv, r, Ev),         op(kIdiv, r, Ev)};
constexpr Row kIncDecByte[8] = {op(kInc, rw | lock, Eb), op(kDec, rw | lock, Eb)};
constexpr Row kIncDecBranch[8] = {
    op(kInc, rw | lock, Ev),   op(kDec, rw | lock, Ev), op(kCall, r | force64, Ev), op(kCallFar, r, Mp),
    op(kJmp, r | force64, Ev), op(kJmpFar, r, Mp),      op(kPush, r | def64, Ev),   kBad};
constexpr Row kPopGroup[8] = {op(kPop, w | def64, Ev)};  // the rest is AMD's XOP
constexpr Row kMovByteGroup[8] = {op(kMov, w, Eb, Ib)};
constexpr Row kMovGroup[8] = {op(kMov, w, Ev, Iz)};

constexpr Row kNopRows[3] = {op(Op::kNop), op(kXchg, 0, Zv, Av), op(kPause)};
constexpr Row kLesPair[2] = {op(kLes, 0, Gv, Mp), kBad};
constexpr Row kLdsPair[2] = {op(kLds, 0, Gv, Mp), kBad};
constexpr Row kBoundPair[2] = {op(kBound, 0, Gv, Ma), kBad};

constexpr Entry kEntries[] = {
    {0x06, 0x06, legacy, op(kPushSeg, 0, Es)},
    {0x07, 0x07, legacy, op(kPopSeg, 0, Es)},
    {0x0e, 0x0e, legacy, op(kPushSeg, 0, Cs)},
    {0x16, 0x16, legacy, op(kPushSeg, 0, Ss)},
    {0x17, 0x17, legacy, op(kPopSeg, 0, Ss)},
    {0x1e, 0x1e, legacy, op(kPushSeg, 0, Ds)},
    {0x1f, 0x1f, legacy, op(kPopSeg, 0, Ds)},
    {0x27, 0x27, legacy, op(kDaa)},
    {0x2f, 0x2f, legacy, op(kDas)},
    {0x37, 0x37, legacy, op(kAaa)},
    {0x3f, 0x3f, legacy, op(kAas)},
    {0x40, 0x47, legacy, op(kInc, 0, Zv)},
    {0x48, 0x4f, legacy, op(kDec, 0, Zv)},
    {0x50, 0x57, both, op(kPush, def64, Zv)},
    {0x58, 0x5f, both, op(kPop, def64, Zv)},
    {0x60, 0x60, legacy, op(kPusha)},
    {0x61, 0x61, legacy, op(kPopa)},
    {0x62, 0x62, legacy, group(Select::kMemReg, kBoundPair)},
    {0x63, 0x63, legacy, op(kArpl, rw, Ew, Gw)},
    {0x63, 0x63, only64, op(kMovsxd, 0, Gv, Ez)},
    {0x68, 0x68, both, op(kPush, def64, Iz)},
    {0x69, 0x69, both, op(kImul3, 0, Gv, Ev, Iz)},
    {0x6a, 0x6a, both, op(kPush, def64, Ib)},
    {0x6b, 0x6b, both, op(kImul3, 0, Gv, Ev, Ib)},
    {0x6c, 0x6c, both, op(kIns, w, Yb, Dx)},
    {0x6d, 0x6d, both, op(kIns, w, Yz, Dx)},
    {0x6e, 0x6e, both, op(kOuts, 0, Dx, Xb)},
    {0x6f, 0x6f, both, op(kOuts, 0, Dx, Xz)},
    {0x70, 0x7f, both, op(kJcc, force64, Jb)},
    {0x80, 0x80, both, group(Select::kReg, kImmediateByte)},
    {0x81, 0x81, both, group(Select::kReg, kImmediateFull)},
    {0x82, 0x82, legacy, group(Select::kReg, kImmediateByte)},
    {0x83, 0x83, both, group(Select::kReg, kImmediateShort)},
    {0x84, 0x84, both, op(kTest, r, Eb, Gb)},
    {0x85, 0x85, both, op(kTest, r, Ev, Gv)},
    {0x86, 0x86, both, op(kXchg, rw | lock, Eb, Gb)},
    {0x87, 0x87, both, op(kXchg, rw | lock, Ev, Gv)},
    {0x88, 0x88, both, op(kMov, w, Eb, Gb)},
    {0x89, 0x89, both, op(kMov, w, Ev, Gv)},
    {0x8a, 0x8a, both, op(kMov, 0, Gb, Eb)},
    {0x8b, 0x8b, both, op(kMov, 0, Gv, Ev)},
    {0x8c, 0x8c, both, op(kMovFromSeg, w, RvMw, Sw)},
    {0x8d, 0x8d, both, op(kLea, 0, Gv, M)},
    {0x8e, 0x8e, both, op(kMovToSeg, 0, Sw, Ew)},
    {0x8f, 0x8f, both, group(Select::kReg, kPopGroup)},
    {0x90, 0x90, both, group(Select::kNop, kNopRows)},
    {0x91, 0x97, both, op(kXchg, 0, Zv, Av)},
    {0x98, 0x98, both, op(kCbw)},
    {0x99, 0x99, both, op(kCwd)},
    {0x9a, 0x9a, legacy, op(kCallFar, 0, Ap)},
    {0x9b, 0x9b, both, op(kFwait, Need::kX87)},
    {0x9c, 0x9c, both, op(kPushf, def64)},
    {0x9d, 0x9d, both, op(kPopf, def64)},
    {0x9e, 0x9e, both, op(kSahf)},
    {0x9f, 0x9f, both, op(kLahf)},
    {0xa0, 0xa0, both, op(kMov, 0, Al, Ob)},
    {0xa1, 0xa1, both, op(kMov, 0, Av, Ov)},
    {0xa2, 0xa2, both, op(kMov, w, Ob, Al)},
    {0xa3, 0xa3, both, op(kMov, w, Ov, Av)},
    {0xa4, 0xa4, both, op(kMovs, 0, Yb, Xb)},
    {0xa5, 0xa5, both, op(kMovs, 0, Yv, Xv)},
    {0xa6, 0xa6, both, op(kCmps, 0, Xb, Yb)},
    {0xa7, 0xa7, both, op(kCmps, 0, Xv, Yv)},
    {0xa8, 0xa8, both, op(kTest, 0, Al, Ib)},
    {0xa9, 0xa9, both, op(kTest, 0, Av, Iz)},
    {0xaa, 0xaa, both, op(kStos, w, Yb, Al)},
    {0xab, 0xab, both, op(kStos, w, Yv, Av)},
    {0xac, 0xac, both, op(kLods, 0, Al, Xb)},
    {0xad, 0xad, both, op(kLods, 0, Av, Xv)},
    {0xae, 0xae, both, op(kScas, 0, Al, Yb)},
    {0xaf, 0xaf, both, op(kScas, 0, Av, Yv)},
    {0xb0, 0xb7, both, op(kMov, 0, Zb, Ib)},
    {0xb8, 0xbf, both, op(kMov, 0, Zv, Iv)},
    {0xc0, 0xc0, both, group(Select::kReg, kShiftByteUb.rows)},
    {0xc1, 0xc1, both, group(Select::kReg, kShiftUb.rows)},
    {0xc2, 0xc2, both, op(kRet, force64, Uw)},
    {0xc3, 0xc3, both, op(kRet, force64)},
    {0xc4, 0xc4, legacy, group(Select::kMemReg, kLesPair)},
    {0xc5, 0xc5, legacy, group(Select::kMemReg, kLdsPair)},
    {0xc6, 0xc6, both, group(Select::kReg, kMovByteGroup)},
    {0xc7, 0xc7, both, group(Select::kReg, kMovGroup)},
    {0xc8, 0xc8, both, op(kEnter, def64, Uw, Ub2)},
    {0xc9, 0xc9, both, op(kLeave, def64)},
    {0xca, 0xca, both, op(kRetFar, 0, Uw)},
    {0xcb, 0xcb, both, op(kRetFar)},
    {0xcc, 0xcc, both, op(kInt3)},
    {0xcd, 0xcd, both, op(kInt, 0, Ub)},
    {0xce, 0xce, legacy, op(kInto)},
    {0xcf, 0xcf, both, op(kIret)},
    {0xd0, 0xd0, both, group(Select::kReg, kShiftByteOne.rows)},
    {0xd1, 0xd1, both, group(Select::kReg, kShiftOne.rows)},
    {0xd2, 0xd2, both, group(Select::kReg, kShiftByteCl.rows)},
    {0xd3, 0xd3, both, group(Select::kReg, kShiftCl.rows)},
    {0xd4, 0xd4, legacy, op(kAam, 0, Ub)},
    {0xd5, 0xd5, legacy, op(kAad, 0, Ub)},
    {0xd6, 0xd6, legacy, op(kSalc)},
    {0xd7, 0xd7, both, op(kXlat, r, MemBx)},
    {0xd8, 0xd8, both, group(Select::kX87, kX87Groups[0].data())},
    {0xd9, 0xd9, both, group(Select::kX87, kX87Groups[1].data())},
    {0xda, 0xda, both, group(Select::kX87, kX87Groups[2].data())},
    {0xdb, 0xdb, both, group(Select::kX87, kX87Groups[3].data())},
    {0xdc, 0xdc, both, group(Select::kX87, kX87Groups[4].data())},
    {0xdd, 0xdd, both, group(Select::kX87, kX87Groups[5].data())},
    {0xde, 0xde, both, group(Select::kX87, kX87Groups[6].data())},
    {0xdf, 0xdf, both, group(Select::kX87, kX87Groups[7].data())},
    {0xe0, 0xe0, both, op(kLoopne, force64, Jb)},
    {0xe1, 0xe1, both, op(kLoope, force64, Jb)},
    {0xe2, 0xe2, both, op(kLoop, force64, Jb)},
    {0xe3, 0xe3, both, op(kJcxz, force64, Jb)},
    {0xe4, 0xe4, both, op(kIn, 0, Al, Ub)},
    {0xe5, 0xe5, both, op(kIn, 0, Az, Ub)},
    {0xe6, 0xe6, both, op(kOut, 0, Ub, Al)},
    {0xe7, 0xe7, both, op(kOut, 0, Ub, Az)},
    {0xe8, 0xe8, both, op(kCall, force64, Jz)},
    {0xe9, 0xe9, both, op(kJmp, force64, Jz)},
    {0xea, 0xea, legacy, op(kJmpFar, 0, Ap)},
    {0xeb, 0xeb, both, op(kJmp, force64, Jb)},
    {0xec, 0xec, both, op(kIn, 0, Al, Dx)},
    {0xed, 0xed, both, op(kIn, 0, Az, Dx)},
    {0xee, 0xee, both, op(kOut, 0, Dx, Al)},
    {0xef, 0xef, both, op(kOut, 0, Dx, Az)},
    {0xf1, 0xf1, both, op(kInt1)},
    {0xf4, 0xf4, both, op(kHlt)},
    {0xf5, 0xf5, both, op(kCmc)},
    {0xf6, 0xf6, both, group(Select::kReg, kUnaryByte)},
    {0xf7, 0xf7, both, group(Select::kReg, kUnary)},
    {0xf8, 0xf8, both, op(kClc)},
    {0xf9, 0xf9, both, op(kStc)},
    {0xfa, 0xfa, both, op(kCli)},
    {0xfb, 0xfb, both, op(kSti)},
    {0xfc, 0xfc, both, op(kCld)},
    {0xfd, 0xfd, both, op(kStd)},
    {0xfe, 0xfe, both, group(Select::kReg, kIncDecByte)},
    {0xff, 0xff, both, group(Select::kReg, kIncDecBranch)},
};

// 00H..3FH: eight operations in six forms each.
constexpr void fill_arithmetic(Map<2>& map) {
  constexpr Op kOps[8] = {kAdd, kOr, kAdc, kSbb, kAnd, kSub, kXor, kCmp};
  for (uint8_t i = 0; i < 8; ++i) {
    const uint16_t flags = kOps[i] == kCmp ? r : rw | lock;
    const auto base = static_cast<uint8_t>(i * 8);
    const auto at = [base](uint8_t n) { return static_cast<uint8_t>(base + n); };
    const Entry rows[] = {
        {at(0), at(0), both, op(kOps[i], flags, Eb, Gb)}, {at(1), at(1), both, op(kOps[i], flags, Ev, Gv)},
        {at(2), at(2), both, op(kOps[i], 0, Gb, Eb)},     {at(3), at(3), both, op(kOps[i], 0, Gv, Ev)},
        {at(4), at(4), both, op(kOps[i], 0, Al, Ib)},     {at(5), at(5), both, op(kOps[i], 0, Av, Iz)}};
    fill<2>(map, rows);
  }
}

constexpr Map<2> build() {
  Map<2> map{};
  fill_arithmetic(map);
  fill<2>(map, kEntries);
  return map;
}

}  // namespace

constinit const Map<2> kPrimary = build();

}  // namespace kite::x86::opcodes
